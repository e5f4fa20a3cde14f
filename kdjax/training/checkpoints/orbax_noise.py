"""What Orbax prints and leaves behind when a save or a load fails, kept from the user.

An error of Orbax reaches kdjax as an exception, which becomes one line. Orbax says it again: its
logger does, its threads do as they end, and Python does when a coroutine that was never awaited is
collected.
"""

from __future__ import annotations

import gc
import inspect
import logging
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CoroutineType
from typing import Any

# Orbax narrates every save, and each failure in each thread
logging.getLogger("absl").setLevel(logging.CRITICAL)


@contextmanager
def quiet_orbax() -> Iterator[None]:
    """Keep Orbax's and TensorStore's threads from printing errors; the exception says them too."""
    log = logging.getLogger("asyncio")
    level = log.level
    log.setLevel(logging.CRITICAL)
    _pass_over_closed_loops()
    try:
        yield
    finally:
        log.setLevel(level)


def _pass_over_closed_loops() -> None:
    """Have Python say nothing of a thread of Orbax that ends after the failed call that it was for.

    This holds to the end of the process: such a thread may end long after the checkpoints are left.
    """
    report = sys.unraisablehook
    if getattr(report, "passes_over_closed_loops", False):
        return

    def unraisable(failure: Any) -> None:
        if str(failure.exc_value) != "Event loop is closed":
            report(failure)

    unraisable.passes_over_closed_loops = True  # type: ignore[attr-defined]
    sys.unraisablehook = unraisable


def abandoned_reads() -> list[Coroutine[Any, Any, Any]]:
    """Find Orbax's coroutines that were not started, or not ended, in the order they were made.

    Orbax keeps no list of them, so they are looked for among all objects that the garbage collector
    tracks: some tenths of a second, and only after a checkpoint that could not be read.
    """
    waiting = (inspect.CORO_CREATED, inspect.CORO_SUSPENDED)
    abandoned: list[Coroutine[Any, Any, Any]] = []
    for candidate in gc.get_objects():
        # `isinstance` would ask objects that load a module when asked.
        if type(candidate) is not CoroutineType:
            continue
        is_orbax = "orbax" in Path(candidate.cr_code.co_filename).parts
        if is_orbax and inspect.getcoroutinestate(candidate) in waiting:
            abandoned.append(candidate)
    return abandoned


def close_abandoned_reads() -> None:
    """Close what Orbax left of a failed load; else Python warns of it when it is collected.

    Nothing else of Orbax's is under way: a run reads its checkpoints before it writes any.
    """
    for coroutine in abandoned_reads():
        with suppress(Exception):  # Orbax takes the closing for an error in reading
            coroutine.close()
