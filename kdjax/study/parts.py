"""A study on several machines: the runs of each part, and their directories merged again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.budget.ledger import PhaseSpan
from kdjax.config import first_difference
from kdjax.errors import InputError
from kdjax.results.runs import RunResult
from kdjax.results.store import result_of
from kdjax.storage import locks
from kdjax.storage.files import LOCK, check_writable, entries, read_json, write_json
from kdjax.storage.typed_json import read_typed
from kdjax.study.manifest import BEFORE, NAME, read_manifest
from kdjax.study.runs.run_backup import MANIFEST, RESULT, run_name
from kdjax.study.runs.run_manifest import RunManifest


@dataclass(frozen=True)
class StudyPart:
    """A share of a study's runs.

    Attributes:
        number: number of the part, 1 to count.
        count: number of parts.
    """

    number: int
    count: int

    @staticmethod
    def parse(text: str) -> StudyPart:
        """Read `I/N`.

        Raises:
            InputError: anything else, or I is not one of 1 to N.
        """
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(
                f"--part is {text!r}, expected I/N with I from 1 to N, for instance 1/3"
            )
        return StudyPart(int(match[1]), int(match[2]))

    def select(
        self, spans: Mapping[str, Sequence[PhaseSpan]], seeds: Sequence[int]
    ) -> list[tuple[str, int]]:
        """Return the part's runs: the I-th of all runs and every N-th after it.

        Runs are listed arm by arm, those that take the most FLOPs first (the recipe's order among
        equals, and under a budget of hours), and seed by seed within an arm. So the runs of an arm
        are spread evenly, and no two parts differ by more than the dearest run.

        Args:
            spans: arm -> its phases as they lie in the budget, in the recipe's order.
            seeds: seeds of the recipe.

        Returns:
            Arm and seed of each run.
        """

        def flops(arm: str) -> int:
            return sum(span.steps * span.price.total for span in spans[arm])

        runs = []
        for arm in sorted(spans, key=flops, reverse=True):
            runs += [(arm, seed) for seed in seeds]
        return runs[self.number - 1 :: self.count]


@dataclass(frozen=True)
class Merged:
    """The runs that a merge took, and those that it left.

    Attributes:
        runs: names of the finished runs that are now in one place.
        unfinished: directories of runs that no part has finished; they stay where they are.
    """

    runs: list[str]
    unfinished: list[Path]


def merge(parts: Sequence[Path], out: Path) -> Merged:
    """Put the finished runs of parts of one study into one directory, which `compare` goes on with.

    What runs share (corpus, teacher, stored outputs, references) comes from the first part that has
    it.

    Args:
        parts: directories of `train --part`, or of any study of the same recipe.
        out: a new or empty directory, or one of the same study.

    Raises:
        InputError: a part without a study or of another one, a run that differs between parts, a
            result where no run's is looked for, or `out` holds something else. Nothing is written
            then.
    """
    with locks.hold(out):
        return _merge(parts, out)


def _merge(parts: Sequence[Path], out: Path) -> Merged:
    """Merge parts into a directory that no other process writes to."""
    # Runs that are in `out` already come first: nothing there is replaced.
    sources = list(parts)
    if (out / NAME).exists():
        sources.insert(0, out)
    elif entries(out):
        raise InputError(
            f"{out}: holds files but no study, expected a new or empty directory for --out"
        )
    # All is checked before anything is written.
    manifest = _merged_manifest(sources)
    _check_results_in_place(sources)
    runs = _finished_runs(sources)
    check_writable(out)
    # First: a directory with runs but without it would belong to no study.
    write_json(out / NAME, manifest)
    for source in sources:
        for name in (*BEFORE, *_finished(source, "references")):
            _copy(source / name, out / name)
    for name, run in runs.items():
        _copy(run, out / name)
    return Merged([run.name for run in runs.values()], _unfinished(sources, runs))


def _check_results_in_place(sources: Sequence[Path]) -> None:
    """Check that every result of a run lies where runs lie, so that none is passed over.

    Raises:
        InputError: one lies elsewhere below `runs/`.
    """
    for source in sources:
        for result in sorted((source / "runs").rglob(RESULT)):
            if result.parent.parent != source / "runs":
                raise InputError(
                    f"{result}: a finished run lies here, expected it in ARM-seedN of "
                    f"{source / 'runs'}"
                )


def _unfinished(sources: Sequence[Path], runs: Mapping[str, Path]) -> list[Path]:
    """List the directories of runs that no part has finished.

    Args:
        sources: directories of the parts.
        runs: path within a study of each finished run.
    """
    unfinished = []
    for source in sources:
        for run in sorted((source / "runs").glob("*/")):
            # What a kill left under a temporary name is no run.
            if f"runs/{run.name}" not in runs and not run.name.startswith("."):
                unfinished.append(run)
    return unfinished


def _merged_manifest(sources: Sequence[Path]) -> dict[str, Any]:
    """Merge the `study.json` of several directories of one study.

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
        manifest = read_manifest(path)
        merged = merged or manifest
        difference = first_difference(manifest["config"], merged["config"])
        # Parts may have different arms; those of both cost the same.
        for arm in sorted(manifest["costs"].keys() & merged["costs"].keys()):
            cost = manifest["costs"][arm]
            difference = difference or first_difference(cost, merged["costs"][arm], arm)
        if difference:
            name, value, expected = difference
            raise InputError(
                f"{path}: this part's {name} is {value!r}, expected {expected!r}, as in "
                f"{sources[0]}"
            )
        merged = {**merged, "costs": {**merged["costs"], **manifest["costs"]}}
    return merged


def _finished_runs(sources: Sequence[Path]) -> dict[str, Path]:
    """Find the finished runs of several directories: path within a study -> where it is.

    Raises:
        InputError: they are of different text or teachers, or one run ended differently in two
            places.
    """
    runs: dict[str, Path] = {}
    params: dict[str, str | None] = {}
    first_facts: dict[tuple[str, int | None], tuple[Any, Path]] = {}
    for source in sources:
        for name in _finished(source, "runs"):
            run = source / name
            path = run / MANIFEST
            manifest = read_typed(RunManifest, path)
            result = _result(name, manifest, run)
            # Teachers that were trained here are one for each seed.
            teacher = manifest.teacher or {}
            teacher_seed = teacher.get("pretraining", {}).get("seed")
            shared: dict[tuple[str, int | None], Any] = {
                ("corpus", None): manifest.corpus,
                ("teacher", teacher_seed): manifest.teacher,
            }
            for key, facts in shared.items():
                kind = key[0]
                if facts is None:  # an arm without a teacher
                    continue
                first_recorded, first_run = first_facts.setdefault(key, (facts, run))
                if difference := first_difference(facts, first_recorded, kind):
                    setting, value, expected = difference
                    raise InputError(
                        f"{run}: this run's {setting} is {value!r}, expected {expected!r}, as in "
                        f"{first_run}"
                    )
            # The same run may lie in several directories, where it was copied or made twice.
            runs.setdefault(name, run)
            if result.params_sha256 != params.setdefault(name, result.params_sha256):
                raise InputError(
                    f"{run}: ended with other parameters than {runs[name]}, expected the same run"
                )
    return runs


def _result(name: str, manifest: RunManifest, run: Path) -> RunResult:
    """Read a run's result; its directory, manifest and result must be of one arm and seed.

    Raises:
        InputError: the three name different arms or seeds.
    """
    expected = f"runs/{run_name(manifest.arm, manifest.seed)}"
    if name != expected:
        raise InputError(
            f"{run}: this is the run of {manifest.arm}, seed {manifest.seed}, expected it in "
            f"{expected}"
        )
    return result_of(read_json(run / RESULT), run / RESULT, manifest.arm, manifest.seed)


def _finished(source: Path, kind: str) -> list[str]:
    """Return the finished runs, or references, of a directory by their paths in it."""
    results = (source / kind).glob(f"*/{RESULT}")
    return sorted(f"{kind}/{result.parent.name}" for result in results)


def _copy(source: Path, target: Path) -> None:
    """Copy a directory whole or not at all, where it is in the source and not in the target."""
    if target.exists() or not source.exists():
        return
    # Renamed when it is whole; what a kill left under the temporary name goes.
    beside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside, ignore=shutil.ignore_patterns(f"{LOCK}*"))
    beside.replace(target)
