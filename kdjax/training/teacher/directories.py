"""Where teachers lie: one Hugging Face directory, or the seeds and checkpoints of teachers that
were trained here.

`DIR/seedJ/at-SHARE/` holds the teacher of seed J as it was after that share of its training budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax import models
from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.models import Model
from kdjax.storage import hub
from kdjax.storage.files import read_json
from kdjax.storage.typed_json import check_fields
from kdjax.text import sources
from kdjax.training.checksum import sha256

CARD = "teacher.json"
"""Beside a teacher's weights: what is known of it. Written last, so a directory that has it is
whole.
"""


_FACTS: dict[str, Any] = {
    "source": str,
    "encoder": str,
    "training_flops": float,
    "tuning_flops": float,
    "head_flops": float,
    "mlm_loss": float | None,
    "mlm_accuracy": float | None,
    "note": str | None,
    "architecture": dict[str, Any],
    "params_sha256": str,
    "identity": dict[str, Any],
}
"""Facts of a card that are read again, and their types."""
_PRETRAINING: dict[str, Any] = {"seed": int, "at": float, "budget": int, "tokens": int}
"""Facts that the card of a teacher which kdjax trained has under `pretraining`."""


@dataclass(frozen=True)
class TeacherDirectory:
    """A teacher that is read.

    Attributes:
        path: Hugging Face directory of the teacher.
        seed: seed of its training, where there may be several; None: `path` is `teacher.source`
            itself.
    """

    path: Path
    seed: int | None = None


def seed_directory(directory: Path, seed: int) -> Path:
    """Return the directory of one seed's training."""
    return directory / f"seed{seed}"


def checkpoint_name(share: float) -> str:
    """Return the folder's name of a teacher saved at a share of its training budget."""
    if share < 1:
        return f"at-{share!r}"
    return "at-1"


def read_teacher(directory: Path) -> Model:
    """Read a teacher, and check its weights against the hash in the card beside them.

    Args:
        directory: a Hugging Face directory, with or without a card.

    Raises:
        InputError: there are no usable weights, or others than those that the card was written for.
    """
    model = models.from_pretrained(directory)
    expected = read_card(directory).get("params_sha256")
    if expected is None:
        return model
    actual = sha256(model.params)
    if actual != expected:
        raise InputError(
            f"{directory}: the SHA-256 of the weights is {actual[:16]}, expected "
            f"{str(expected)[:16]}, that of {CARD}; they are not those that the card speaks of"
        )
    return model


def read_card(directory: Path) -> dict[str, Any]:
    """Read the card of a teacher; nothing where it has none.

    Raises:
        InputError: the card is not a JSON object, or empty; a fact that is read of it is of
            another kind, or no number of FLOPs where it must be; a card of `kdjax teacher` has no
            hash of the weights.
    """
    path = directory / CARD
    if not path.is_file():
        return {}
    facts = read_json(path)
    if not isinstance(facts, dict) or not facts:
        content = "an empty one" if facts == {} else type(facts).__name__
        raise InputError(f"{path}: expected a JSON object, found {content}")
    for name in ("training_flops", "tuning_flops", "head_flops"):
        flops = facts.get(name, 0)
        is_number = isinstance(flops, int | float) and not isinstance(flops, bool)
        if not is_number or not 0 <= flops < math.inf:
            raise InputError(f"{path}: {name} is {flops!r}, expected a number of FLOPs, at least 0")
    if not isinstance(facts.get("pretraining", {}), dict):
        raise InputError(f"{path}: pretraining is {facts['pretraining']!r}, expected a JSON object")
    # Others may write cards, too: what a card leaves out is not known.
    kinds = {name: kind for name, kind in _FACTS.items() if name in facts}
    check_fields(facts, kinds, f"{path}:")
    if facts.get("pretraining"):
        check_fields(facts["pretraining"], _PRETRAINING, f"{path}: pretraining")
    if "identity" in facts and "params_sha256" not in facts:
        raise InputError(f"{path}: params_sha256 is missing, expected the hash of the weights")
    return facts


def read_own_card(directory: Path) -> dict[str, Any]:
    """Read the card of a teacher that kdjax has fitted or trained, which has every fact.

    Raises:
        InputError: the card is not a JSON object, or a fact is missing or of another kind.
    """
    return check_fields(read_card(directory), _FACTS, f"{directory / CARD}:")


def source_directories(config: Config) -> tuple[TeacherDirectory, ...]:
    """List the directories of `teacher.source`: itself, or one for each seed, ascending.

    Raises:
        InputError: `teacher.source` is empty, or names a package that is not installed or a
            repository of the Hub that cannot be read; a seed has
            no checkpoint at `teacher.at`; or `teacher.at` is set and the source is a single model.
    """
    if not config.teacher.source:
        raise InputError("teacher.source is empty, expected a Hugging Face BERT directory")
    source = sources.locate(config.teacher.source)
    at = config.teacher.at
    # A directory of seeds holds no model of its own.
    seeds = _seeds_in(source)
    is_model = (source / "config.json").exists()
    if is_model or not seeds:
        if at != 1:
            raise InputError(
                f"teacher.at is {at}, expected 1: {source} is a single model, not the seeds and "
                "checkpoints of `kdjax teacher`"
            )
        return (TeacherDirectory(source),)
    if config.teacher.head.budget:
        raise InputError(
            f"teacher.head.budget is {config.teacher.head.budget:g}, expected 0: the teachers in "
            f"{source} were trained with their MLM heads"
        )
    return tuple(TeacherDirectory(_checkpoint(seeds[seed], at), seed) for seed in sorted(seeds))


def teacher_seeds(config: Config) -> Sequence[int | None]:
    """List the seeds of a recipe's teachers, ascending; [None] for a single one that is read.

    It is [None] too where the source is not on this machine: prices need no weights. A repository
    of the Hub holds a single teacher; nothing is asked of it.
    """
    if config.teacher.train.budget:
        return sorted(config.teacher.train.seeds)
    if hub.is_repository(config.teacher.source):
        return [None]
    try:
        return [teacher.seed for teacher in source_directories(config)]
    except InputError:
        return [None]


def _seeds_in(source: Path) -> dict[int, Path]:
    """Return the folders `seedJ` of a directory by J."""
    numbered = {path.name.removeprefix("seed"): path for path in source.glob("seed*/")}
    return {int(number): path for number, path in numbered.items() if number.isdecimal()}


def _checkpoint(directory: Path, share: float) -> Path:
    """Return the folder of a checkpoint of one seed.

    Raises:
        InputError: there is none at this share.
    """
    checkpoint = directory / checkpoint_name(share)
    if not (checkpoint / CARD).is_file():
        cards = directory.glob(f"at-*/{CARD}")
        shares = sorted(card.parent.name.removeprefix("at-") for card in cards)
        listed = ", ".join(shares) or "none"
        raise InputError(
            f"teacher.at is {share:g}, expected a checkpoint of {directory}; it has {listed}"
        )
    return checkpoint
