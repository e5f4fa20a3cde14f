"""Two ways to write the same mathematics: plainly, as the price counts it, and leanly, as it
runs."""

from __future__ import annotations

from contextlib import AbstractContextManager

import jax

_CANONICAL = jax.make_user_context(False)
"""A part of what JAX's caches go by: a function traced in the one way is traced anew in the
other."""


def reference() -> AbstractContextManager[None]:
    """What is traced in the block is the reference program: plain JAX, differentiated by JAX.

    The meter counts that program (`kdjax.budget.price`), so that a price does not depend on what
    makes a step fast.
    Everywhere else, the same functions are the lean ones: same results but for rounding, with less
        memory moved.
    """
    block: AbstractContextManager[None] = _CANONICAL(True)
    return block


def is_canonical() -> bool:
    """Whether the reference program is being traced."""
    return bool(_CANONICAL.value)
