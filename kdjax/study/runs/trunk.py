"""The trunk that the runs of one arm and seed share over the studies of a sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.config import first_difference
from kdjax.parallel import hosts
from kdjax.study.runs.run_backup import RunBackup, copy_missing
from kdjax.study.runs.snapshots import FACTS, FOLDER, kept_snapshots
from kdjax.training.trunk import Trunk, TrunkSource

_SAME = ("arm", "seed", "arm_settings", "cost", "corpus", "teacher")
"""Fields of the manifests of two runs that are the same where one goes on from the other."""


@dataclass(frozen=True)
class TrunkStudy:
    """A study of a smaller budget, whose runs may have kept their trunks.

    Attributes:
        name: name of the study.
        directory: directory of the study.
        backup: its place in `train.checkpoint.directory`; empty: there is none.
    """

    name: str
    directory: Path
    backup: str


@dataclass(frozen=True)
class StudyTrunk:
    """The place of a study among those that share a trunk.

    Attributes:
        smaller: studies of smaller budgets, the largest first.
        larger: budgets of the others.
    """

    smaller: tuple[TrunkStudy, ...]
    larger: tuple[Budget, ...]


def run_trunk(
    trunk: StudyTrunk, run_dir: Path, backup: RunBackup, warn: Callable[[str], None]
) -> Trunk:
    """Return the trunk of a run: where it is kept, and which others it may go on from.

    Args:
        trunk: place of the run's study among those that share it.
        run_dir: the run's directory, whose manifest is written.
        backup: place of its files besides its directory.
        warn: function called with a line about each run that it cannot go on from.

    Raises:
        InputError: a manifest or a snapshot is not whole, or a backup cannot be read.
    """
    manifest = backup.local_manifest()
    sources = []
    for study in trunk.smaller:
        source_dir = study.directory / "runs" / run_dir.name
        source = RunBackup(study.backup, source_dir)
        theirs = source.local_manifest() or source.stored_manifest()
        if not hosts.all_processes(theirs is not None):
            continue
        # Arms may have changed, and prices with the version of JAX, since that study began.
        difference = _difference(theirs, manifest)
        if not hosts.all_processes(difference is None):
            warn(
                f"{run_dir}: pays for its steps itself: {difference or 'the manifest'} differs in "
                f"{source_dir}"
            )
            continue
        copy_snapshots = _copy_snapshots(source_dir, run_dir, backup)
        sources.append(TrunkSource(study.name, source.trunk, copy_snapshots))
    return Trunk(backup.trunk, sources, trunk.larger)


def _difference(theirs: Any, manifest: Any) -> str | None:
    """Return the first field in which two runs are not alike; None: they are."""
    for name in _SAME:
        if difference := first_difference(theirs.get(name), manifest.get(name), name):
            return difference[0]
    return None


def _copy_snapshots(source_dir: Path, run_dir: Path, backup: RunBackup) -> Callable[[Ledger], None]:
    """Return a function that copies the snapshots on a trunk, given the ledger at its end.

    They are those of the run that goes on, too.
    """

    def copy(ledger: Ledger) -> None:
        for name, snapshot in kept_snapshots(source_dir).items():
            if snapshot.steps <= ledger.steps:
                folder = f"{FOLDER}/{name}"
                copy_missing(source_dir / folder, run_dir / folder, FACTS)
                backup.upload_folder(folder, FACTS)

    return copy
