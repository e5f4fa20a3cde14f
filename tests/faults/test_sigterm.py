"""Told to stop by SIGTERM: saved, one line, and the same command goes on to the same end.

Of a whole command, which ends with status 75, see tests/study/test_kill.py.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kdjax.errors import InputError, Stopped
from kdjax.parallel.preemption import PREEMPTION
from tests.faults import runs

pytestmark = pytest.mark.system


def told_at(step: int) -> Callable[[int], None]:
    return lambda now: os.kill(os.getpid(), signal.SIGTERM) if now == step else None


def test_run_on_sigterm_saves_between_steps_and_ends_the_same(
    tmp_path: Path, straight: Path
) -> None:
    """The clock never makes a checkpoint due."""
    with PREEMPTION.handlers(), pytest.raises(Stopped) as stopped:
        runs.run(tmp_path, told_at(2), seconds=1e9)
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    # The step that was on its way, or the one whose batch was
    assert int(checkpoint.name) in (
        3,
        4,
    )
    assert (
        str(stopped.value)
        == f"told to stop; saved at step {checkpoint.name}; the same command goes on"
    )
    runs.check_same(runs.run(tmp_path), tmp_path, straight)


def test_sigterm_on_full_disk_is_an_input_error(
    tmp_path: Path, straight: Path, files_of_at_most: Callable[[int], Any]
) -> None:
    with (
        ExitStack() as full,
        PREEMPTION.handlers(),
        pytest.raises(InputError, match=r"File too large"),
    ):

        def watch(step: int) -> None:
            if step == 2:
                full.enter_context(files_of_at_most(700))
                told_at(2)(step)

        runs.run(tmp_path, watch, seconds=1e9)
    runs.check_same(runs.run(tmp_path), tmp_path, straight)


def test_sigterm_after_the_last_step_saves_the_run(tmp_path: Path, straight: Path) -> None:
    with PREEMPTION.handlers(), pytest.raises(Stopped, match="nothing is lost"):
        runs.run(tmp_path, told_at(runs.STEPS))
    runs.check_same(runs.run(tmp_path), tmp_path, straight)


def test_sigterm_outside_training_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(Stopped, match="told to stop; nothing is lost; the same command goes on"),
        PREEMPTION.handlers(),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    assert signal.getsignal(signal.SIGTERM) == before


class Collected:
    """What gets a signal while Python collects it, where exceptions are lost."""

    def __init__(self, number: int):
        self._number = number

    def __del__(self) -> None:
        signal.raise_signal(self._number)


@pytest.mark.parametrize(
    ("number", "ends_with"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)]
)
def test_signal_while_garbage_is_collected_stops_a_moment_later(
    number: int, ends_with: type[BaseException]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ends_with), PREEMPTION.handlers():
        collected = Collected(number)
        del collected
        time.sleep(60)
    # After a SIGINT the process would keep its handler to its end.
    signal.signal(signal.SIGINT, before)
    signal.set_wakeup_fd(-1)
