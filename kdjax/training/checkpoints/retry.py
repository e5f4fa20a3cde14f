"""A run's answer to checkpoints that cannot be written: it goes on without them for a while, then
stops."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdjax.budget.ledger import Ledger
from kdjax.errors import InputError, NoHandles
from kdjax.parallel.preemption import PREEMPTION
from kdjax.training.checkpoints.storage import CheckpointStorage, Unsaved
from kdjax.training.records.run_records import RunRecords

FIRST_RETRY_SECONDS = 1.0
"""Time before the last checkpoint is tried again for the first time; each time it doubles. Orbax
takes a clock that was set forward for a save that took too long, and the next try succeeds."""
RETRY_SECONDS = 60.0
"""Time between tries to write the last checkpoint, at most, while there is no room for it."""


class CheckpointRetry:
    """Saves a run's checkpoints, each with an entry in the journal, and retries failed ones.

    A checkpoint that cannot be written is answered with a warning, and tried again when the next
    one is due.

    Attributes:
        patience: seconds that the run may go on while nothing can be written.
    """

    def __init__(
        self,
        storage: CheckpointStorage,
        directory: Path,
        patience: float,
        warn: Callable[[str], None],
    ):
        """Take the storage and the way to warn.

        Args:
            storage: storage that checkpoints are written to.
            directory: directory of the run, for messages.
            patience: seconds that the run may go on while nothing can be written.
            warn: function called with a line about each failure.
        """
        self._storage = storage
        self._directory = directory
        self.patience = patience
        self._warn = warn
        self._saved_step: int | None = None
        self._failing_since: float | None = None
        self._next_wait = FIRST_RETRY_SECONDS

    def resume(self, step: int) -> None:
        """Go on from a step, which needs no checkpoint: it has one, or is the start."""
        self._saved_step = step

    def save(
        self, state: Any, ledger: Ledger, records: RunRecords, patience: float | None = None
    ) -> None:
        """Begin a checkpoint, unless this very step has one.

        Args:
            state: the state, which may be used up once this returns.
            ledger: the ledger of its step.
            records: the run's metrics and journal.
            patience: seconds that the run may go on while nothing can be written; None: those it
                was opened with.

        Raises:
            InputError: nothing could be written for longer than the patience.
        """
        if self._saved_step == ledger.steps:
            return
        # The one before has to be whole first; only one is written at a time.
        self.wait_until_saved(ledger, patience)
        try:
            records.save_point(ledger)
            self._storage.save(state, ledger, records.read())
            self._saved_step = ledger.steps
        except (OSError, Unsaved) as e:
            self._warn_or_raise(e, ledger.steps, patience)

    def sleep_before_retry(self) -> None:
        """Wait until the next try to write the last checkpoint.

        A process that is told to stop tries once more at once, and no longer.
        """
        PREEMPTION.wait(min(self._next_wait, self.patience))
        self._next_wait = min(2 * self._next_wait, RETRY_SECONDS)
        if PREEMPTION.stop_requested():
            self.patience = 0.0

    def wait_until_saved(self, ledger: Ledger, patience: float | None = None) -> bool:
        """Wait for the checkpoint in progress; return whether the ledger's step has one now.

        Args:
            ledger: the run's ledger.
            patience: seconds that writing may fail; None: those it was opened with.

        Raises:
            InputError: nothing could be written for longer than the patience.
        """
        try:
            if self._storage.wait():
                self._failing_since = None
                self._next_wait = FIRST_RETRY_SECONDS
        except Unsaved as e:
            self._saved_step = None
            # The checkpoint in progress may be of an earlier step than the ledger's.
            self._warn_or_raise(e, e.step, patience)
        return self._saved_step == ledger.steps

    def _warn_or_raise(self, error: OSError | Unsaved, step: int, patience: float | None) -> None:
        """Warn that a checkpoint cannot be written, and that the run goes on without it.

        Args:
            error: the failure.
            step: step of the checkpoint that failed.
            patience: seconds that writing may fail; None: those it was opened with.

        Raises:
            InputError: nothing could be written for longer than the patience.
            NoHandles: this process has no file handle left.
        """
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        if patience is None:
            patience = self.patience
        remaining = patience - (time.monotonic() - self._failing_since)
        message = str(error)
        if isinstance(error, OSError):
            message = f"{self._directory} cannot be written ({error.strerror})"
        # Waiting frees room on a disk, but none of this process's own files.
        if os.strerror(errno.EMFILE) in message:
            raise NoHandles(
                f"{message}, expected a higher limit (ulimit -n); the same command goes on from "
                "the last whole checkpoint, if there is one"
            )
        if remaining <= 0:
            raise InputError(
                f"{message}, expected room for it; the same command goes on from the last whole "
                "checkpoint, if there is one"
            )
        self._warn(
            f"{message}; the run goes on without a checkpoint of step {step}, for {remaining:.0f} "
            "s at most"
        )
