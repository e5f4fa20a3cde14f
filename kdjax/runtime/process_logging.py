"""Log lines that name the process: of several, each line begins with the one it is from.

JAX knows which process this is once `jax.distributed` is initialised. Asking it before would start
its backend, which has to wait for that; so until then a process counts as alone.
"""

from __future__ import annotations

import logging
import sys


def is_main_process() -> bool:
    """Return whether this is the process that logs progress; others log warnings and errors."""
    index, _ = _index_and_count()
    return index == 0


def prefix() -> str:
    """Return the beginning of every line: `[3/8] ` in process 3 of 8, nothing in one alone.

    Processes are counted from 0.
    """
    index, count = _index_and_count()
    if count == 1:
        return ""
    return f"[{index}/{count}] "


def warn(text: str) -> None:
    """Print a line of kdjax's own to standard error, from every process."""
    print(f"{prefix()}kdjax: {text}", file=sys.stderr)


def note(text: str) -> None:
    """Print a line on how the command goes on to standard error, from the main process."""
    if is_main_process():
        print(f"{prefix()}{text}", file=sys.stderr, flush=True)


def claim_logging() -> None:
    """Print warnings of Python and of libraries (absl, Orbax, JAX) to standard error.

    Each is a line with its prefix, from level WARNING on. A program that has set up logging before
    keeps its own.
    """
    if not logging.root.handlers:
        logging.basicConfig(
            level=logging.WARNING, format="%(name)s: %(message)s", handlers=[_PrefixHandler()]
        )
        logging.captureWarnings(True)


class _PrefixHandler(logging.Handler):
    """A handler that writes to whatever standard error is at the moment.

    So a live progress line stays below.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(f"{prefix()}{self.format(record).rstrip()}", file=sys.stderr)
        except Exception:
            self.handleError(record)


def _index_and_count() -> tuple[int, int]:
    """Return this process's number, from 0, and how many there are."""
    jax = sys.modules.get("jax")  # a command line with a mistake in it ends before JAX is loaded
    if jax is None or not jax.distributed.is_initialized():
        return 0, 1
    return jax.process_index(), jax.process_count()
