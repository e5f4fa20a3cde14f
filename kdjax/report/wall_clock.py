"""How a study's wall-clock was spent, over all the commands that worked on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from kdjax.errors import InputError
from kdjax.report import numbers
from kdjax.runtime.clock import CLOCK, Mark
from kdjax.storage.files import write_json
from kdjax.storage.typed_json import read_typed

NAME = "wall_clock.json"
"""In the study's directory: seconds by kind."""


@contextmanager
def record(out: Path, begun: Mark) -> Iterator[None]:
    """Add what has passed to the study's seconds when the block ends, in whatever way but a kill.

    Args:
        out: directory of the study.
        begun: time at which the command began to work on the study.
    """
    try:
        yield
    except BaseException:
        # What ended the block is what is reported, not a failure to write.
        with suppress(InputError):
            _add(out, CLOCK.since(begun))
        raise
    _add(out, CLOCK.since(begun))


def read(out: Path) -> dict[str, float]:
    """Read seconds by kind; none before a command has ended."""
    path = out / NAME
    if not path.exists():
        return {}
    return read_typed(dict[str, float], path)


def text(seconds: Mapping[str, float]) -> str:
    """Return the whole as text, and each kind with its share, the largest first."""
    whole = sum(seconds.values())
    parts = sorted(seconds.items(), key=lambda part: -part[1])
    shares = (f"{kind} {numbers.duration(amount)} ({amount / whole:.1%})" for kind, amount in parts)
    return f"{numbers.duration(whole)}: {', '.join(shares)}"


def _add(out: Path, seconds: Mapping[str, float]) -> None:
    """Add seconds by kind to those of earlier commands."""
    # Read now, not when the command began: another command may have ended since.
    total = read(out)
    for kind, amount in seconds.items():
        total[kind] = total.get(kind, 0.0) + amount
    write_json(out / NAME, total)
