"""A study's manifest, `study.json`: the recipe that a directory belongs to, and its arms' costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdjax.budget.price import Price
from kdjax.config import Config, first_difference, plain, to_dict
from kdjax.config.data import LATER_SETTINGS
from kdjax.config.model import drop_later_settings
from kdjax.errors import InputError
from kdjax.storage.files import check_writable, entries, read_json, write_json
from kdjax.storage.typed_json import check_fields, from_plain, to_plain

NAME = "study.json"
"""Written once all that runs need is there; from then on the directory is this recipe's."""
BEFORE = ("data", "texts", "teacher", "teacher.fit", "cache")
"""What a study makes before that."""


@dataclass(frozen=True)
class ArmCost:
    """The cost of a run of an arm, as first counted; later starts hold on to it.

    Attributes:
        prices: prices of a step, phase by phase.
        upfront: FLOPs spent before the first step, by account: the run's share of stored teacher
            outputs and of the teacher's training.
    """

    prices: tuple[Price, ...]
    upfront: dict[str, int] = field(default_factory=dict)


class StudyManifest:
    """The content of `study.json`, written or still to be written.

    Attributes:
        is_new: whether the directory belongs to no study yet.
        costs: arm -> what its runs cost, as stored.
    """

    def __init__(self, config: Config, out: Path, commits: Mapping[str, str]):
        """Read `study.json` if it is there, and check that the directory may hold this study.

        Args:
            config: resolved recipe of the study, with commits for names on the Hub.
            out: directory of the study.
            commits: names on the Hub, as the user wrote them -> the commits they stand for.

        Raises:
            InputError: the directory belongs to another recipe, holds something else, or cannot be
                written.
        """
        self._commits = dict(commits)
        self._path = out / NAME
        self._settings = shared_settings(config)
        self.is_new = not self._path.exists()
        self.costs: dict[str, ArmCost] = {}
        if self.is_new:
            check_writable(out)
            # What was made before study.json may stay: another recipe is refused by its own checks.
            # A kill may leave what was being written under a temporary name.
            names = [e.name for e in entries(out) if not e.name.endswith((".tmp", ".old"))]
            if not set(names) <= set(BEFORE):
                raise InputError(
                    f"{out}: holds files but no study, expected a new or empty directory for --out"
                )
            return
        stored = read_manifest(self._path)
        # A directory that is taken belongs to its recipe, whose costs hold.
        if difference := first_difference(stored["config"], self._settings):
            name, before, now = difference
            raise InputError(
                f"{self._path}: this study's {name} is {before!r}, expected {now!r}; use another "
                "--out"
            )
        where = f"{self._path}: costs"
        self.costs = from_plain(dict[str, ArmCost], stored["costs"], where)

    def write(self, costs: Mapping[str, ArmCost]) -> None:
        """Write the recipe's settings, and the costs beside those stored before.

        Args:
            costs: arm -> what its runs cost; later starts of the study keep these costs.

        Raises:
            InputError: the file cannot be written.
        """
        all_costs = {**self.costs, **costs}
        content: dict[str, Any] = {"config": self._settings, "costs": to_plain(all_costs)}
        if self._commits:
            content["commits"] = self._commits
        write_json(self._path, content)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a `study.json`: its recipe under `config`, and under `costs` what the arms cost.

    Under `commits`, where it is, are the commits of names on the Hub.

    Raises:
        InputError: it is not whole, or a field is missing or mistyped.
    """
    kinds = {"config": dict[str, Any], "costs": dict[str, ArmCost]}
    manifest = check_fields(read_json(path), kinds, f"{path}:")
    if "commits" in manifest:
        check_fields(manifest, {"commits": dict[str, str]}, f"{path}:")
    return manifest


def shared_settings(config: Config) -> dict[str, Any]:
    """Return the settings, as plain values, that all results in a study's directory depend on."""
    settings: dict[str, Any] = plain(to_dict(config))
    for name in ("arms", "seeds"):  # more of them may join
        del settings[name]
    for name in ("sweep", "tune", "plan"):  # what other commands do
        del settings[name]
    # A study of an earlier version does not name them, and has these values.
    for name, value in LATER_SETTINGS.items():
        if settings["data"].get(name) == value:
            del settings["data"][name]
    drop_later_settings(settings["student"])
    drop_later_settings(settings["teacher"]["architecture"])
    # These change no result.
    del settings["data"]["workers"]
    del settings["evaluation"]["contamination"]
    for name in ("mesh", "vmapped_seeds", "checkpoint", "log"):
        del settings["train"][name]
    return settings
