"""Two ways to write the same mathematics: plainly, as the price counts it, and leanly, as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CANONICAL = ContextVar("canonical", default=False)


@contextmanager
def canonical() -> Iterator[None]:
    """What is traced in the block is the canonical program: plain JAX, differentiated by JAX.

    The meter counts that program (`kdjax.budget.price`), so that a price does not depend on what makes a step fast.
    Everywhere else, the same functions are the lean ones: same results but for rounding, with less memory moved.
    """
    token = _CANONICAL.set(True)
    try:
        yield
    finally:
        _CANONICAL.reset(token)


def is_canonical() -> bool:
    """Whether the canonical program is being traced."""
    return _CANONICAL.get()
