"""The arm that the others are held against."""

from __future__ import annotations

from collections.abc import Mapping


def first_without_teacher(needs_teacher: Mapping[str, bool]) -> str:
    """Return the baseline arm: the first that needs no teacher, or the first where all need one.

    Args:
        needs_teacher: arm -> whether it looks at a teacher or starts from one.
    """
    without_teacher = (name for name, needs in needs_teacher.items() if not needs)
    return next(without_teacher, next(iter(needs_teacher)))


def baseline_arm(named: str, needs_teacher: Mapping[str, bool]) -> str:
    """Return the baseline arm: the one that the recipe names, or `first_without_teacher`.

    Args:
        named: `evaluation.baseline`, checked before; empty: none.
        needs_teacher: arm -> whether it looks at a teacher or starts from one.
    """
    return named or first_without_teacher(needs_teacher)
