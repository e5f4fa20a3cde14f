"""Whose a study's directory is: the recipe it was taken for, and what its arms cost then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdjax.budget.price import Price
from kdjax.config import Config, first_difference, plain, to_dict
from kdjax.errors import InputError
from kdjax.files import check_writable, read_json, write_json

NAME = "study.json"
"""Written once all that runs need is there; from then on the directory is this recipe's."""
BEFORE = ("data", "texts", "teacher", "teacher.fit", "cache")
"""What a study makes before that."""


@dataclass(frozen=True)
class Cost:
    """What a run of an arm costs, as first counted; later starts hold on to it.

    Attributes:
        prices: of a step of each phase.
        upfront: FLOPs spent before the first step, by account: the run's share of stored teacher
            outputs and of the teacher's training.
    """

    prices: tuple[Price, ...]
    upfront: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"prices": [price.to_json() for price in self.prices], "upfront": self.upfront}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Cost:
        """The inverse of `to_json`."""
        return Cost(tuple(Price(**price) for price in values["prices"]), values["upfront"])


class Record:
    """What `study.json` says, or would say.

    Attributes:
        new: whether the directory is not taken yet.
        costs: arm -> what its runs cost.
    """

    def __init__(self, config: Config, out: Path):
        """Reads it, and checks that the directory can be this recipe's.

        Raises:
            InputError: the directory belongs to another recipe, holds something else, or cannot be
                written.
        """
        self._path = out / NAME
        self._identity = shared_settings(config)
        self.new = not self._path.exists()
        self.costs: dict[str, Cost] = {}
        if self.new:
            check_writable(out)
            found = (entry.name for entry in out.iterdir())
            # A kill may leave what was being written under a temporary name.
            if any(name not in BEFORE and not name.endswith((".tmp", ".old")) for name in found):
                raise InputError(
                    f"{out}: holds files but no study, expected a new or empty directory for --out"
                )
            return
        stored = read_json(self._path)
        if difference := first_difference(stored["config"], self._identity):
            name, before, now = difference
            raise InputError(
                f"{self._path}: this study's {name} is {before!r}, expected {now!r}; use another "
                "--out"
            )
        self.costs = {name: Cost.from_json(cost) for name, cost in stored["costs"].items()}

    def write(self, costs: Mapping[str, Cost]) -> None:
        """Takes the directory; the costs hold for good from now on."""
        kept = {name: cost.to_json() for name, cost in {**self.costs, **costs}.items()}
        write_json(self._path, {"config": self._identity, "costs": kept})


def shared_settings(config: Config) -> dict[str, Any]:
    """The settings that the results in a directory depend on and that all of it shares, as plain
    values."""
    settings: dict[str, Any] = plain(to_dict(config))
    for name in ("arms", "seeds"):  # more of them may join
        del settings[name]
    for name in ("sweep", "tune", "plan"):  # what other commands do
        del settings[name]
    for section, names in (
        ("data", ("workers",)),
        ("train", ("mesh", "vmapped_seeds", "checkpoint", "log")),
    ):
        for name in names:
            del settings[section][name]  # change no result
    return settings
