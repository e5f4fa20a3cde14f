"""Log lines that name the process: where several run as one, each line begins with which of them it
is from.

JAX knows which process this is once `jax.distributed` is initialised. Asking it before would start
its backend, which has to wait for that; so until then a process counts as alone.
"""

from __future__ import annotations

import logging
import sys


def is_main_process() -> bool:
    """Whether this process tells how things go on; the others tell of warnings and errors alone."""
    return _which()[0] == 0


def head() -> str:
    """What every line begins with: `[3/8] ` in process 3 of 8, counted from 0; nothing in a process
    that is alone."""
    number, count = _which()
    return f"[{number}/{count}] " if count > 1 else ""


def warn(text: str) -> None:
    """A line of kdjax's own on standard error, from every process."""
    print(f"{head()}kdjax: {text}", file=sys.stderr)


def claim_logging() -> None:
    """Python's warnings and the logging of libraries (absl, Orbax, JAX) go to standard error, a
    line each with its head, from level WARNING on. A program that has set up logging before keeps
    its own."""
    if not logging.root.handlers:
        logging.basicConfig(
            level=logging.WARNING, format="%(name)s: %(message)s", handlers=[_Named()]
        )
        logging.captureWarnings(True)


class _Named(logging.Handler):
    """Writes to whatever standard error is at the moment, so that a live progress line stays
    below."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(f"{head()}{self.format(record).rstrip()}", file=sys.stderr)
        except Exception:
            self.handleError(record)


def _which() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    jax = sys.modules.get("jax")  # a command line with a mistake in it ends before JAX is loaded
    if jax is None or not jax.distributed.is_initialized():
        return 0, 1
    return jax.process_index(), jax.process_count()
