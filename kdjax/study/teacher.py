"""A study's teacher: read, checked, and fitted with an MLM head where the recipe pays for one."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kdjax import models
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger, schedule_phases
from kdjax.config import Config, ModelConfig, plain, to_dict
from kdjax.data import vocabulary
from kdjax.data.corpus import Corpus
from kdjax.data.prepare.reference_losses import reference_losses
from kdjax.data.text import sources
from kdjax.dry_run.teacher_cost import TeacherCost
from kdjax.errors import InputError
from kdjax.evaluation.mlm import held_out_loss
from kdjax.files import undone_by_bad_input, write_json
from kdjax.models import Model, zoo
from kdjax.parallel import hosts
from kdjax.parallel.layout import Layout
from kdjax.progress import Reporter
from kdjax.study.corpus import (
    corpus_of,
    held_out_batches,
    tokenizer_of,
    train_batches,
    trains_tokenizer,
)
from kdjax.study.trained_teacher import check_trained_teacher, trained_teacher
from kdjax.training.checksum import sha256
from kdjax.training.phase import BatchShape, price
from kdjax.training.teacher_directories import CARD, read_card, read_teacher, source_directories
from kdjax.training.teacher_head import fit_head, head_phase


@dataclass(frozen=True)
class Teacher:
    """A teacher ready for use, and what is known of it.

    Attributes:
        model: configuration and parameters.
        facts: source, encoder, training_flops (0: not known), tuning_flops, head_flops, mlm_loss,
            mlm_accuracy (None without a head), architecture, params_sha256; of one that kdjax
            trained also pretraining (seed, at, budget, steps, tokens and more).
    """

    model: Model
    facts: dict[str, Any]

    @property
    def seed(self) -> int | None:
        """The seed of its training; None where kdjax did not train it."""
        seed: int | None = self.facts.get("pretraining", {}).get("seed")
        return seed

    @property
    def cost(self) -> TeacherCost:
        """What it cost before the study's runs."""
        return TeacherCost.of_facts(self.facts)


def _read(config: Config, directory: Path, corpus: Corpus | None = None) -> Model:
    """Read a teacher's directory and hold it against the recipe.

    Args:
        config: the recipe.
        directory: of the teacher.
        corpus: its text; None: it is not prepared yet, and a tokenizer that is trained on it not
            compared.

    Raises:
        InputError: a directory without usable weights, another architecture than the recipe's,
            another tokenizer than the corpus's.
    """
    encoder = read_teacher(directory)
    _check_architecture(directory, encoder.config, zoo.resolve(config.teacher.architecture))
    if corpus is not None or not trains_tokenizer(config):
        vocabulary.check(tokenizer_of(config, corpus), directory, encoder.config.vocab_size)
    return encoder


def check_teacher(config: Config, layout: Layout) -> None:
    """Finds what is wrong with a recipe's teacher before any time goes into a corpus.

    Raises:
        InputError: as `_read`; or its head's batch or budget, or those of its training, cannot be.
    """
    if config.teacher.train.budget:
        check_trained_teacher(config, layout)
        return
    head = config.teacher.head
    for directory in source_directories(config):
        encoder = _read(config, directory.path)
    if head.budget:
        layout.check_batch(head.batch_size)
        shape = BatchShape(head.batch_size, config.data.seq_len, config.data.max_predictions)
        phases = [(1.0, price(head_phase(encoder.config, head), shape))]
        schedule_phases(
            Budget.flops(head.budget), phases, shape.tokens_per_step, setting="teacher.head.budget"
        )


def teachers_of(
    config: Config, corpus: Corpus, directory: Path, layout: Layout, reporter: Reporter
) -> tuple[Teacher, ...]:
    """The recipe's teachers in ascending order of their seeds: trained here, or read; one that is
    read may be alone.

    Args:
        config: the recipe.
        corpus: the study's text.
        directory: where teachers that are made here lie.
        layout: of the devices.
        reporter: told what goes on.

    Raises:
        InputError: as `teacher_of` and `kdjax.study.trained_teacher.trained_teacher`; or the cards
            of several teachers say that they cost different amounts.
    """
    if config.teacher.train.budget:
        seeds = sorted(config.teacher.train.seeds)
        _check_seed_directories(directory)
        made = (
            trained_teacher(config, corpus, directory, seed, layout, reporter) for seed in seeds
        )
        return tuple(Teacher(model, facts) for model, facts in made)
    sources_of_teachers = source_directories(config)
    if sources_of_teachers[0].seed is None:
        return (teacher_of(config, corpus, directory, layout, reporter),)
    teachers = tuple(_given(config, corpus, one.path, str(one.path)) for one in sources_of_teachers)
    for directory_of, teacher in zip(sources_of_teachers, teachers, strict=True):
        if teacher.seed != directory_of.seed:
            raise InputError(
                f"{directory_of.path / CARD}: the teacher's seed is {teacher.seed}, expected "
                f"{directory_of.seed}, as "
                "`kdjax teacher` writes it"
            )
    costs = {teacher.cost for teacher in teachers}
    if len(costs) > 1:
        spent = ", ".join(f"{teacher.cost.training:.6g}" for teacher in teachers)
        raise InputError(
            f"{config.teacher.source}: the teachers of its seeds cost {spent} FLOPs, expected the "
            "same for all"
        )
    return teachers


def _check_seed_directories(directory: Path) -> None:
    """Raises InputError where the directory for trained teachers holds a model itself."""
    if (directory / "config.json").exists():
        raise InputError(
            f"{directory}: holds a single model, expected a new directory for the seeds of "
            "teacher.train"
        )


def _given(config: Config, corpus: Corpus, directory: Path, source: str) -> Teacher:
    """A teacher as it lies in a directory, with what its card says.

    Args:
        config: the recipe.
        corpus: the study's text.
        directory: of the teacher.
        source: what the facts call it.
    """
    encoder = _read(config, directory, corpus)
    unknown = {"head_flops": 0, "tuning_flops": 0, "training_flops": 0, "encoder": "as given"}
    card_facts = read_card(directory)
    cost = TeacherCost.of_facts(card_facts)
    facts = {
        **unknown,
        **card_facts,
        "training_flops": int(config.teacher.training_flops) or cost.training,
        "tuning_flops": cost.tuning,
        "head_flops": cost.head,
        "source": source,
        "params_sha256": sha256(encoder.params),
        "note": config.teacher.note,
        "architecture": asdict(encoder.config),
        "identity": _identity(config, corpus),
    }
    return Teacher(encoder, {**facts, **_quality(encoder, corpus, config)})


def _identity(config: Config, corpus: Corpus) -> dict[str, Any]:
    """All that a teacher which is read, and perhaps fitted with a head, depends on."""
    teacher = plain(to_dict(config.teacher))
    for name in ("train", "at"):
        del teacher[name]
    return {"teacher": teacher, "corpus": corpus.digest}


def teacher_of(
    config: Config, corpus: Corpus, directory: Path, layout: Layout, reporter: Reporter
) -> Teacher:
    """The teacher that is read, with an MLM head fitted first where the recipe says so; a fitted
    one is kept in `directory`.

    Raises:
        InputError: a directory without usable weights, another architecture than the recipe's,
            another tokenizer than the corpus's.
    """
    identity = _identity(config, corpus)
    if hosts.all_processes((directory / CARD).exists()):
        facts = read_card(directory)
        if facts.get("identity") != identity:
            raise InputError(
                f"{directory}: holds a teacher fitted with other settings or text, expected a new "
                "directory"
            )
        return Teacher(read_teacher(directory), facts)
    if (directory / CARD).exists():  # another process has none: all fit it again
        shutil.rmtree(directory)
    given = _given(config, corpus, sources.locate(config.teacher.source), config.teacher.source)
    if not config.teacher.head.budget:
        return given
    encoder = given.model
    facts = given.facts
    model, ledger = _fit(
        config, encoder, corpus, directory.with_name(directory.name + ".fit"), layout, reporter
    )
    # An encoder that is trained on is every arm's; a head on a frozen one is of use to arms with
    # logits alone.
    account = {"tuned": "tuning_flops", "frozen": "head_flops"}[config.teacher.head.encoder]
    facts |= {
        "encoder": config.teacher.head.encoder,
        account: facts[account] + ledger.total,
        "head_steps": ledger.steps,
        "head_tokens": ledger.tokens,
        **_quality(model, corpus, config),
        "params_sha256": sha256(model.params),
    }
    models.save_pretrained(
        directory, model, tokenizer=tokenizer_of(config, corpus), card=card(facts, corpus)
    )
    write_json(directory / CARD, facts)
    hosts.all_processes(True)  # have saved it
    shutil.rmtree(directory.with_name(directory.name + ".fit"))
    return Teacher(model, facts)


def _fit(
    config: Config,
    encoder: Model,
    corpus: Corpus,
    directory: Path,
    layout: Layout,
    reporter: Reporter,
) -> tuple[Model, Ledger]:
    head = config.teacher.head
    held_out = held_out_batches(config, corpus)
    return fit_head(
        encoder,
        head,
        BatchShape(head.batch_size, config.data.seq_len, config.data.max_predictions),
        train_batches(config, corpus, head.batch_size, seed=0),
        directory=directory,
        layout=layout,
        evaluate=lambda params: {"mlm_loss": held_out_loss(encoder.config, params, held_out).loss},
        watch=reporter.track("teacher head"),
    )


def _quality(teacher: Model, corpus: Corpus, config: Config) -> dict[str, float | None]:
    """How well a teacher predicts masked tokens of held-out text; None without an MLM head."""
    if "mlm" not in teacher.params:
        return {"mlm_loss": None, "mlm_accuracy": None}
    result = held_out_loss(teacher.config, teacher.params, held_out_batches(config, corpus))
    return {"mlm_loss": result.loss, "mlm_accuracy": result.accuracy}


def card(facts: dict[str, Any], corpus: Corpus) -> str:
    """The model card of a fitted teacher: where it comes from, what it cost, how well it
    predicts."""
    encoder = {
        "frozen": "The encoder is unchanged; only the head was trained.",
        "tuned": "Encoder and head were trained together.",
    }[facts["encoder"]]
    spent = {"tuned": "encoder and head together", "frozen": "the head"}[facts["encoder"]]
    flops = {"tuned": facts["tuning_flops"], "frozen": facts["head_flops"]}[facts["encoder"]]
    return f"""# Teacher: {facts["source"]} with an MLM head

{encoder}

| | |
|---|---|
| encoder | {facts["source"]} |
| spent on training it before | {f"{facts['training_flops']:.4g} FLOPs" if facts["training_flops"] else "not known"} |
| spent on {spent} | {flops:.4g} FLOPs, {facts["head_steps"]:,} steps, {facts["head_tokens"]:,} tokens |
| held-out MLM loss | {facts["mlm_loss"]:.4f} nats |
| held-out MLM accuracy | {facts["mlm_accuracy"]:.4f} |
| the text by counts | {reference_losses(corpus).in_words(4)} nats |
| fitted on | the training split of corpus {corpus.digest[:16]} |

FLOPs are XLA's count of the steps that fitted it.
"""  # noqa: E501


def _check_architecture(source: Path, found: ModelConfig, expected: ModelConfig) -> None:
    # What says nothing of a trained model: its dropout, its start, and the base of a rotation that
    # it does not have.
    ignored = {"dropout", "attention_dropout", "init", "init_std"}
    if found.positions == expected.positions == "learned":
        ignored.add("rotary_base")
    for field in fields(ModelConfig):
        if field.name in ignored:
            continue
        here = getattr(found, field.name)
        there = getattr(expected, field.name)
        if here != there:
            raise InputError(
                f"{source}: the model's {field.name} is {here}, expected teacher.architecture's "
                f"{there}"
            )


def prepare_teacher(config: Config, out: Path) -> tuple[Teacher, ...]:
    """The `teacher` command: teachers in `out`, for `teacher.source` of any recipe.

    Either an encoder with a fitted MLM head, a Hugging Face directory, or one that is trained from
    scratch for each of `teacher.train.seeds`, in `seedJ/at-SHARE/`.

    Raises:
        InputError: as `teachers_of`; or the recipe neither fits a head nor trains a teacher.
    """
    trained = bool(config.teacher.train.budget)
    if not trained and not config.teacher.head.budget:
        raise InputError(
            "teacher.head.budget and teacher.train.budget are 0, expected the FLOPs to spend on "
            "one of them"
        )
    data = out.with_name(f"{out.name}.data")
    layout = Layout.of(config.train.mesh)
    fitting = out.with_name(f"{out.name}.fit")
    undone = undone_by_bad_input(out, data, fitting, unless=f"**/seed*/at-*/{CARD}")
    with Reporter() as reporter, undone:
        if trained:
            _check_only_seeds(out)
        else:
            models.check_saveable(out)
        check_teacher(config, layout)
        teachers = teachers_of(config, corpus_of(config, data, reporter), out, layout, reporter)
        for teacher in teachers:
            facts = teacher.facts
            spent = teacher.cost.training if trained else teacher.cost.tuning + teacher.cost.head
            which = (
                f", seed {facts['pretraining']['seed']}, at {config.teacher.at:g}"
                if trained
                else ""
            )
            reporter.log(
                f"{out}{which}: held-out MLM loss {facts['mlm_loss']:.3f}, accuracy "
                f"{facts['mlm_accuracy']:.1%}, "
                f"for {spent:.4g} FLOPs"
            )
        return teachers


def _check_only_seeds(out: Path) -> None:
    """Raises InputError where a directory for trained teachers holds anything but seeds'
    directories."""
    others = (
        [path.name for path in out.iterdir() if not path.name.startswith("seed")]
        if out.exists()
        else []
    )
    if others:
        raise InputError(
            f"{out}: holds {min(others)}, expected a new directory, or one of trained teachers"
        )
