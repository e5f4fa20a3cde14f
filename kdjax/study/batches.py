"""The batches that training and evaluation take from a study's text."""

from __future__ import annotations

import numpy as np

from kdjax.config import Config
from kdjax.data.corpus import Corpus, HostBatch
from kdjax.data.loader import Batches, fixed_batches, masked_batches
from kdjax.data.mask_rate import MaskRate
from kdjax.data.masking import MaskSettings
from kdjax.errors import InputError
from kdjax.evaluation.mlm import HeldOut
from kdjax.evaluation.shuffle import shuffle_visible
from kdjax.training.starts.importance import BATCH_SIZE
from kdjax.training.teacher_cache.store import Cache

HELD_OUT_SEED = 20240419
"""Seed of the masks held-out sequences have in every study, and of the shuffled control."""
PROBE_SEED = 0x6B646A61785F7072
"""Seed of the order and masks in which an MLM probe reads the training text: no likely seed of a
run."""


CALIBRATION_SEED = 0x6B646A61785F6361
"""Seed of the masks in which a teacher that is pruned reads the training text: no likely seed of a
run."""


def train_batches(
    config: Config,
    corpus: Corpus,
    batch_size: int,
    seed: int,
    cache: Cache | None = None,
    mask_rate: MaskRate | None = None,
) -> Batches:
    """Open the training batches of a seed: the same order and masks for every arm.

    Args:
        config: resolved recipe, with `data`'s masking settings.
        corpus: prepared text of the study.
        batch_size: sequences of a batch.
        seed: random seed of order and masks.
        cache: stored teacher outputs, which then come with the batches.
        mask_rate: masking rate of a run in which it changes over the budget; None: the recipe's
            `mlm_probability` throughout.
    """
    return Batches(
        corpus,
        "train",
        batch_size=batch_size,
        seed=seed,
        mask_settings=MaskSettings.from_config(config.data),
        mask_copies=config.data.mask_copies,
        mask_rate=mask_rate,
        cache=cache,
    )


def check_train_batches(config: Config, corpus: Corpus, batch_size: int) -> None:
    """Check that training batches of a size can be made of the text, before anything is trained.

    Args:
        config: resolved recipe, with `data`'s masking settings.
        corpus: prepared text of the study.
        batch_size: sequences of a batch.

    Raises:
        InputError: the text has fewer sequences than a batch, or cannot be masked as the recipe
            says.
    """
    train_batches(config, corpus, batch_size, seed=0)


def probe_batches(config: Config, corpus: Corpus) -> Batches:
    """Open the training text as an MLM probe reads it: the same order and masks for every model.

    The seed is a constant, not the student's, so that what a probe owes to its text is the same for
    all and leaves their differences alone; a teacher has no seed anyway. Masks are new in every
    epoch, whatever `data.mask_copies` says: they belong to the measurement.

    Raises:
        InputError: fewer training sequences than a batch has.
    """
    try:
        return Batches(
            corpus,
            "train",
            batch_size=config.evaluation.mlm_probe.batch_size,
            seed=PROBE_SEED,
            mask_settings=MaskSettings.from_config(config.data),
        )
    except InputError as e:
        raise InputError(f"evaluation.mlm_probe.batch_size: {e}") from None


def calibration_batches(config: Config, corpus: Corpus, sequences: int) -> list[HostBatch]:
    """Read the first training sequences with fixed masks, for what a pruned student keeps.

    The masks are the same for every seed, and of the recipe's `mlm_probability`.

    Args:
        config: resolved recipe.
        corpus: the text.
        sequences: number of sequences.

    Raises:
        InputError: there are fewer training sequences.
    """
    check_calibration(corpus, sequences)
    return masked_batches(
        corpus,
        "train",
        np.arange(sequences),
        batch_size=BATCH_SIZE,
        seed=CALIBRATION_SEED,
        mask_settings=MaskSettings.from_config(config.data),
    )


def check_calibration(corpus: Corpus, sequences: int) -> None:
    """Check that a corpus has the training sequences of a calibration.

    Raises:
        InputError: there are fewer.
    """
    available = corpus.sequences("train")
    if sequences > available:
        raise InputError(
            f"start.calibration_sequences is {sequences:,}, expected at most the {available:,} "
            f"training sequences of {corpus.directory}"
        )


def make_held_out(config: Config, corpus: Corpus) -> HeldOut:
    """Make the held-out masks that every model is measured on, with their shuffled control.

    Args:
        config: resolved recipe, with masking and `evaluation` settings.
        corpus: the study's text, or one of `evaluation.texts`.
    """
    batches = held_out_batches(config, corpus)
    shuffled = shuffle_visible(batches, corpus.manifest.special_ids, HELD_OUT_SEED)
    return HeldOut(batches, shuffled=HeldOut(shuffled))


def held_out_batches(
    config: Config, corpus: Corpus, excluding: int = 0
) -> list[dict[str, np.ndarray]]:
    """Read the held-out sequences with fixed masks: the same in every run.

    Args:
        config: resolved recipe, with masking and `evaluation` settings.
        corpus: prepared text whose validation split is read.
        excluding: limit of another call, whose sequences are left out; 0: none are.
    """
    return fixed_batches(
        corpus,
        "validation",
        batch_size=config.train.batch_size,
        limit=config.evaluation.mlm_sequences,
        seed=HELD_OUT_SEED,
        mask_settings=MaskSettings.from_config(config.data),
        excluding=excluding,
    )


def tuning_batches(config: Config, corpus: Corpus) -> list[dict[str, np.ndarray]]:
    """Read held-out sequences for tuning, none of which evaluations use.

    They are as many as `evaluation.mlm_sequences`, or all that evaluations leave.

    Raises:
        InputError: evaluations use every held-out sequence.
    """
    batches = held_out_batches(config, corpus, excluding=config.evaluation.mlm_sequences)
    if not batches:
        raise InputError(
            f"{corpus.directory}: evaluation takes all {corpus.sequences('validation'):,} held-out "
            "sequences, expected some left to tune on: a lower evaluation.mlm_sequences, a larger "
            "data.validation, or a probe as tune.endpoint"
        )
    return batches
