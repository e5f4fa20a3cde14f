"""A profile of some steps: it holds them, and the run is as without it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import jax
import pytest

from kdjax.config import LogConfig
from tests.support import metrics, trainers
from tests.training import runs


def captured(run: Path) -> list[set[int]]:
    """List the steps in each capture, in order."""
    captures = []
    # The tracer names training steps, as kdjax marks them.
    for path in sorted((run / "profile").glob("plugins/profile/*/perfetto_trace.json.gz")):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        captures.append(
            {int(e["args"]["step_num"]) for e in events if e.get("name") == "train" and "args" in e}
        )
    return captures


def log(first: int, last: int) -> LogConfig:
    return LogConfig(every=1, tensorboard=False, profile=(first, last))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("plain")
    runs.run(here)
    return here


@pytest.mark.parametrize(
    ("first", "last", "steps"),
    [(3, 4, {3, 4}), pytest.param(5, 99, {5, 6}, marks=pytest.mark.exhaustive)],
)
def test_profile_captures_steps_in_range_and_changes_nothing(
    tmp_path: Path, plain: Path, first: int, last: int, steps: set[int]
) -> None:
    runs.run(tmp_path, log(first, last))
    assert captured(tmp_path) == [steps]
    assert metrics.same_each_time(tmp_path) == metrics.same_each_time(plain)


def test_profile_of_run_resumed_in_range_captures_rest(tmp_path: Path) -> None:
    with pytest.raises(trainers.Interrupted):
        runs.run(tmp_path, stop_at=4)
    # The range began before the interruption; what is left of it is captured.
    runs.run(tmp_path, log(2, 5))
    (steps,) = captured(tmp_path)
    assert max(steps) == 5
    assert min(steps) > 2


@pytest.mark.parametrize(
    ("first", "last", "stop_at", "why"),
    [(9, 12, None, "it ended after step 6"), (1, 2, 5, "it goes on after step ")],
)
def test_profile_range_without_steps_warns(
    tmp_path: Path, first: int, last: int, stop_at: int | None, why: str
) -> None:
    messages: list[str] = []
    if stop_at:
        with pytest.raises(trainers.Interrupted):
            runs.run(tmp_path, stop_at=stop_at)
    runs.run(tmp_path, log(first, last), warn=messages.append)
    assert [line.partition(" (")[0] for line in messages] == [
        f"train.log.profile is [{first}, {last}]: nothing is captured"
    ]
    assert why in messages[0]
    assert captured(tmp_path) == []


def test_profile_leaves_running_capture_alone(tmp_path: Path) -> None:
    messages: list[str] = []
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    # Python's own calls would make the trace large, and are not looked at.
    jax.profiler.start_trace(tmp_path / "theirs", profiler_options=options)
    try:
        runs.run(tmp_path / "run", log(2, 3), warn=messages.append)
    finally:
        jax.profiler.stop_trace()
    # The profile that was running is theirs and stays whole.
    assert len(messages) == 1
    assert "nothing is captured" in messages[0]
    assert list((tmp_path / "theirs").glob("plugins/profile/*/*.xplane.pb"))
