"""Budgets, by their unit."""

from __future__ import annotations

from kdjax.budget.accounting import CASES, Budget
from kdjax.errors import InputError, nearest


def flops(amount: float, teacher: str = "inference") -> Budget:
    """Make a budget of FLOPs.

    Args:
        amount: FLOPs.
        teacher: charged part of the teacher's cost: nothing, inference, training or both (Busbridge
            et al. 2025, arXiv 2502.08606).

    Raises:
        InputError: an unknown way to charge the teacher.

    Example:
        >>> print(kdjax.flops(1.5e12, teacher="both"))
        1.5e+12 FLOPs
    """
    if teacher not in CASES:
        raise InputError(
            f"teacher is {teacher!r}, expected one of {', '.join(CASES)}{nearest(teacher, CASES)}"
        )
    return Budget("flops", int(amount), teacher)


def tokens(amount: float) -> Budget:
    """Make a budget of tokens that the student sees: batch times length, padding included.

    Args:
        amount: tokens.

    Example:
        >>> print(kdjax.tokens(3.2e6))
        3.2e+06 tokens
    """
    return Budget("tokens", int(amount))


def hours(amount: float) -> Budget:
    """Make a budget of wall-clock hours of computing and of waiting for batches.

    Args:
        amount: hours.

    Example:
        >>> print(kdjax.hours(24))
        24 hours
    """
    return Budget("hours", amount)
