"""`ledger.jsonl`: a run's account over time, only ever added to. Each entry carries the hash of the
one before.

An entry says what happened and how the ledger stood then: `open`, `steps` (more were done),
`restart` (from a checkpoint; what was done after it is done again), `close` (nothing more fits).
Whoever changes, removes or reorders an entry has to recompute every hash after it, and the last one
is in the run's result.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdjax.budget.ledger import Ledger
from kdjax.errors import InputError
from kdjax.files import append_text, digest

NAME = "ledger.jsonl"


class Journal:
    """A run's `ledger.jsonl`, open for adding to it."""

    def __init__(self, path: Path):
        """Reads what is there; of a last line cut short by a kill only whole lines count.

        Raises:
            InputError: an entry was changed, removed or reordered.
        """
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.entries = read(path) if path.exists() else []
        if path.exists():
            whole = path.read_bytes().rfind(b"\n") + 1
            os.truncate(path, whole)

    @property
    def head(self) -> str:
        """The hash of the last entry; empty where there is none."""
        return str(self.entries[-1]["sha256"]) if self.entries else ""

    def add(self, event: str, ledger: Ledger, **facts: Any) -> None:
        """Adds an entry, on the disk before this returns.

        Args:
            event: what happened.
            ledger: how the account stands.
            facts: what else belongs to the event, as plain values.

        Raises:
            OSError: it cannot be written; the journal is as it was.
        """
        content = {
            "entry": len(self.entries),
            "event": event,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **facts,
            "ledger": ledger.to_json(),
            "previous": self.head,
        }
        entry = json.loads(json.dumps({**content, "sha256": digest(content)}))
        append_text(self._path, json.dumps(entry) + "\n", durable=True)
        self.entries.append(entry)


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of a journal, checked against their hashes.

    Raises:
        InputError: an entry was changed, removed or reordered; names the first that does not fit.
    """
    previous = ""
    entries = []
    for number, entry in enumerate(_lines(path)):
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


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of the file."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: expected a run's ledger, found {e}") from None
    for number, line in enumerate(lines[:-1]):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            entry = None
        if not isinstance(entry, dict):
            raise InputError(
                f"{path}: entry {number} is not JSON, expected a run's ledger as it was written"
            )
        yield entry
