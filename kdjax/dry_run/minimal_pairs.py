"""What minimal pairs cost, before anything is spent."""

from __future__ import annotations

from pathlib import Path

from kdjax.config import Config
from kdjax.data import minimal_pairs
from kdjax.data.minimal_pairs import PairSet
from kdjax.evaluation.minimal_pairs import pairs_flops
from kdjax.storage.paths import local_path
from kdjax.tokenizers.tokenizer_files import locate_tokenizer
from kdjax.training.arm import Arm


def known_pairs(config: Config) -> tuple[PairSet, ...] | None:
    """Read the minimal pairs of a recipe.

    Returns:
        The sets, none where the recipe has none; None where the tokenizer that splits them is not
        there yet, or lies beside a teacher's weights.
    """
    settings = config.evaluation.minimal_pairs
    if not settings.directory:
        return ()
    tokenizer = known_tokenizer(config)
    if tokenizer is None:
        return None
    return minimal_pairs.load(settings, tokenizer, config.data.seq_len)


def pairs_cost(config: Config, arm: Arm, pairs: tuple[PairSet, ...]) -> int:
    """Count the FLOPs of scoring a student of an arm on minimal pairs.

    Nothing, where the arm trains no MLM head.

    Args:
        config: resolved recipe.
        arm: the arm.
        pairs: the sets, with their pairs.
    """
    if not arm.trains_mlm_head:
        return 0
    settings = config.evaluation.minimal_pairs
    total = 0
    for of_set in pairs:
        total += pairs_flops(arm.student_config, of_set, settings.scoring, settings.batch_tokens)
    return total


def known_tokenizer(config: Config) -> Path | None:
    """Return the tokenizer's file, if it is known before anything is made."""
    if isinstance(config.data.tokenizer, str) and config.data.tokenizer:
        return locate_tokenizer(config.data.tokenizer)
    # A prepared text has the tokenizer that was trained on it.
    if config.data.prepared:
        path = local_path(config.data.prepared, "data.prepared") / "tokenizer.json"
        if not path.is_file():
            return None
        return path
    return None
