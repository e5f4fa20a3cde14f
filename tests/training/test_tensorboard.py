"""Event files, read back by TensorBoard's own reader."""

from __future__ import annotations

import gc
import itertools
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG

from kdjax.config import LogConfig
from kdjax.training.records import tensorboard
from kdjax.training.records.metrics_log import Log
from kdjax.training.records.sinks import About
from tests.support import limits, metrics, trainers
from tests.training import runs


def read(run: Path) -> EventAccumulator:
    return EventAccumulator(
        str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}
    ).Reload()


def points(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in events.Scalars(tag)]


def check_same(run: Path) -> EventAccumulator:
    """Assert that every figure of every line is a point, and that there are no others; return what
    was read."""
    events = read(run)
    # What each tag should hold, from the lines of the run.
    expected: dict[str, list[tuple[int, float]]] = {}
    for line in metrics.lines(run):
        # A step's position is no figure, and neither is what an evaluation was paid.
        beside = ("step", "time") if "loss" in line else ("step", "flops", "share")
        for name, figure in line.items():
            if name not in beside:
                expected.setdefault(name, []).append(
                    (line["step"], pytest.approx(figure, rel=1e-6))
                )
    # Curves over the budget repeat evaluations on another axis, and are looked at by themselves.
    plain = {tag for tag in events.Tags()["scalars"] if not tag.startswith("by_budget/")}
    assert {tag: points(events, tag) for tag in plain} == expected
    return events


def test_sink_has_figures_of_metrics_lines(tmp_path: Path) -> None:
    about = About("study", "tinybert", 0, {"train": {"batch_size": 8}})
    runs.run(tmp_path, about=about)
    events = check_same(tmp_path)
    assert [step for step, _ in points(events, "mlm_loss")] == runs.EVALUATED
    # Budget shares are in thousandths, as steps are whole numbers.
    assert [step for step, _ in points(events, "by_budget/mlm_loss")] == [500, 1000]
    (recipe,) = events.Tensors("recipe")
    # The recipe is text, and the table of runs has its header.
    assert b'"batch_size": 8' in recipe.tensor_proto.string_val[0]
    assert SESSION_START_INFO_TAG in events.summary_metadata


@pytest.mark.parametrize("stop_at", [2, 5])
def test_resumed_run_has_no_event_twice(tmp_path: Path, stop_at: int) -> None:
    with pytest.raises(trainers.Interrupted):
        runs.run(tmp_path, stop_at=stop_at)
    runs.run(tmp_path)
    events = check_same(tmp_path)
    # No step and no evaluation is there twice.
    assert [step for step, _ in points(events, "loss")] == list(range(1, runs.STEPS + 1))
    assert [step for step, _ in points(events, "by_budget/mlm_loss")] == [500, 1000]


def test_event_files_switched_on_late_begin_at_start(tmp_path: Path) -> None:
    with pytest.raises(trainers.Interrupted):
        runs.run(tmp_path, LogConfig(every=1, tensorboard=False), stop_at=4)
    assert not (tmp_path / "tensorboard").exists()
    runs.run(tmp_path)
    check_same(tmp_path)


def test_dropped_events_are_forgotten_by_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step, {"flops": step, "loss": float(step)})
    log.close()
    events = read(tmp_path)
    assert points(events, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    # Readers take files in the order of their names, which begin with the second
    now = time.time() + 10
    monkeypatch.setattr(time, "time", lambda: now)
    log = Log(tmp_path, 1)
    log.write(2, {"flops": 2, "loss": 20.0})
    log.close()
    # A second reader, and the one that was already open, forget what was overwritten.
    assert points(read(tmp_path), "loss") == [(1, 1.0), (2, 20.0)]
    assert points(events.Reload(), "loss") == [(1, 1.0), (2, 20.0)]


@pytest.mark.parametrize("opened_before", [True, False])
def test_full_disk_is_one_warning_without_a_traceback(
    tmp_path: Path,
    opened_before: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tensorboard, "_FLUSH_SECONDS", -1.0)
    said: list[str] = []
    with ExitStack() as full:
        if opened_before:
            log = Log(tmp_path, 0, LogConfig(), warn=said.append)
            full.enter_context(limits.files_of_at_most(200))
        else:
            full.enter_context(limits.files_of_at_most(20))
            log = Log(tmp_path, 0, LogConfig(), warn=said.append)
        for step in (1, 2, 3):
            log.write(step, {"flops": 1, "loss": 1.0})
    log.close()
    log.flush()
    (line,) = said
    assert line.startswith("TensorBoard fails (OSError: [Errno 27] File too large")
    assert [record["step"] for record in metrics.lines(tmp_path)] == [1, 2, 3]
    gc.collect()
    assert capfd.readouterr().err == ""


def test_events_are_written_while_the_wall_clock_jumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = itertools.cycle([1e9, 1e7, 3e9])
    monkeypatch.setattr(time, "time", lambda: next(moments))
    log = Log(tmp_path, 0, LogConfig())
    for step in range(1, 5):
        log.write(step, {"flops": 1, "loss": float(step)})
    log.close()
    assert points(read(tmp_path), "loss") == [(step, step) for step in range(1, 5)]


def test_endpoints_join_the_run_once_however_often_they_are_written(tmp_path: Path) -> None:
    directory = tmp_path / "tensorboard"
    sink = tensorboard.TensorBoard(directory, [], About("study", "minilm", 3, {}))
    sink.write(10, {"loss": 2.0})
    sink.close()
    tensorboard.write_endpoints(directory, 10, {"mlm_probe": 4.5, "probe.topic": 0.25})
    tensorboard.write_endpoints(directory, 10, {"mlm_probe": 4.0, "probe.topic": 0.5})
    events = read(tmp_path)
    assert points(events, "endpoint/mlm_probe") == [(10, 4.0)]
    assert points(events, "endpoint/probe.topic") == [(10, 0.5)]
    # The table has arm and seed beside them.
    assert SESSION_START_INFO_TAG in events.summary_metadata
    # A run that goes on is measured anew.
    tensorboard.TensorBoard(directory, [(10, {"loss": 2.0})]).close()
    assert "endpoint/mlm_probe" not in read(tmp_path).Tags()["scalars"]
