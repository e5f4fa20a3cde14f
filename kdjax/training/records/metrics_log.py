"""The metrics of a run as they are written down: a record of figures every few steps.

A record is a flat mapping from names to numbers (`step_metrics.py`). `metrics.jsonl` is what
counts; sinks get the same records.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdjax.config import LogConfig
from kdjax.errors import InputError
from kdjax.parallel import hosts
from kdjax.runtime import process_logging
from kdjax.storage.files import append_text, write_text
from kdjax.training.records.sinks import About, MetricsRecord, Sink
from kdjax.training.records.trackers import open_trackers

NAME = "metrics.jsonl"

CURVE = ("mlm_loss", "mlm_probe")
"""Figures of the learning curve: a record with one of them is a point of it."""


class Lines:
    """`metrics.jsonl`: a JSON object a line.

    Opening drops the lines after `step`, which a resumed run writes again. A line that cannot be
    written waits, and is written with the next.

    Attributes:
        reached: last step that a line had been written for, dropped or not.
        curve: lines with a held-out loss (`CURVE`).
    """

    def __init__(self, path: Path, step: int):
        self._path = path
        self._waiting = ""
        self.reached = step
        self.curve: list[dict[str, Any]] = []
        # Lines up to the step stay, and what follows them is cut off.
        end = 0
        for line, after in _whole_lines(path):
            self.reached = max(self.reached, line["step"])
            if line["step"] <= step:
                end = after
                self._notice(line)
        if not path.exists():
            write_text(path, "")
        os.truncate(path, end)

    def write(self, step: int, record: MetricsRecord) -> None:
        """Append a line; one that cannot be written waits for the next `write` or `flush`."""
        line = {"step": step, **record}
        self._notice(line)
        self._waiting += json.dumps(line, allow_nan=False) + "\n"
        with suppress(OSError):
            self._append(durable=False)

    def flush(self) -> None:
        """Write all lines to the disk.

        Raises:
            OSError: they cannot be written.
        """
        self._append(durable=True)

    def records(self) -> Iterator[tuple[int, MetricsRecord]]:
        """Yield the step and the record of every line on the disk.

        Raises:
            InputError: the file is damaged.
        """
        for line, _ in _whole_lines(self._path):
            yield line.pop("step"), line

    def _append(self, *, durable: bool) -> None:
        append_text(self._path, self._waiting, durable=durable)
        self._waiting = ""

    def _notice(self, line: dict[str, Any]) -> None:
        if any(name in line for name in CURVE):
            self.curve.append(line)


class Log:
    """A run's records, on their way to `metrics.jsonl`, TensorBoard and the trackers.

    Only the main process writes to the latter. If one of them fails, the run goes on without it,
    and says so.

    Attributes:
        reached: last step that a line had been written for.
    """

    def __init__(
        self,
        directory: Path,
        step: int,
        config: LogConfig = LogConfig(),
        about: About | None = None,
        warn: Callable[[str], None] = process_logging.warn,
    ):
        """Open them at a step; what was written of later ones is dropped.

        Args:
            directory: directory of the run.
            step: steps that the run has done.
            config: settings of what is written.
            about: names of the run.
            warn: function called with a line about a sink that fails.

        Raises:
            InputError: metrics.jsonl is damaged, or a tracker cannot be had.
        """
        self._lines = Lines(directory / NAME, step)
        self._warn = warn
        self.reached = self._lines.reached
        self._sinks: list[Sink] = []
        if not hosts.is_main_process():
            return
        self._sinks += open_trackers(directory, config, self._lines.records, self.reached, about)
        if config.tensorboard:
            from kdjax.training.records.tensorboard import TensorBoard  # noqa: PLC0415 - slow

            try:
                sink = TensorBoard(directory / "tensorboard", self._lines.records(), about)
                self._sinks.append(sink)
            except OSError as e:
                self._warn_of("TensorBoard", e)

    def write(self, step: int, record: MetricsRecord) -> None:
        """Write the record of a step; figures that are not finite become None, for JSON."""
        written = dict(record)
        for name, figure in record.items():
            if isinstance(figure, float) and not math.isfinite(figure):
                written[name] = None
        self._lines.write(step, written)
        self._for_each_sink(lambda sink: sink.write(step, written))

    def flush(self) -> None:
        """Write all lines to the disk.

        Raises:
            OSError: they cannot be written.
        """
        self._lines.flush()

    def curve(self) -> list[dict[str, float]]:
        """Read the lines with a held-out loss."""
        return list(self._lines.curve)

    def close(self) -> None:
        """Close the sinks."""
        self._for_each_sink(lambda sink: sink.close())
        self._sinks = []

    def _for_each_sink(self, act: Callable[[Sink], None]) -> None:
        """Call a function on every sink, and drop those that fail, with a warning."""
        for sink in tuple(self._sinks):
            try:
                act(sink)
            except Exception as e:
                self._sinks.remove(sink)
                sink.abandon()
                self._warn_of(type(sink).__name__, e)

    def _warn_of(self, sink: str, error: Exception) -> None:
        """Warn that a sink fails, and that the run goes on without it."""
        self._warn(
            f"{sink} fails ({type(error).__name__}: {error}); figures are in {NAME} alone now"
        )


def _whole_lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield a log's lines and where each ends, in bytes; a kill may have cut the last one."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as f:
        for number, text in enumerate(f, 1):
            if not text.endswith(b"\n"):
                return
            end += len(text)
            try:
                yield json.loads(text), end
            except (ValueError, RecursionError):
                raise InputError(
                    f"{path}: line {number} is not JSON, expected a run's metrics"
                ) from None
