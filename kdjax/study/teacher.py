"""A study's teacher: read, checked, and fitted with an MLM head where the recipe pays for one."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kdjax import models
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger, lay_out
from kdjax.config import Config, ModelConfig, plain, to_dict
from kdjax.data import sources, vocabulary
from kdjax.data.corpus import Corpus
from kdjax.data.reference_losses import reference_losses
from kdjax.errors import InputError
from kdjax.evaluate.mlm import held_out_loss
from kdjax.files import read_json, undone_by_bad_input, write_json
from kdjax.models import Model, zoo
from kdjax.parallel import hosts
from kdjax.parallel.layout import Layout
from kdjax.study.corpus import corpus_of, held_out_batches, tokenizer_of, train_batches, trains_tokenizer
from kdjax.study.progress import Reporter
from kdjax.train.phase import Shape, price
from kdjax.train.teacher import fit_head, head_phase

CARD = "teacher.json"
"""Beside a fitted teacher's weights: what is known of it."""


@dataclass(frozen=True)
class Teacher:
    """A teacher ready for use, and what is known of it.

    Attributes:
        model: configuration and parameters.
        facts: source, encoder, training_flops (0: not known), head_flops, mlm_loss, mlm_accuracy (None without a
            head), corpus digest.
    """

    model: Model
    facts: dict[str, Any]

    @property
    def training_flops(self) -> int:
        """What training it cost before its head was fitted; 0: not known."""
        return int(self.facts["training_flops"])

    @property
    def head_flops(self) -> int:
        """What fitting its MLM head cost; 0 where it came with one."""
        return int(self.facts["head_flops"])


def encoder_of(config: Config, corpus: Corpus | None = None) -> Model:
    """The teacher as it is given.

    Args:
        config: the recipe.
        corpus: its text; None: it is not prepared yet, and a tokenizer that is trained on it not compared.

    Raises:
        InputError: a directory without usable weights, another architecture than the recipe's, another tokenizer than
            the corpus's.
    """
    if not config.teacher.source:
        raise InputError("teacher.source is empty, expected a Hugging Face BERT directory")
    source = sources.locate(config.teacher.source)
    encoder = models.from_pretrained(source)
    _check_architecture(source, encoder.config, zoo.resolve(config.teacher.architecture))
    if corpus is not None or not trains_tokenizer(config):
        vocabulary.check(tokenizer_of(config, corpus), source, encoder.config.vocab_size)
    return encoder


def check_teacher(config: Config, layout: Layout) -> None:
    """Finds what is wrong with a recipe's teacher before any time goes into a corpus.

    Raises:
        InputError: as `encoder_of`; or its head's batch or budget cannot be.
    """
    encoder, head = encoder_of(config), config.teacher.head
    if head.budget:
        layout.check_batch(head.batch)
        shape = Shape(head.batch, config.data.length, config.data.slots)
        phases = [(1.0, price(head_phase(encoder.config, head), shape))]
        lay_out(Budget.flops(head.budget), phases, shape.positions, setting="teacher.head.budget")


def teacher_of(config: Config, corpus: Corpus, directory: Path, layout: Layout, reporter: Reporter) -> Teacher:
    """The teacher, with an MLM head fitted first where the recipe says so; a fitted one is kept in `directory`.

    Raises:
        InputError: a directory without usable weights, another architecture than the recipe's, another tokenizer than
            the corpus's.
    """
    source = sources.locate(config.teacher.source)
    identity = {"teacher": plain(to_dict(config.teacher)), "corpus": corpus.digest}
    if hosts.all_of((directory / CARD).exists()):
        facts = read_json(directory / CARD)
        if facts["identity"] != identity:
            raise InputError(
                f"{directory}: holds a teacher fitted with other settings or text, expected a new directory"
            )
        return Teacher(models.from_pretrained(directory), facts)
    if (directory / CARD).exists():  # another process has none: all fit it again
        shutil.rmtree(directory)
    encoder = encoder_of(config, corpus)
    unknown = {"head_flops": 0, "training_flops": 0, "encoder": "as given"}
    known = read_json(source / CARD) if (source / CARD).exists() else {}
    facts = {
        **unknown,
        **known,
        **({"training_flops": int(config.teacher.training_flops)} if config.teacher.training_flops else {}),
        "source": config.teacher.source,
        "note": config.teacher.note,
        "architecture": asdict(encoder.config),
        "identity": identity,
    }
    if not config.teacher.head.budget:
        return Teacher(encoder, {**facts, **_quality(encoder, corpus, config)})
    model, ledger = _fit(config, encoder, corpus, directory.with_name(directory.name + ".fit"), layout, reporter)
    facts |= {
        "encoder": config.teacher.head.encoder,
        "head_flops": facts["head_flops"] + ledger.total,
        "head_steps": ledger.steps,
        "head_tokens": ledger.tokens,
        **_quality(model, corpus, config),
    }
    models.save_pretrained(directory, model, tokenizer=tokenizer_of(config, corpus), card=card(facts, corpus))
    write_json(directory / CARD, facts)
    hosts.all_of(True)  # have saved it
    shutil.rmtree(directory.with_name(directory.name + ".fit"))
    return Teacher(model, facts)


def _fit(
    config: Config, encoder: Model, corpus: Corpus, directory: Path, layout: Layout, reporter: Reporter
) -> tuple[Model, Ledger]:
    head = config.teacher.head
    held_out = held_out_batches(config, corpus)
    return fit_head(
        encoder,
        head,
        Shape(head.batch, config.data.length, config.data.slots),
        train_batches(config, corpus, head.batch, seed=0),
        directory=directory,
        layout=layout,
        evaluate=lambda params: {"mlm_loss": held_out_loss(encoder.config, params, held_out).loss},
        watch=reporter.watch("teacher head"),
    )


def _quality(teacher: Model, corpus: Corpus, config: Config) -> dict[str, float | None]:
    """How well a teacher predicts masked tokens of held-out text; None without an MLM head."""
    if "mlm" not in teacher.params:
        return {"mlm_loss": None, "mlm_accuracy": None}
    result = held_out_loss(teacher.config, teacher.params, held_out_batches(config, corpus))
    return {"mlm_loss": result.loss, "mlm_accuracy": result.accuracy}


def card(facts: dict[str, Any], corpus: Corpus) -> str:
    """The model card of a fitted teacher: where it comes from, what it cost, how well it predicts."""
    encoder = {
        "frozen": "The encoder is unchanged; only the head was trained.",
        "tuned": "Encoder and head were trained together.",
    }[facts["encoder"]]
    losses = reference_losses(corpus)
    counted = (
        f"unigram {losses.unigram:.4f}, left neighbour {losses.left_neighbor:.4f}, "
        f"both neighbours {losses.both_neighbors:.4f}"
    )
    return f"""# Teacher: {facts["source"]} with an MLM head

{encoder}

| | |
|---|---|
| encoder | {facts["source"]} |
| spent on training it before | {f"{facts['training_flops']:.4g} FLOPs" if facts["training_flops"] else "not known"} |
| spent on the head | {facts["head_flops"]:.4g} FLOPs, {facts["head_steps"]:,} steps, {facts["head_tokens"]:,} tokens |
| held-out MLM loss | {facts["mlm_loss"]:.4f} nats |
| held-out MLM accuracy | {facts["mlm_accuracy"]:.4f} |
| the text by counts, nats a token | {counted} |
| fitted on | the training split of corpus {corpus.digest[:16]} |

The head's FLOPs are XLA's count of the steps that fitted it.
"""


def _check_architecture(source: Path, found: ModelConfig, expected: ModelConfig) -> None:
    # What says nothing of a trained model: its dropout, its start, and the base of a rotation that it does not have.
    ignored = {"dropout", "attention_dropout", "init", "init_std"}
    if found.positions == expected.positions == "learned":
        ignored.add("rotary_base")
    for field in fields(ModelConfig):
        if field.name in ignored:
            continue
        here, there = getattr(found, field.name), getattr(expected, field.name)
        if here != there:
            raise InputError(f"{source}: the model's {field.name} is {here}, expected teacher.architecture's {there}")


def prepare_teacher(config: Config, out: Path) -> Teacher:
    """The `teacher` command: a teacher with a fitted MLM head in `out`, for `teacher.source` of any recipe.

    Raises:
        InputError: as `teacher_of`; or the recipe fits no head.
    """
    if not config.teacher.head.budget:
        raise InputError("teacher.head.budget is 0, expected the FLOPs to spend on the head")
    data, layout = out.with_name(f"{out.name}.data"), Layout.of(config.train.mesh)
    with Reporter() as reporter, undone_by_bad_input(out, data, out.with_name(f"{out.name}.fit")):
        models.check_saveable(out)
        check_teacher(config, layout)
        teacher = teacher_of(config, corpus_of(config, data, reporter), out, layout, reporter)
        facts = teacher.facts
        reporter.say(
            f"{out}: held-out MLM loss {facts['mlm_loss']:.3f}, accuracy {facts['mlm_accuracy']:.1%}, "
            f"for {facts['head_flops']:.4g} FLOPs"
        )
        return teacher
