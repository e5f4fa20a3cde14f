"""A study's text: the prepared corpus, and the batches that training and evaluation take from
it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from kdjax.config import Config, TokenizerConfig
from kdjax.data.corpus import Corpus, regime_of
from kdjax.data.loader import Batches, fixed_batches
from kdjax.data.manifest import Manifest
from kdjax.data.prepare import local as prepare
from kdjax.data.prepare.preparation import TOKENIZER
from kdjax.data.prepare.reference_losses import reference_losses
from kdjax.data.text import sources
from kdjax.data.text.streams import optional, sha256
from kdjax.errors import InputError
from kdjax.evaluation.mlm import HeldOut
from kdjax.evaluation.shuffle import shuffle_visible
from kdjax.models import zoo
from kdjax.progress import Reporter
from kdjax.teacher_cache.store import Cache
from kdjax.training.teacher_directories import source_directories

HELD_OUT_SEED = 20240419
"""Seed of the masks held-out sequences have in every study, and of the shuffled control."""
PROBE_SEED = 0x6B646A61785F7072
"""Seed of the order and masks in which an MLM probe reads the training text: no likely seed of a
run."""


def trains_tokenizer(config: Config) -> bool:
    """Return whether the recipe trains a tokenizer on its own text."""
    return isinstance(config.data.tokenizer, TokenizerConfig)


def tokenizer_of(config: Config, corpus: Corpus | None = None) -> Path:
    """The recipe's tokenizer file: its own, or the one beside the teacher's weights.

    Args:
        config: the recipe.
        corpus: its text, which holds the tokenizer that was trained on it; None where the recipe
            trains none.

    Raises:
        InputError: there is none.
    """
    if isinstance(config.data.tokenizer, TokenizerConfig):
        if corpus is None:
            raise ValueError("the tokenizer is trained on the corpus, expected the prepared corpus")
        path = corpus.directory / TOKENIZER
        if not path.is_file():
            raise InputError(
                f"{path}: no such file, expected the tokenizer that was trained on this text"
            )
        return path
    if config.data.tokenizer:
        return sources.locate(config.data.tokenizer)
    if not config.teacher.source:
        raise InputError(
            "data.tokenizer is empty and there is no teacher.source, expected the path of a "
            "tokenizer.json"
        )
    beside = source_directories(config)[0].path / "tokenizer.json"
    if not beside.is_file():
        raise InputError(f"{beside}: no such file; name a tokenizer.json with data.tokenizer")
    return beside


def corpus_of(
    config: Config, directory: Path, reporter: Reporter, beam: Sequence[str] | None = None
) -> Corpus:
    """The prepared corpus: the one the recipe names, or one prepared in `directory`.

    Args:
        config: the recipe.
        directory: of a corpus to be prepared.
        reporter: shows how the preparation goes on.
        beam: options of Apache Beam, where it shall prepare.

    Raises:
        InputError: unusable text, a tokenizer that does not fit the student, or a damaged
            directory.
    """
    given = None if trains_tokenizer(config) else tokenizer_of(config)
    if config.data.prepared:
        corpus = Corpus.open(Path(config.data.prepared))
    elif beam is not None:
        optional("apache_beam", "beam", "--beam")
        from kdjax.data.prepare import beam as pipeline  # noqa: PLC0415 - an extra

        pipeline.prepare(config.data, given, directory, beam)
        corpus = Corpus.open(directory)
    else:

        def told(documents: int, tokens: int, seconds: float) -> None:
            reporter.status(
                f"prepare: {documents:,} documents, {tokens:,} tokens, {tokens / seconds:,.0f} "
                "tokens/s"
            )

        prepare.prepare(config.data, given, directory, told)
        corpus = Corpus.open(directory)
    manifest = corpus.manifest
    if manifest.length != config.data.seq_len:
        raise InputError(
            f"{corpus.directory}: sequences of {manifest.length} tokens, expected data.seq_len, "
            f"{config.data.seq_len}"
        )
    _check_training(config, corpus)
    tokenizer = tokenizer_of(config, corpus)
    if manifest.tokenizer_sha256 != sha256(tokenizer):
        raise InputError(
            f"{corpus.directory}: was prepared with another tokenizer, expected {tokenizer}"
        )
    student = zoo.resolve(config.student)
    if manifest.vocab_size > student.vocab_size:
        raise InputError(
            f"{tokenizer}: has {manifest.vocab_size} entries, expected at most "
            f"student.vocab_size, {student.vocab_size}"
        )
    seen = regime_of(config.data, corpus)
    reporter.status("prepare: the text's own cross-entropies")
    reference_losses(seen)
    return seen


def _check_training(config: Config, corpus: Corpus) -> None:
    """Check that a tokenizer that the recipe trains is the one that a prepared corpus was made
    with.

    Raises:
        InputError: it was made with one that was given, or that was trained in another way.
    """
    if isinstance(config.data.tokenizer, TokenizerConfig):
        expected = asdict(config.data.tokenizer)
        found = corpus.manifest.settings.get("tokenizer")
        if found != expected:
            before = f"a tokenizer trained by {found}" if found else "a tokenizer that was given"
            raise InputError(
                f"{corpus.directory}: was prepared with {before}, expected data.tokenizer "
                f"{expected}"
            )


def check_regime(config: Config, corpus: Corpus, whose: str, sequences: int) -> None:
    """Whether a run that reads so many sequences is what the regime says.

    Args:
        config: the recipe.
        corpus: the text.
        whose: the setting that the run comes from, for messages, such as `arms.minilm`.
        sequences: how many the run reads.

    Raises:
        InputError: text would repeat where it is to be unlimited.
    """
    if config.data.regime == "unlimited" and (missing := corpus.missing_tokens(sequences)):
        raise InputError(
            f"{whose}: its budget reads {sequences:,} sequences, {corpus.directory} has "
            f"{corpus.sequences('train'):,}, expected no repeats under data.regime 'unlimited': "
            f"about {missing:,} "
            "tokens are missing; add text, lower the budget or set another regime"
        )


def train_batches(
    config: Config, corpus: Corpus, batch: int, seed: int, cache: Cache | None = None
) -> Batches:
    """The training batches of a seed: the same order and masks for every arm, stored teacher
    outputs or not."""
    return Batches(
        corpus,
        "train",
        batch_size=batch,
        seed=seed,
        mlm_probability=config.data.mlm_probability,
        max_predictions=config.data.max_predictions,
        mask_copies=config.data.mask_copies,
        cache=cache,
    )


def probe_batches(config: Config, corpus: Corpus) -> Batches:
    """Open the training text as an MLM probe reads it: the same order and masks for every model.

    The seed is a constant, not the student's, so that what a probe owes to its text is the same for
    all and leaves their differences alone; a teacher has no seed anyway. Masks are new in every
    epoch, whatever `data.mask_copies` says: they belong to the yardstick.

    Raises:
        InputError: fewer training sequences than a batch has.
    """
    try:
        return Batches(
            corpus,
            "train",
            batch_size=config.evaluation.mlm_probe.batch_size,
            seed=PROBE_SEED,
            mlm_probability=config.data.mlm_probability,
            max_predictions=config.data.max_predictions,
        )
    except InputError as e:
        raise InputError(f"evaluation.mlm_probe.batch_size: {e}") from None


def text_of(config: Config, corpus: Corpus, name: str, directory: Path) -> Corpus:
    """Prepare a text of `evaluation.texts`, all of it held out, or find it prepared.

    Args:
        config: the recipe.
        corpus: the study's text, which holds the tokenizer where it was trained on it.
        name: of the text.
        directory: of the prepared text.

    Raises:
        InputError: unusable text, or a damaged directory.
    """
    tokenizer = tokenizer_of(config, corpus)
    data = replace(config.data, files=config.evaluation.texts[name], tokenizer=str(tokenizer))
    try:
        prepare.prepare(data, tokenizer, directory, held_out=True)
        return Corpus.open(directory)
    except InputError as e:
        raise InputError(f"evaluation.texts.{name}: {e}") from None


def held_out(config: Config, corpus: Corpus) -> HeldOut:
    """Make the held-out masks that every model is measured on, with their shuffled control.

    Args:
        config: the recipe.
        corpus: the study's text, or one of `evaluation.texts`.
    """
    batches = held_out_batches(config, corpus)
    shuffled = shuffle_visible(batches, corpus.manifest.special_ids, HELD_OUT_SEED)
    return HeldOut(batches, shuffled=HeldOut(shuffled))


def held_out_batches(config: Config, corpus: Corpus) -> list[dict[str, np.ndarray]]:
    """The held-out sequences with fixed masks: the same in every run."""
    return _fixed(config, corpus)


def tuning_batches(config: Config, corpus: Corpus) -> list[dict[str, np.ndarray]]:
    """As many held-out sequences again, or what is left of them: none that `held_out_batches` has.

    Raises:
        InputError: none are left.
    """
    batches = _fixed(config, corpus, besides=config.evaluation.mlm_sequences)
    if not batches:
        raise InputError(
            f"{corpus.directory}: evaluation takes all {corpus.sequences('validation'):,} "
            "held-out sequences, expected "
            "some left to tune on: a lower evaluation.mlm_sequences, a larger data.validation, or "
            "a probe as "
            "tune.endpoint"
        )
    return batches


def _fixed(config: Config, corpus: Corpus, besides: int = 0) -> list[dict[str, np.ndarray]]:
    return fixed_batches(
        corpus,
        "validation",
        batch_size=config.train.batch_size,
        limit=config.evaluation.mlm_sequences,
        seed=HELD_OUT_SEED,
        mlm_probability=config.data.mlm_probability,
        max_predictions=config.data.max_predictions,
        besides=besides,
    )


def prepare_corpus(config: Config, out: Path, beam: Sequence[str] | None = None) -> Manifest:
    """The `prepare` command: a corpus in `out`, for `data.prepared` of any recipe; given options of
    Beam, by Beam."""
    with Reporter() as reporter:
        corpus = corpus_of(config, out, reporter, beam)
        manifest = corpus.manifest
        reporter.log(
            f"{out}: {manifest.sequences['train']:,} training and "
            f"{manifest.sequences['validation']:,} held-out "
            f"sequences of {manifest.length} tokens, {sum(manifest.text_tokens.values()):,} "
            "tokens of "
            f"{sum(manifest.documents.values()):,} documents, {manifest.fill['train']:.1%} full"
        )
        losses = reference_losses(corpus)
        reporter.log(
            f"{out}: nats a token by counts: {losses.in_words(3)}; "
            f"{losses.unknown['train']:.3%} of the tokens are [UNK]"
        )
        return manifest
