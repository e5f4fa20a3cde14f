"""The revisions of a run that are exported: its finished student, and its snapshots."""

from __future__ import annotations

from kdjax.errors import InputError, nearest
from kdjax.study.runs.recorded_run import RecordedRun
from kdjax.study.runs.snapshots import PREFIX, Snapshot, kept_snapshots

FINISHED = "main"
"""The revision of the finished student."""


def chosen_revisions(
    run: RecordedRun, revision: str, *, every: bool = False
) -> dict[str, Snapshot | None]:
    """Return the snapshot that each branch is exported from; None stands for the finished student.

    Args:
        run: the run.
        revision: name of a snapshot, or of a branch for the finished student; empty: `main`.
        every: whether all are exported: the finished student first, then the snapshots by words.

    Raises:
        InputError: the run has no such snapshot, or none at all; or a file of theirs is damaged.
    """
    # What is named like a snapshot is one: the finished student must not pass for it.
    is_snapshot = revision.startswith(PREFIX)
    if not every and not is_snapshot:
        return {revision or FINISHED: None}
    snapshots = kept_snapshots(run.directory)
    if not snapshots:
        raise InputError(
            f"{run.directory}: the run kept no snapshots, expected one that was made with "
            "train.checkpoint.keep_at_words"
        )
    if every:
        return {FINISHED: None, **snapshots}
    if revision not in snapshots:
        raise InputError(
            f"--revision is {revision!r:.80}, expected a snapshot of {run.directory}"
            f"{nearest(revision, snapshots)}"
        )
    return {revision: snapshots[revision]}
