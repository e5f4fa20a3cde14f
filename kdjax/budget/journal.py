"""`ledger.jsonl`: a run's ledger over time, only ever added to and linked by hashes.

An entry says what happened and how the ledger stood then, and carries the hash of the entry before
it. The events are `open`, `steps` (more were done), `restart` (from a checkpoint; what was done
after it is done again), `close` (nothing more fits) and `diverged` (the loss is not finite). Where
budgets share a trunk: `trunk` (it ends here, and its state is kept) and `branch` (the run goes on
from another run's).
Whoever changes, removes or reorders an entry has to recompute every hash after it, and the last one
is in the run's result.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from kdjax.budget.ledger import Ledger
from kdjax.errors import InputError
from kdjax.storage.files import append_text, digest
from kdjax.storage.typed_json import to_plain

NAME = "ledger.jsonl"


class Journal:
    """A run's `ledger.jsonl`, open for adding entries."""

    def __init__(self, path: Path):
        """Read the entries that are there; a last line cut short by a kill is dropped.

        Args:
            path: the file, made with its directory where there is none.

        Raises:
            InputError: an entry was changed, removed or reordered.
        """
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.entries: list[dict[str, Any]] = []
        if path.exists():
            self.entries = read(path)
            # The next entry must begin on a line of its own.
            whole = path.read_bytes().rfind(b"\n") + 1
            os.truncate(path, whole)

    @property
    def head(self) -> str:
        """Return the hash of the last entry; empty where there is none."""
        if not self.entries:
            return ""
        return str(self.entries[-1]["sha256"])

    def add(self, event: str, ledger: Ledger, **details: Any) -> None:
        """Add an entry; it is on the disk before this returns.

        Args:
            event: name of what happened.
            ledger: the ledger after it.
            details: more about the event, as plain values.

        Raises:
            OSError: the entry cannot be written; the journal is as it was.
        """
        content = {
            "entry": len(self.entries),
            "event": event,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **details,
            "ledger": to_plain(ledger),
            "previous": self.head,
        }
        # As it will be read back: with lists for tuples, and strings for keys.
        entry = json.loads(json.dumps({**content, "sha256": digest(content)}))
        append_text(self._path, json.dumps(entry) + "\n", durable=True)
        self.entries.append(entry)


def read(path: Path) -> list[dict[str, Any]]:
    """Read the entries of a journal and check them against their hashes.

    Raises:
        InputError: an entry was changed, removed or reordered; the message names the first one.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: expected a run's ledger, found {e}") from None
    previous = ""
    entries = []
    # What follows the last line end was cut short by a kill.
    for number, line in enumerate(lines[:-1]):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise InputError(
                f"{path}: entry {number} is not JSON, expected a run's ledger as it was written"
            )
        content = {name: value for name, value in entry.items() if name != "sha256"}
        if entry.get("sha256") != digest(content):
            raise InputError(
                f"{path}: entry {number} does not match its SHA-256, expected it as it was written"
            )
        if entry.get("previous") != previous or entry.get("entry") != number:
            raise InputError(
                f"{path}: entry {number} does not follow the one before it, expected entries in "
                "order and none removed"
            )
        previous = entry["sha256"]
        entries.append(entry)
    return entries
