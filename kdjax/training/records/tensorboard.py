"""TensorBoard's event files of a run; `tensorboard --logdir OUT/runs` compares a study's runs."""

from __future__ import annotations

import io
import itertools
import json
import os
import socket
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from kdjax.storage.files import write_bytes
from kdjax.training.records.sinks import ENDPOINTS, About, MetricsRecord, is_evaluation

BY_BUDGET = "by_budget"
"""Figures on held-out text once more, over thousandths of the budget: there, arms with steps of any
price compare."""
_ENDPOINTS_FILE = "events.out.tfevents.9999999999.endpoints"
"""File of the endpoints. TensorBoard reads files in the order of their names: this one is last."""
_FLUSH_SECONDS = 30
"""Seconds between two writes of what waits in memory to the disk."""
_VERSION = "brain.Event:2"
"""Version of the format of event files, which each begins with."""
_numbers = itertools.count()
"""Numbers of the event files of this process, which tell those of one second apart."""


class TensorBoard:
    """A sink: one event file, made anew from `metrics.jsonl` whenever a run is resumed.

    So no point is there twice or differs from `metrics.jsonl`, however often the run was killed,
    and event files that are switched on in the middle of a run begin with its start.
    """

    def __init__(
        self,
        directory: Path,
        records: Iterable[tuple[int, MetricsRecord]],
        about: About | None = None,
    ):
        """Begin a new event file and empty those before it.

        Args:
            directory: directory of this run's event files alone.
            records: records so far.
            about: names of the run.
        """
        for old in directory.glob("events.out.tfevents.*"):
            if old.stat().st_size:
                # A TensorBoard that reads it would wait for a deleted one for ever.
                old.write_bytes(b"")
            else:
                old.unlink()
        # TensorBoard's own writer has a thread, which prints a traceback when the disk is full, and
        # waits by a clock that may jump.
        directory.mkdir(parents=True, exist_ok=True)
        name = f"{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._writer = RecordWriter((directory / f"events.out.tfevents.{name}").open("wb"))
        self._flushed = time.monotonic()
        self._write(Event(wall_time=time.time(), file_version=_VERSION))
        # A TensorBoard that looked at the old file forgets it.
        self._write(
            Event(step=0, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START))
        )
        if about is not None:
            self._add_names(about)
        # Evaluations have no time of their own: they get that of the record before.
        wall_time = time.time()
        for step, record in records:
            wall_time = record.get("time", wall_time)
            self._add(step, record, wall_time)
        with self._closed_on_error():
            self._writer.flush()

    def write(self, step: int, record: MetricsRecord) -> None:
        """Add a record's figures, each under its name."""
        self._add(step, record, time.time())

    def close(self) -> None:
        """Write the buffered events to the file."""
        self._writer.close()

    def abandon(self) -> None:
        """Close the file, whether or not what is waiting can be written."""
        with suppress(OSError):
            self._writer.close()

    def _write(self, event: Event) -> None:
        """Add an event, and write what has waited long enough to the disk."""
        with self._closed_on_error():
            self._writer.write(event.SerializeToString())
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """Close the file if the block cannot write to it; else Python complains when it goes."""
        try:
            yield
        except OSError:
            self.abandon()
            raise

    def _add(self, step: int, record: MetricsRecord, wall_time: float) -> None:
        if not is_evaluation(record):
            figures = {name: figure for name, figure in record.items() if name != "time"}
            self._write(Event(step=step, wall_time=wall_time, summary=_scalars(figures)))
            return
        figures = {
            name: figure for name, figure in record.items() if name not in ("flops", "share")
        }
        # Once more over the budget, where arms with steps of any price compare
        by_budget = {f"{BY_BUDGET}/{name}": figure for name, figure in figures.items()}
        thousandths = round(1000 * record["share"])
        self._write(Event(step=step, wall_time=wall_time, summary=_scalars(figures)))
        self._write(Event(step=thousandths, wall_time=wall_time, summary=_scalars(by_budget)))

    def _add_names(self, about: About) -> None:
        """Add the run's arm and seed as hyperparameters, and its recipe as text."""
        recipe = textwrap.indent(json.dumps(about.recipe, indent=2), "    ")
        for summary in (
            hparams_pb({"arm": about.arm, "seed": about.seed}),
            _text("recipe", recipe),
        ):
            self._write(Event(wall_time=time.time(), summary=summary))


def write_endpoints(directory: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Write what a run's student was measured to, for TensorBoard's table of runs (HPARAMS).

    They are a file of their own, as a run is measured after its event file is closed. A run that is
    measured again writes it anew, so no point is there twice.

    Args:
        directory: directory of this run's event files alone.
        step: last step of the run.
        metrics: values by the names of endpoints.

    Raises:
        InputError: the file cannot be written.
    """
    summary = _scalars({f"{ENDPOINTS}/{name}": value for name, value in metrics.items()})
    now = time.time()
    content = io.BytesIO()
    writer = RecordWriter(content)
    writer.write(Event(wall_time=now, file_version=_VERSION).SerializeToString())
    writer.write(Event(step=step, wall_time=now, summary=summary).SerializeToString())
    write_bytes(directory / _ENDPOINTS_FILE, content.getvalue())


def _scalars(figures: Mapping[str, Any]) -> Summary:
    """Return figures as a summary, without those that are not finite."""
    values = []
    for name, figure in figures.items():
        if figure is not None:
            values.append(Summary.Value(tag=name, simple_value=figure))
    return Summary(value=values)


def _text(tag: str, markdown: str) -> Summary:
    """Return a text as a summary."""
    metadata = create_summary_metadata(display_name=tag, description="")
    value = Summary.Value(tag=tag, tensor=make_tensor_proto([markdown]), metadata=metadata)
    return Summary(value=[value])
