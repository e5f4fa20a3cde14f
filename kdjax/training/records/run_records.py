"""What a run writes down besides its state, and what travels in its checkpoints: the journal of its
ledger and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.budget import journal
from kdjax.budget.journal import Journal
from kdjax.budget.ledger import Ledger
from kdjax.budget.shared_steps import SharedSteps
from kdjax.config import LogConfig
from kdjax.errors import InputError
from kdjax.storage.files import write_text
from kdjax.storage.typed_json import from_plain, to_plain
from kdjax.training.records import metrics_log
from kdjax.training.records.metrics_log import Log
from kdjax.training.records.sinks import About

FILES = (journal.NAME, metrics_log.NAME)


@dataclass(frozen=True)
class Branch:
    """The way in which a run goes on from another run's trunk.

    Attributes:
        opening: ledger of the run before its first step.
        shared: the steps that it has in common with the other run.
    """

    opening: Ledger
    shared: SharedSteps


class RunRecords:
    """The journal and the metrics of a run, open to be written.

    Attributes:
        log: metrics of the run, on their way to files and sinks.
    """

    def __init__(
        self,
        directory: Path,
        step: int,
        config: LogConfig,
        about: About | None,
        warn: Callable[[str], None],
    ):
        """Open both files; what the metrics have of later steps than `step` is dropped.

        Raises:
            InputError: one of them is damaged, or a tracker cannot be had.
        """
        self._directory = directory
        self._journal = Journal(directory / journal.NAME)
        self.log = Log(directory, step, config, about, warn)

    def begin(
        self, ledger: Ledger, damaged: list[str], branch: Branch | None = None, **details: Any
    ) -> None:
        """Write the journal's first entry, or that the run goes on.

        Args:
            ledger: the ledger at this step.
            damaged: checkpoints that could not be read.
            branch: how the run goes on from another run's trunk; None: it does not, or has before.
            details: `side_by_side`, how many runs share the devices; and for the first entry
                `prices` and `positions` of the steps of each phase.
        """
        if not self._journal.entries:
            self._journal.add("open", branch.opening if branch else ledger, **details)
            if branch is None:
                return
        # A kill may have come between the two entries.
        if branch is not None and self.shared() is None:
            self._journal.add("branch", ledger, shared=to_plain(branch.shared))
            return
        # Steps after the checkpoint are done again, and their FLOPs are not counted twice.
        lost_steps = self.log.reached - ledger.steps
        restart = {"side_by_side": details["side_by_side"], "lost_steps": lost_steps}
        if damaged:
            restart["damaged"] = damaged
        self._journal.add("restart", ledger, **restart)

    def save_point(self, ledger: Ledger) -> None:
        """Write all metrics to the disk, and enter the steps done in the journal.

        Raises:
            OSError: they cannot be written.
        """
        self.log.flush()
        self._journal.add("steps", ledger)

    def keep_trunk(self, ledger: Ledger) -> None:
        """Write all metrics to the disk, and enter the end of the trunk in the journal.

        Raises:
            InputError: they cannot be written.
        """
        try:
            self.log.flush()
            self._journal.add("trunk", ledger)
        except OSError as e:
            raise InputError(
                f"{self._directory} cannot be written ({e.strerror}), expected room for it; the "
                "same command goes on from the last whole checkpoint, if there is one"
            ) from None

    def shared(self) -> SharedSteps | None:
        """Return the steps shared with the run whose trunk it went on from; None: no steps."""
        for entry in self._journal.entries:
            if entry["event"] == "branch":
                return from_plain(SharedSteps, entry["shared"], f"{self._directory}:")
        return None

    def finish(self, ledger: Ledger, params_sha256: str) -> str:
        """Add the journal's last entry; return its hash."""
        self._journal.add("close", ledger, params_sha256=params_sha256)
        return self._journal.head

    def diverged(self, ledger: Ledger, reason: str) -> str:
        """Add the last entry of a run that diverged at the ledger's step; return its hash."""
        self._journal.add("diverged", ledger, reason=reason)
        return self._journal.head

    def read(self) -> dict[str, str]:
        """Read the content of both files, by file name."""
        return {name: (self._directory / name).read_text(encoding="utf-8") for name in FILES}


def restore(directory: Path, records: Mapping[str, str]) -> None:
    """Write a checkpoint's records to the run's files, unless these begin with them already.

    A kill may have undone steps that the journal has on record. Files begin otherwise on another
    machine, or where the run went on elsewhere meanwhile.

    Args:
        directory: directory of the run.
        records: content of the files, by file name.
    """
    for name, text in records.items():
        path = directory / name
        if not path.exists() or not path.read_bytes().startswith(text.encode()):
            write_text(path, text)
