"""One study on several machines: which runs are whose, and their directories put together again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.config import first_difference
from kdjax.errors import InputError
from kdjax.files import check_writable, read_json, write_json
from kdjax.study.manifest import BEFORE, NAME
from kdjax.study.study import Study


@dataclass(frozen=True)
class Part:
    """One of several parts of a study's runs.

    Attributes:
        number: which, 1 to count.
        count: how many there are.
    """

    number: int
    count: int

    @staticmethod
    def parse(text: str) -> Part:
        """Reads `I/N`.

        Raises:
            InputError: anything else, or I is not one of 1 to N.
        """
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(
                f"--part is {text!r}, expected I/N with I from 1 to N, for instance 1/3"
            )
        return Part(int(found[1]), int(found[2]))

    def of(self, study: Study) -> list[tuple[str, int]]:
        """Its runs, as (arm, seed): the I-th of all runs and every N-th after it.

        Runs are listed arm by arm, those that take the most FLOPs first (the recipe's order among
        equals, and under a budget of hours), and seed by seed within an arm. So the runs of an arm
        are spread evenly, and no two parts differ by more than the dearest run.
        """

        def flops(arm: str) -> int:
            return sum(span.steps * span.price.total for span in study.spans[arm])

        arms = sorted(study.config.arms, key=flops, reverse=True)
        runs = [(arm, seed) for arm in arms for seed in study.config.seeds]
        return runs[self.number - 1 :: self.count]


def merge(parts: Sequence[Path], out: Path) -> list[str]:
    """Puts the finished runs of parts of one study into one directory, which `compare` takes up.

    What runs share (corpus, teacher, stored outputs, references) comes from the first part that has
    it.

    Args:
        parts: directories of `train --part`, or of any study of the same recipe.
        out: a new or empty directory, or one of the same study.

    Returns:
        Names of the runs that `out` now holds.

    Raises:
        InputError: a part without a study or of another one, a run that differs between parts, or
            `out` holds something else. Nothing is written then.
    """
    taken = (out / NAME).exists()
    if not taken and out.exists() and any(out.iterdir()):
        raise InputError(
            f"{out}: holds files but no study, expected a new or empty directory for --out"
        )
    sources = [out, *parts] if taken else list(parts)
    record = _record(sources)
    runs = _runs(sources)
    check_writable(out)
    write_json(out / NAME, record)  # first: a directory with runs but without it would be nobody's
    for source in sources:
        for made in (*BEFORE, *_inside(source, "references")):
            _copy(source / made, out / made)
    for name, run in runs.items():
        _copy(run, out / name)
    return [Path(name).name for name in runs]


def merge_command(parts: Sequence[Path], out: Path) -> None:
    """The `merge` command: says how many runs there are now."""
    runs = merge(parts, out)
    print(f"{out}: {len(runs)} finished runs: {', '.join(runs)}")


def _record(sources: Sequence[Path]) -> dict[str, Any]:
    """The `study.json` of all of them.

    Raises:
        InputError: one has none, or they differ.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        path = source / NAME
        if not path.exists():
            raise InputError(
                f"{path}: no such file, expected the directory of a study or of a part of one"
            )
        found = read_json(path)
        merged = merged or found
        common = found["costs"].keys() & merged["costs"].keys()
        for mine, other in (
            (found["config"], merged["config"]),
            *(({arm: found["costs"][arm]}, {arm: merged["costs"][arm]}) for arm in sorted(common)),
        ):
            if difference := first_difference(mine, other):
                name, here, there = difference
                raise InputError(
                    f"{path}: this part's {name} is {here!r}, expected {there!r}, as in "
                    f"{sources[0]}"
                )
        merged = {**merged, "costs": {**merged["costs"], **found["costs"]}}
    return merged


def _runs(sources: Sequence[Path]) -> dict[str, Path]:
    """The finished runs: path within a study -> where it is.

    Raises:
        InputError: they are of different text or teachers, or one run ended differently in two
            places.
    """
    runs: dict[str, Path] = {}
    shared: dict[tuple[str, int | None], tuple[Any, Path]] = {}
    for source in sources:
        for name in _inside(source, "runs"):
            run = source / name
            manifest = read_json(run / "manifest.json")
            for what in ("corpus", "teacher"):
                value = manifest[what]
                if value is None:  # an arm without a teacher
                    continue
                # Of teachers that were trained here, one of each seed.
                trained = value.get("pretraining", {}) if what == "teacher" else {}
                first, where = shared.setdefault((what, trained.get("seed")), (value, run))
                if difference := first_difference(value, first, what):
                    setting, here, there = difference
                    raise InputError(
                        f"{run}: this run's {setting} is {here!r}, expected {there!r}, as in "
                        f"{where}"
                    )
            if name in runs and _ended(run) != _ended(runs[name]):
                raise InputError(
                    f"{run}: ended with other parameters than {runs[name]}, expected the same run"
                )
            runs.setdefault(name, run)
    return runs


def _ended(run: Path) -> str:
    """The hash of the parameters a run ended with."""
    return str(read_json(run / "result.json")["params_sha256"])


def _inside(source: Path, kind: str) -> list[str]:
    """Finished runs or references of a directory, by their paths in it."""
    return sorted(
        f"{kind}/{result.parent.name}" for result in (source / kind).glob("*/result.json")
    )


def _copy(source: Path, target: Path) -> None:
    """Copies a directory, whole or not at all; one that is there already, or is not in the source,
    is left."""
    if target.exists() or not source.exists():
        return
    beside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside)
    beside.replace(target)
