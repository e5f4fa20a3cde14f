"""How a run's checkpoints are stored: state, ledger and records, together or not at all.

This file and `orbax_noise.py` alone know Orbax.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

from kdjax.budget.ledger import Ledger
from kdjax.errors import InputError
from kdjax.parallel import hosts
from kdjax.storage.files import digest
from kdjax.storage.typed_json import from_plain, to_plain
from kdjax.training.checkpoints.failure import Damaged, reason_of
from kdjax.training.checkpoints.orbax_noise import close_abandoned_reads, quiet_orbax
from kdjax.training.checksum import checksums, differing

KEEP = 2
"""Number of checkpoints that stay: the newest and the one before."""
SMALLEST_SLICE = 2**20
"""Bytes of the smallest slice of an array that a device copies to its host, where several devices
hold the same array."""
DAMAGED = ".damaged"
"""Ends the name of a checkpoint that could not be read and was moved aside."""


class Unsaved(Exception):
    """A checkpoint that could not be written; those before it are as they were.

    Attributes:
        step: step of the checkpoint.
    """

    def __init__(self, path: Any, reason: str):
        """Take the path of the checkpoint, whose name is its step, and the reason."""
        super().__init__(f"{path} could not be written ({reason})")
        self.step = int(path.name)


@dataclass(frozen=True)
class Restored:
    """What a checkpoint held.

    Attributes:
        state: state as it was saved.
        ledger: the ledger at that step.
        records: content of the run's records by then, by file name.
        damaged: newer checkpoints that could not be read: what is wrong with each, and where it
            lies now.
    """

    state: Any
    ledger: Ledger
    records: dict[str, str]
    damaged: list[str] = field(default_factory=list)


class CheckpointStorage:
    """The checkpoints of one run in one directory, as a context manager.

    Leaving it waits for the save in progress.

    A checkpoint is written in the background, under a temporary name until it is whole; a kill or a
    full disk leaves those before it. The newest `keep` stay.
    """

    def __init__(self, directory: Path | str, keep: int = KEEP):
        """Name the directory; it is made when the first checkpoint is saved.

        Args:
            directory: a path or gs://bucket/path.
            keep: number of checkpoints that stay.
        """
        self._directory = epath.Path(directory)
        self._keep = keep
        if "://" not in str(directory):
            self._directory = epath.Path(Path(directory).absolute())
        self._orbax: Any = None
        self._saving: tuple[int, Any] | None = None  # the step being saved, and Orbax's future
        self._failed = False  # whether a call of Orbax ever did

    def __enter__(self) -> CheckpointStorage:
        self._quiet = quiet_orbax()
        self._quiet.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not hosts.peer_lost(error):  # else Orbax would wait for the other process
            with suppress(Unsaved):  # callers that need the error have called `wait`
                self.wait()
            self._close()
        if self._failed:
            # asyncio logs the error of a failed task when the task is collected: that has to be
            # now, while its log is quiet.
            gc.collect()
        self._quiet.__exit__(None, None, None)

    def save(self, state: Any, ledger: Ledger, records: Mapping[str, str] | None = None) -> None:
        """Begin a checkpoint under the ledger's step; the state may be used up once this returns.

        Args:
            state: a tree of arrays.
            ledger: the ledger at that step.
            records: content of the run's records, by file name.

        Raises:
            Unsaved: the one before, or already this one, could not be written.
        """
        self.wait()
        facts = {
            "ledger": to_plain(ledger),
            "checksums": checksums(state),
            "records": dict(records or {}),
        }
        try:
            if self._orbax is None:
                self._open()
            saving = self._orbax.save_checkpointables_async(
                ledger.steps,
                {"state": state},
                custom_metadata={**facts, "sha256": digest(facts)},
                force=True,
            )
        # Orbax and TensorStore raise many kinds of errors; to the user all mean the same.
        except Exception as e:
            if hosts.peer_lost(e):
                raise
            self._close()
            raise Unsaved(self._directory / str(ledger.steps), self._why(e)) from None
        self._saving = ledger.steps, saving

    def wait(self) -> bool:
        """Wait until the save in progress is done; return whether there was one.

        Raises:
            Unsaved: it could not be written.
        """
        if self._saving is None:
            return False
        step, saving = self._saving
        self._saving = None
        try:
            saving.result()
        except Exception as e:
            if hosts.peer_lost(e):
                raise
            self._close()  # opened again, it clears away what is half-written
            raise Unsaved(self._directory / str(step), self._why(e)) from None
        return True

    def restore(self, like: Any) -> Restored | None:
        """Restore the newest whole checkpoint, and move newer ones aside; None: there is none.

        Args:
            like: a state of `jax.ShapeDtypeStruct` with the shardings to restore to, whatever they
                were before.

        Raises:
            InputError: there are checkpoints, but every one is truncated, altered, or of another
                model.
        """
        reasons: dict[int, str] = {}
        for step in hosts.broadcast_from_main(self._steps()):
            restored = self._read(step, like)
            if isinstance(restored, Restored):
                damaged = [self._move_aside(newer, reason) for newer, reason in reasons.items()]
                return replace(restored, damaged=damaged)
            reasons[step] = restored
        if not reasons:
            return None
        damage = "; ".join(f"{step}: {reason}" for step, reason in reasons.items())
        raise InputError(
            f"{self._directory}: expected a whole checkpoint, found damaged ones alone ({damage}); "
            "move the directory away to start this run from its beginning"
        )

    def _steps(self) -> list[int]:
        """List the steps of the checkpoints that were finished, the newest first."""
        if not self._directory.exists():
            return []
        checkpoints = ocp.path.step.standard_name_format().find_all(self._directory)
        return sorted((checkpoint.step for checkpoint in checkpoints), reverse=True)

    def _read(self, step: int, like: Any) -> Restored | str:
        """Read a checkpoint, or say what is wrong with it: damaged on one process is on all."""
        path = self._directory / str(step)
        reason = ""
        state = None
        facts = {}
        try:
            facts = dict(ocp.checkpointables_metadata(path).custom_metadata or {})
            if facts.pop("sha256", None) != digest(facts):
                raise Damaged("its account does not match its SHA-256")
            state = ocp.load_checkpointables(path, {"state": like})["state"]
        except Exception as e:  # of many kinds
            reason = self._why(e)
            close_abandoned_reads()
        if not hosts.all_processes(not reason):
            return reason or "on another process"
        names = differing(state, facts["checksums"])
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"the content of {names[0]}{more} does not match its checksum"
        ledger = from_plain(Ledger, facts["ledger"], f"{path}: ledger")
        return Restored(state, ledger, facts["records"])

    def _move_aside(self, step: int, reason: str) -> str:
        """Rename a damaged checkpoint, so that its step can be saved again; return a message."""
        path = self._directory / str(step)
        aside = self._directory / f"{step}{DAMAGED}"
        if hosts.is_main_process():
            if aside.exists():
                aside.rmtree()
            path.rename(aside)
        return f"{path} is damaged ({reason}); it is now {aside.name}"

    def _why(self, error: Exception) -> str:
        """Return the reason of a failed call of Orbax."""
        self._failed = True
        return reason_of(error, self._directory)

    def _open(self) -> None:
        """Open Orbax, which clears away what is half-written."""
        self._directory.mkdir(parents=True, exist_ok=True)
        # To cut a small array up, a program for each device and place, takes longer than to copy it
        # whole.
        context = ocp.Context()
        context.array.saving.min_slice_bytes_for_replica_parallel = SMALLEST_SLICE
        self._orbax = ocp.training.Checkpointer(
            self._directory,
            preservation_policy=ocp.training.preservation_policies.LatestN(self._keep),
            context=context,
            cleanup_tmp_directories=True,
        )

    def _close(self) -> None:
        """Close Orbax, if it is open."""
        if self._orbax is None:
            return
        orbax = self._orbax
        self._orbax = None
        with suppress(Exception):  # of a save that failed, once more
            orbax.close()
