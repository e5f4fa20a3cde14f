"""What a run writes down as it goes: a record of figures now and then, and where the time went.

A record is a flat mapping from names to numbers (`kdjax.training.metrics`). `metrics.jsonl` is what
counts; other places get the same records.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdjax import process_logging
from kdjax.config import LogConfig
from kdjax.errors import InputError
from kdjax.files import append_text, write_text
from kdjax.parallel import hosts
from kdjax.training.sinks import About, Record, Sink

NAME = "metrics.jsonl"

CURVE = ("mlm_loss", "mlm_probe")
"""Figures of the learning curve: a record with one of them is a point of it."""


def check_log(config: LogConfig) -> None:
    """Finds out before anything is spent whether records can go where they are to go.

    Raises:
        InputError: the package for Weights & Biases is missing, or nobody is logged in there.
    """
    if config.wandb and hosts.is_main_process():
        from kdjax.training import wandb  # noqa: PLC0415 - a package that most do not have

        wandb.check(config.wandb)


class Lines:
    """`metrics.jsonl`: a JSON object a line. Opening drops the lines after `step`: a resumed run
    writes them again.

    A line that cannot be written waits, and is written with the next.

    Attributes:
        reached: the last step that a line was written for before, dropped or not.
        curve: the lines with a held-out loss (`CURVE`).
    """

    def __init__(self, path: Path, step: int):
        self._path = path
        self._waiting = ""
        self.reached = step
        self.curve: list[dict[str, Any]] = []
        end = 0
        for line, after in _whole_lines(path):
            self.reached = max(self.reached, line["step"])
            if line["step"] <= step:
                end = after
                self._notice(line)
        if not path.exists():
            write_text(path, "")
        os.truncate(path, end)

    def write(self, step: int, record: Record) -> None:
        """Appends a line, or keeps it for the next time where it cannot be written: `flush` raises
        what stays wrong."""
        line = {"step": step, **record}
        self._notice(line)
        self._waiting += json.dumps(line, allow_nan=False) + "\n"
        with suppress(OSError):
            self._append(durable=False)

    def flush(self) -> None:
        """Sees to it that all lines are on the disk.

        Raises:
            OSError: they cannot be written.
        """
        self._append(durable=True)

    def records(self) -> Iterator[tuple[int, Record]]:
        """What is on the disk: (step, record)."""
        for line, _ in _whole_lines(self._path):
            yield line.pop("step"), line

    def _append(self, *, durable: bool) -> None:
        append_text(self._path, self._waiting, durable=durable)
        self._waiting = ""

    def _notice(self, line: dict[str, Any]) -> None:
        if any(name in line for name in CURVE):
            self.curve.append(line)


class Log:
    """A run's records, on their way to `metrics.jsonl` and, from the lead, to TensorBoard and
    Weights & Biases.

    Of these two, one that fails is done without from then on, and that is said: no run is lost for
    it.

    Attributes:
        reached: the last step that a line was written for before.
    """

    def __init__(
        self,
        directory: Path,
        step: int,
        config: LogConfig = LogConfig(),
        about: About | None = None,
        warn: Callable[[str], None] = process_logging.warn,
    ):
        """Opens them, at a step; what was written of later ones is dropped.

        Args:
            directory: the run's.
            step: how many steps it has done.
            config: what is written.
            about: whose run it is.
            warn: told, in a line, what is done without.

        Raises:
            InputError: metrics.jsonl is damaged, or Weights & Biases cannot be had.
        """
        self._lines = Lines(directory / NAME, step)
        self._warn = warn
        self.reached = self._lines.reached
        self._sinks: list[Sink] = []
        if not hosts.is_main_process():
            return
        if config.wandb:
            from kdjax.training.wandb import WandB  # noqa: PLC0415 - a package that most do not have

            self._sinks.append(
                WandB(directory, config.wandb, self._lines.records(), self.reached, about)
            )
        if config.tensorboard:
            from kdjax.training.tensorboard import TensorBoard  # noqa: PLC0415 - slow to import

            self._sinks.append(TensorBoard(directory / "tensorboard", self._lines.records(), about))

    def write(self, step: int, record: Record) -> None:
        """Writes the record of a step. Figures that are not finite are None: JSON has no others."""
        plain = {name: None if _not_finite(figure) else figure for name, figure in record.items()}
        self._lines.write(step, plain)
        self._each(lambda sink: sink.write(step, plain))

    def flush(self) -> None:
        """Sees to it that all lines are on the disk.

        Raises:
            OSError: they cannot be written.
        """
        self._lines.flush()

    def curve(self) -> list[dict[str, float]]:
        """The lines with a held-out loss."""
        return list(self._lines.curve)

    def close(self) -> None:
        """Nothing more comes."""
        self._each(lambda sink: sink.close())
        self._sinks = []

    def _each(self, act: Callable[[Sink], None]) -> None:
        for sink in tuple(self._sinks):
            try:
                act(sink)
            except Exception as e:
                self._sinks.remove(sink)
                self._warn(
                    f"{type(sink).__name__} fails ({type(e).__name__}: {e}); figures are in "
                    f"{NAME} alone now"
                )


def _not_finite(figure: Any) -> bool:
    return isinstance(figure, float) and not math.isfinite(figure)


def _whole_lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """The lines of a log and where in the file each ends, in bytes; a kill may have cut the last
    one short."""
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
            except ValueError:
                raise InputError(
                    f"{path}: line {number} is not JSON, expected a run's metrics"
                ) from None
