"""Whose a study's directory is: the recipe it was taken for, and the prices its arms had then."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.budget.price import Price
from kdjax.config import Config, plain, to_dict
from kdjax.errors import InputError
from kdjax.files import check_writable, read_json, write_json

NAME = "study.json"
"""Written once all that runs need is there; from then on the directory is this recipe's."""
BEFORE = ("data", "teacher", "teacher.fit")
"""What a study makes before that."""


class Record:
    """What `study.json` says, or would say.

    Attributes:
        new: whether the directory is not taken yet.
        prices: arm -> price of one step as first counted; later starts hold on to it.
    """

    def __init__(self, config: Config, out: Path):
        """Reads it, and checks that the directory can be this recipe's.

        Raises:
            InputError: the directory belongs to another recipe, holds something else, or cannot be written.
        """
        self._path, self._identity = out / NAME, _identity(config)
        self.new = not self._path.exists()
        self.prices: dict[str, Price] = {}
        if self.new:
            check_writable(out)
            found = (entry.name for entry in out.iterdir())
            # A kill may leave what was being written under a temporary name.
            if any(name not in BEFORE and not name.endswith((".tmp", ".old")) for name in found):
                raise InputError(f"{out}: holds files but no study, expected a new or empty directory for --out")
            return
        stored = read_json(self._path)
        if difference := _first_difference(stored["config"], self._identity):
            name, before, now = difference
            raise InputError(f"{self._path}: this study's {name} is {before!r}, expected {now!r}; use another --out")
        self.prices = {name: Price(**cost) for name, cost in stored["prices"].items()}

    def write(self, prices: Mapping[str, Price]) -> None:
        """Takes the directory; the prices hold for good from now on."""
        kept = {name: cost.to_json() for name, cost in {**self.prices, **prices}.items()}
        write_json(self._path, {"config": self._identity, "prices": kept})


def _identity(config: Config) -> dict[str, Any]:
    """The settings that a study's results depend on and that all its runs share."""
    identity: dict[str, Any] = plain(to_dict(config))
    for name in ("arms", "seeds"):  # more of them may join
        del identity[name]
    for section, name in (("data", "workers"), ("train", "checkpoint_seconds"), ("train", "log_every")):
        del identity[section][name]  # change no result
    return identity


def _first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first setting in which two configs differ: its dotted name and both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            found = _first_difference(before.get(key), now.get(key), f"{name}.{key}" if name else key)
            if found:
                return found
        return None
    return None if before == now else (name, before, now)
