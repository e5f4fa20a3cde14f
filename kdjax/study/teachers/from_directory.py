"""A teacher that is read from a directory, and fitted with an MLM head where the recipe pays."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kdjax import models
from kdjax.arms.recipe_arms import batch_shape_of
from kdjax.arms.teacher_cost import TeacherCost
from kdjax.config import Config, ModelConfig, plain, to_dict
from kdjax.data.corpus import Corpus
from kdjax.errors import InputError
from kdjax.evaluation.mlm import held_out_loss
from kdjax.models import Model, zoo
from kdjax.parallel import hosts
from kdjax.parallel.layout import Layout
from kdjax.progress import Reporter
from kdjax.storage.files import write_json
from kdjax.study.artifacts.corpus import tokenizer_of, trains_tokenizer
from kdjax.study.batches import held_out_batches, train_batches
from kdjax.study.teachers.cards import fitted_card
from kdjax.text import sources
from kdjax.tokenizers import vocabulary
from kdjax.tokenizers.tokenizer_files import locate_tokenizer
from kdjax.training.checksum import sha256
from kdjax.training.teacher.directories import CARD, read_card, read_own_card, read_teacher
from kdjax.training.teacher.head import fit_head


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
        """Return the seed of its training; None where kdjax did not train it."""
        seed: int | None = self.facts.get("pretraining", {}).get("seed")
        return seed

    @property
    def cost(self) -> TeacherCost:
        """Return the FLOPs that were spent on it before the study's runs."""
        return TeacherCost.from_facts(self.facts)


def read_checked(config: Config, directory: Path, corpus: Corpus | None = None) -> Model:
    """Read a teacher's directory and hold it against the recipe.

    Args:
        config: resolved recipe, with the teacher's architecture and vocabulary.
        directory: directory of the teacher.
        corpus: the study's text; None: it is not prepared yet, and a tokenizer that is trained on
            it not compared.

    Raises:
        InputError: a directory without usable weights, another architecture than the recipe's,
            another tokenizer than the corpus's, or than its own that the recipe names.
    """
    # Weights, architecture and tokenizer, each against what it must match.
    encoder = read_teacher(directory)
    _check_architecture(directory, encoder.config, zoo.resolve(config.teacher.architecture))
    own_tokenizer = config.data.teacher_tokenizer
    if own_tokenizer:
        vocabulary.check(locate_tokenizer(own_tokenizer), directory, encoder.config.vocab_size)
        return encoder
    if corpus is not None or not trains_tokenizer(config):
        try:
            vocabulary.check(tokenizer_of(config, corpus), directory, encoder.config.vocab_size)
        except InputError as e:
            raise InputError(
                f"{e}; a teacher with another vocabulary needs data.teacher_tokenizer"
            ) from None
    return encoder


def check_shape(config: Config, directory: Path) -> None:
    """Hold the architecture that a teacher's config.json says against the recipe.

    Args:
        config: resolved recipe, with the teacher's architecture.
        directory: directory of the teacher.

    Raises:
        InputError: there is no model, or it has another architecture.
    """
    model = models.pretrained_config(directory)
    _check_architecture(directory, model, zoo.resolve(config.teacher.architecture))


def _check_architecture(source: Path, model: ModelConfig, expected: ModelConfig) -> None:
    """Check that a teacher has the recipe's architecture.

    Raises:
        InputError: the teacher has another architecture.
    """
    # These say nothing of a trained model: its dropout, its start, how it was padded, and bases of
    # rotations that it does not have.
    ignored = {"dropout", "embedding_dropout", "attention_dropout", "dropout_sites"}
    ignored |= {"init", "init_std", "init_cut", "init_outputs", "pad_token_id"}
    if model.positions == expected.positions == "learned":
        ignored.add("rotary_base")
    if model.attention_window == expected.attention_window == 0:
        ignored.add("local_rotary_base")
    for field in fields(ModelConfig):
        value = getattr(model, field.name)
        expected_value = getattr(expected, field.name)
        if value != expected_value and field.name not in ignored:
            raise InputError(
                f"{source}: the model's {field.name} is {value}, expected teacher.architecture's "
                f"{expected_value}"
            )


def read_as_is(config: Config, corpus: Corpus, directory: Path, source: str) -> Teacher:
    """Read a teacher as it lies in a directory, with what its card says.

    Args:
        config: resolved recipe, with `teacher` and `evaluation` settings.
        corpus: prepared text that the teacher is measured on.
        directory: directory of the teacher.
        source: name of its source in the facts.

    Raises:
        InputError: a directory without usable weights, another architecture than the recipe's,
            another tokenizer than the corpus's.
    """
    encoder = read_checked(config, directory, corpus)
    card_facts = read_card(directory)
    cost = TeacherCost.from_facts(card_facts)
    # The recipe knows better than the card what training cost; a model without a card cost nothing
    # that is known.
    unknown = {"head_flops": 0, "tuning_flops": 0, "training_flops": 0, "encoder": "as given"}
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
        **_quality(encoder, corpus, config),
    }
    return Teacher(encoder, facts)


def _identity(config: Config, corpus: Corpus) -> dict[str, Any]:
    """Return the settings and the text's digest by which a fitted teacher is recognised."""
    teacher = plain(to_dict(config.teacher))
    for name in ("train", "at"):
        del teacher[name]
    return {"teacher": teacher, "corpus": corpus.digest}


def _quality(teacher: Model, corpus: Corpus, config: Config) -> dict[str, float | None]:
    """Measure how well a teacher predicts masked tokens; None without an MLM head, and of tokens
    that are not the text's."""
    if "mlm" not in teacher.params or config.data.teacher_tokenizer:
        return {"mlm_loss": None, "mlm_accuracy": None}
    result = held_out_loss(teacher.config, teacher.params, held_out_batches(config, corpus))
    return {"mlm_loss": result.loss, "mlm_accuracy": result.accuracy}


def single_teacher(
    config: Config, corpus: Corpus, directory: Path, layout: Layout, reporter: Reporter
) -> Teacher:
    """Read the recipe's only teacher, and fit an MLM head first where the recipe says so.

    Args:
        config: resolved recipe, with `teacher` and `evaluation` settings.
        corpus: prepared text that a head is fitted and the teacher measured on.
        directory: directory of the teacher with its fitted head, where it is found again.
        layout: layout of arrays on the devices.
        reporter: receiver of reports on progress.

    Raises:
        InputError: the teacher has no usable weights, or does not fit the recipe or the corpus; or
            the directory holds a teacher fitted in another way.
    """
    if hosts.all_processes((directory / CARD).exists()):
        facts = read_own_card(directory)
        if facts.get("identity") != _identity(config, corpus):
            raise InputError(
                f"{directory}: holds a teacher fitted with other settings or text, expected a new "
                "directory"
            )
        return Teacher(read_teacher(directory), facts)
    if (directory / CARD).exists():  # another process has none: all fit it again
        shutil.rmtree(directory)
    source = config.teacher.source
    reporter.stage(f"teacher: reading {source}, and evaluating where it has an MLM head")
    encoder = read_as_is(config, corpus, sources.locate(source), source)
    if not config.teacher.head.budget:
        return encoder
    return _fit(config, encoder, corpus, directory, layout, reporter)


def _fit(
    config: Config,
    encoder: Teacher,
    corpus: Corpus,
    directory: Path,
    layout: Layout,
    reporter: Reporter,
) -> Teacher:
    """Fit an MLM head on an encoder, and save both with a card."""
    # The fit can be killed and resumed: its checkpoints lie beside the teacher.
    head = config.teacher.head
    model_config = encoder.model.config
    held_out = held_out_batches(config, corpus)
    fit_dir = directory.with_name(directory.name + ".fit")
    reporter.stage("teacher head: compiling")
    model, ledger = fit_head(
        encoder.model,
        head,
        batch_shape_of(config, head.batch_size),
        train_batches(config, corpus, head.batch_size, seed=0),
        directory=fit_dir,
        layout=layout,
        evaluate=lambda params: {"mlm_loss": held_out_loss(model_config, params, held_out).loss},
        watch=reporter.track("teacher head"),
    )

    reporter.stage("teacher: evaluating with its fitted head")
    # An encoder that is trained on is every arm's; a head on a frozen one is of use to arms with
    # logits alone.
    account = "tuning_flops" if head.encoder == "tuned" else "head_flops"
    facts = {
        **encoder.facts,
        "encoder": head.encoder,
        account: encoder.facts[account] + ledger.charged_flops,
        "head_steps": ledger.steps,
        "head_tokens": ledger.tokens,
        **_quality(model, corpus, config),
        "params_sha256": sha256(model.params),
    }

    # The facts are written last: a directory that has them is whole.
    tokenizer = tokenizer_of(config, corpus)
    models.save_pretrained(model, directory, tokenizer=tokenizer, card=fitted_card(facts, corpus))
    write_json(directory / CARD, facts)
    hosts.all_processes(True)  # have saved it
    shutil.rmtree(fit_dir)
    return Teacher(model, facts)
