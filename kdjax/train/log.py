"""What a run writes down as it goes: a line of metrics now and then, and where the time went."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kdjax.errors import InputError
from kdjax.files import append_text, write_text

NAME = "metrics.jsonl"


class Log:
    """`metrics.jsonl`: a JSON object a line. Opening drops the lines after `step`: a resumed run writes them again.

    A line that cannot be written waits, and is written with the next.

    Attributes:
        reached: the last step that a line was written for before, dropped or not.
    """

    def __init__(self, path: Path, step: int):
        self._path = path
        found = list(_whole_lines(path))
        self.reached = max((line["step"] for line in found), default=step)
        self._lines = [line for line in found if line["step"] <= step]
        self._waiting = ""
        write_text(path, "".join(json.dumps(line) + "\n" for line in self._lines))

    def write(self, line: Mapping[str, Any]) -> None:
        """Appends a line, or keeps it for the next time where it cannot be written: `flush` raises what stays wrong."""
        self._lines.append(dict(line))
        self._waiting += json.dumps(line) + "\n"
        with suppress(OSError):
            self._append(durable=False)

    def flush(self) -> None:
        """Sees to it that all lines are on the disk.

        Raises:
            OSError: they cannot be written.
        """
        self._append(durable=True)

    def _append(self, *, durable: bool) -> None:
        append_text(self._path, self._waiting, durable=durable)
        self._waiting = ""

    def curve(self) -> list[dict[str, float]]:
        """The lines with a held-out loss."""
        return [line for line in self._lines if "mlm_loss" in line]


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log; a kill may have cut the last one short."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, text in enumerate(lines[:-1], 1):
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            raise InputError(f"{path}: line {number} is not JSON, expected a run's metrics") from None


class Stopwatch:
    """Adds up wall-clock seconds by kind: `with clock("input"): ...`."""

    def __init__(self, seconds: Mapping[str, float]):
        self._seconds = dict(seconds)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds so far, by kind."""
        return dict(self._seconds)

    def add(self, kind: str, seconds: float) -> None:
        """Adds seconds that were measured elsewhere."""
        self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds

    @contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        """Adds the seconds the block takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(kind, time.perf_counter() - started)
