"""`metrics.jsonl`, and what happens to a run when another place for its figures fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdjax.config import LogConfig
from kdjax.errors import InputError
from kdjax.parallel import hosts
from kdjax.training.records import tensorboard
from kdjax.training.records.metrics_log import Lines, Log
from tests.support import metrics

QUIET = LogConfig(tensorboard=False)


def written(directory: Path, steps: int) -> Log:
    log = Log(directory, 0, QUIET)
    for step in range(1, steps + 1):
        log.write(step, {"flops": 10 * step, "loss": 1.0 / step})
    return log


def test_lines_after_resumed_step_are_dropped(tmp_path: Path) -> None:
    written(tmp_path, 6)
    log = Log(tmp_path, 4, QUIET)
    # Lines behind the checkpoint will be written again.
    assert log.reached == 6
    assert [line["step"] for line in metrics.lines(tmp_path)] == [1, 2, 3, 4]
    log.write(5, {"loss": 0.5})
    assert metrics.lines(tmp_path)[-1] == {"step": 5, "loss": 0.5}


def test_line_cut_short_by_kill_is_dropped(tmp_path: Path) -> None:
    # As where the power went while the third line was written.
    written(tmp_path, 2)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "lo')
    Log(tmp_path, 9, QUIET).write(3, {"loss": 0.5})
    assert [line["step"] for line in metrics.lines(tmp_path)] == [1, 2, 3]


def test_damaged_line_is_refused_by_number(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl: line 2 is not JSON"):
        Log(tmp_path, 9, QUIET)


def test_non_finite_figures_are_null_in_valid_json(tmp_path: Path) -> None:
    Log(tmp_path, 0, QUIET).write(
        1, {"loss": 2.0, "grad_norm": float("inf"), "grad_norm/head": float("nan")}
    )

    # Python would read NaN and Infinity, which are no JSON.
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert line == {"step": 1, "loss": 2.0, "grad_norm": None, "grad_norm/head": None}


def test_curve_survives_restart(tmp_path: Path) -> None:
    # An evaluation has a line of its own, without the figures of a step.
    log = written(tmp_path, 2)
    log.write(2, {"flops": 20, "share": 0.5, "mlm_loss": 3.0})
    assert Log(tmp_path, 2, QUIET).curve() == [
        {"step": 2, "flops": 20, "share": 0.5, "mlm_loss": 3.0}
    ]


def test_failing_sink_is_dropped_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    log = Log(tmp_path, 0, LogConfig(), warn=messages.append)

    def fail(*args: object) -> None:
        raise OSError("No space left on device")

    # The sink fails at its first step.
    monkeypatch.setattr(tensorboard.TensorBoard, "write", fail)
    (sink,) = log._sinks
    assert isinstance(sink, tensorboard.TensorBoard)
    for step in (1, 2):
        log.write(step, {"flops": 1, "loss": 1.0})
    log.close()
    assert sink._writer.closed
    # The user is told once, and lines go on.
    assert messages == [
        "TensorBoard fails (OSError: No space left on device); figures are in metrics.jsonl alone "
        "now"
    ]
    assert [line["step"] for line in metrics.lines(tmp_path)] == [1, 2]


def test_sinks_are_written_by_main_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "is_main_process", lambda: False)
    log = Log(tmp_path, 0, LogConfig(wandb="never asked for"))
    log.write(1, {"flops": 1, "loss": 1.0})
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_lines_that_cannot_be_written_wait_for_next_write(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "metrics.jsonl", 0)
    # A directory where the file should be cannot be written to.
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    lines.write(1, {"loss": 1.0})
    with pytest.raises(OSError):
        lines.flush()
    # Once it can be, no line is missing.
    (tmp_path / "metrics.jsonl").rmdir()
    lines.write(2, {"loss": 0.5})
    assert [line["step"] for line in metrics.lines(tmp_path)] == [1, 2]
