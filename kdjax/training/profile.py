"""A profile of some steps: what host and devices did when, captured by JAX's profiler."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import jax


class Profiler:
    """Captures the steps of a range, into a directory that xprof, TensorBoard and Perfetto read."""

    def __init__(
        self, directory: Path, steps: tuple[int, ...], done: int, warn: Callable[[str], None]
    ):
        """Nothing is captured yet.

        Args:
            directory: where captures go.
            steps: the first and the last to capture, counted from 1; empty: none.
            done: how many the run has done before.
            warn: told, in a line, why nothing is captured.
        """
        self._directory = directory
        self._steps = steps
        self._warn = warn
        self._running = False
        self._captured = directory.exists()
        if steps and done >= steps[1] and not self._captured:
            self._skip(f"it goes on after step {done}")

    def starts(self, step: int) -> bool:
        """Whether a capture has to begin before a step: the first of the range, or of what is left
        of it."""
        return bool(self._steps) and not self._running and self._steps[0] <= step <= self._steps[1]

    def start(self) -> None:
        """Begins a capture."""
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = (
            0  # every Python call: slows the host down, and hides the rest
        )
        try:
            jax.profiler.start_trace(
                self._directory, create_perfetto_trace=True, profiler_options=options
            )
        except RuntimeError as e:  # somebody else's is running
            self._skip(str(e))
        else:
            self._running = self._captured = True

    def step(self, step: int) -> AbstractContextManager[object]:
        """Marks a step in the capture, where there is one."""
        return (
            jax.profiler.StepTraceAnnotation("train", step_num=step)
            if self._running
            else nullcontext()
        )

    def ends(self, step: int) -> bool:
        """Whether the capture has to end after a step."""
        return self._running and step >= self._steps[1]

    def stop(self) -> None:
        """Writes the capture; the devices must have done its steps."""
        self._running = False
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError, ValueError) as e:
            self._skip(f"{type(e).__name__}: {e}")

    def close(self, done: int) -> None:
        """The run ends, in whatever way.

        Args:
            done: how many steps it has done.
        """
        if self._running:
            self.stop()
        if self._steps and not self._captured:
            self._skip(f"it ended after step {done}")

    def _skip(self, why: str) -> None:
        self._warn(f"train.log.profile is {list(self._steps)}: nothing is captured ({why})")
        self._steps = ()
