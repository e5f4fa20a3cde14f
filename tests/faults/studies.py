"""A study of one run of eight steps, on machines that have nothing but its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kdjax.training.checkpoint_storage import CheckpointStorage
from tests.study.conftest import Ended, kdjax

RUN = Path("runs") / "scratch-seed0"
OFTEN = ("--train.checkpoint.seconds", "0")
"""A checkpoint after every step; without, one is due when a run that is so short has long ended."""


@dataclass(frozen=True)
class Machine:
    """One whose recipe is there and whose --out is empty."""

    recipe: Path
    out: Path

    def compare(self, kept: str = "", *words: str) -> Ended:
        return kdjax(
            "compare", self.recipe, "--out", self.out, "--train.checkpoint.directory", kept, *words
        )

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / RUN / "result.json").read_text())
        return found


def ended_after(machine: Machine, saves: int, kept: str) -> None:
    """The process ends once so many checkpoints were begun."""
    left = iter(range(saves))
    save = CheckpointStorage.save

    def counted(self: CheckpointStorage, *what: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        save(self, *what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointStorage, "save", counted)
        assert machine.compare(kept, *OFTEN).status == 130


def check_same(found: dict[str, Any], straight: Mapping[str, Any]) -> None:
    for name in (
        "params_sha256",
        "spent",
        "steps",
        "phases",
        "tokens_seen",
        "tokens_unique",
        "metrics",
        "curve",
    ):
        assert found[name] == straight[name], name
