"""A study of one run of eight steps, on machines that have nothing but its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kdjax.training.checkpoints.storage import CheckpointStorage
from tests.study.conftest import Ended, kdjax

RUN = Path("runs") / "scratch-seed0"
OFTEN = ("--train.checkpoint.seconds", "0")
"""A checkpoint after every step; without, one is due when a run that is so short has long ended."""


@dataclass(frozen=True)
class Machine:
    """A machine where the recipe is there and --out is empty."""

    recipe: Path
    out: Path

    def compare(self, backup: str = "", *words: str) -> Ended:
        return kdjax(
            "compare",
            self.recipe,
            "--out",
            self.out,
            "--train.checkpoint.directory",
            backup,
            *words,
        )

    def result(self) -> dict[str, Any]:
        row: dict[str, Any] = json.loads((self.out / RUN / "result.json").read_text())
        return row


def ended_after(machine: Machine, saves: int, backup: str) -> None:
    """End the process once so many checkpoints were begun."""
    saves_left = iter(range(saves))
    save = CheckpointStorage.save

    def counted(self: CheckpointStorage, *arguments: Any) -> None:
        if next(saves_left, None) is None:
            raise KeyboardInterrupt
        save(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointStorage, "save", counted)
        assert machine.compare(backup, *OFTEN).status == 130


def check_same(row: dict[str, Any], straight: Mapping[str, Any]) -> None:
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
        assert row[name] == straight[name], name
