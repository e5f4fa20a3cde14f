"""A profile of some steps: what host and devices did when, captured by JAX's profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from kdjax.training.stopwatch import Stopwatch


class Profiler:
    """Captures the steps of a range, into a directory that xprof, TensorBoard and Perfetto read."""

    def __init__(
        self, directory: Path, steps: tuple[int, ...], steps_done: int, warn: Callable[[str], None]
    ):
        """Name the steps to capture; nothing is captured yet.

        Args:
            directory: directory of the captures.
            steps: the first and the last step to capture, counted from 1; empty: none.
            steps_done: steps that the run has done before.
            warn: function called with a line that says why nothing is captured.
        """
        self._directory = directory
        self._steps = steps
        self._warn = warn
        self._running = False
        self._captured = directory.exists()
        if steps and steps_done >= steps[1] and not self._captured:
            self._skip(f"it goes on after step {steps_done}")

    @contextmanager
    def capture(self, step: int, wait: Callable[[], None], stopwatch: Stopwatch) -> Iterator[None]:
        """Capture the step in the block, if it is in the range.

        Args:
            step: number of the step, from 1.
            wait: waits until the devices have done all steps before.
            stopwatch: stopwatch of the run, which counts what starting and stopping take.
        """
        if not self._steps:
            yield
            return

        # A run that goes on inside the range captures what is left of it.
        if not self._running and self._steps[0] <= step <= self._steps[1]:
            wait()
            with stopwatch.measure("profile"):
                self._start()

        if not self._running:
            yield
            return
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

        if step >= self._steps[1]:
            wait()
            with stopwatch.measure("profile"):
                self._stop()

    def close(self, steps_done: int) -> None:
        """End a capture when the run ends, and warn if nothing was captured.

        Args:
            steps_done: steps that the run has done.
        """
        if self._running:
            self._stop()
        if self._steps and not self._captured:
            self._skip(f"it ended after step {steps_done}")

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        # Every call of Python would slow the host down, and hide the rest.
        options.python_tracer_level = 0
        try:
            jax.profiler.start_trace(
                self._directory, create_perfetto_trace=True, profiler_options=options
            )
        except RuntimeError as e:  # another capture is running
            self._skip(str(e))
        else:
            self._running = True
            self._captured = True

    def _stop(self) -> None:
        self._running = False
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError, ValueError) as e:
            self._skip(f"{type(e).__name__}: {e}")

    def _skip(self, reason: str) -> None:
        self._warn(f"train.log.profile is {list(self._steps)}: nothing is captured ({reason})")
        self._steps = ()
