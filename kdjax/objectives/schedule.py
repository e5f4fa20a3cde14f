"""Numbers that change over the budget: weights and temperatures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any, get_args, get_type_hints

import jax
import jax.numpy as jnp

from kdjax.config import Schedule
from kdjax.errors import InputError, nearest
from kdjax.models.ops import at_least_float32
from kdjax.objectives.base import is_amount

_SHAPES = get_args(get_type_hints(Schedule)["shape"])


def read_schedule(setting: Any, what: str, *, positive: bool = False) -> float | Schedule:
    """Read a number or a schedule, as a recipe gives it.

    Args:
        setting: a number, a `Schedule`, or a mapping {shape, points} with points [share of the
            budget, value].
        what: the setting's name, for messages.
        positive: whether every value must be above 0, not only at least 0.

    Raises:
        InputError: neither of these, or a value out of range.
    """
    minimum = "above 0" if positive else "of at least 0"
    if isinstance(setting, Schedule):
        setting = {"shape": setting.shape, "points": setting.points}
    if not isinstance(setting, Mapping):
        if not is_amount(setting, positive=positive):
            raise InputError(
                f"{what} is {setting!r}, expected a number {minimum} or a schedule "
                "{shape, points}"
            )
        return float(setting)

    # A schedule's own settings, then its points
    known = [field.name for field in fields(Schedule)]
    for key in setting:
        if key not in known:
            hint = nearest(str(key), known)
            raise InputError(f"{what}: unknown setting {key!r} of a schedule{hint}")
    shape = setting.get("shape", Schedule.shape)
    if shape not in _SHAPES:
        raise InputError(f"{what}: unknown shape {shape!r}{nearest(str(shape), _SHAPES)}")
    points = _read_points(setting.get("points", ()), what)
    for share, number in points:
        if not is_amount(number, positive=positive):
            raise InputError(
                f"{what} is {number!r} at {share!r} of the budget, expected a number {minimum}"
            )
    try:
        return Schedule(shape, tuple((float(share), float(number)) for share, number in points))
    except InputError as e:
        raise InputError(f"{what}: {e}") from None


def _read_points(points: Any, what: str) -> Sequence[Sequence[Any]]:
    """Return a schedule's points, checked to be pairs of which the first is a number from 0 on.

    Raises:
        InputError: they are no list of such pairs.
    """
    if not isinstance(points, (list, tuple)) or not all(_is_point(point) for point in points):
        raise InputError(
            f"{what}: points are {points!r}, expected a list of pairs [share of the budget, value]"
        )
    return points


def schedule_value(
    setting: float | Schedule, budget_fraction: float | jax.Array
) -> float | jax.Array:
    """Compute the number at a point of the budget; pure, and may be traced.

    Between two points, t = 0…1 of the way from u to v: `linear` u + t(v - u); `cosine` u + (v -
    u)(1 - cos πt)/2; `step` u, until the next point is reached. Constant before the first point and
    after the last.

    Args:
        setting: schedule from `read_schedule`.
        budget_fraction: share of the budget spent, a scalar.

    Returns:
        A plain number as it is; of a schedule a scalar, float32 or wider.
    """
    if not isinstance(setting, Schedule):
        return float(setting)
    at = at_least_float32(jnp.asarray(budget_fraction))
    number = jnp.asarray(setting.points[0][1], at.dtype)
    for (start, before), (end, after) in pairwise(setting.points):
        # Each point exactly: t is 0 and 1 at the two, and one of the products then vanishes.
        t = _fraction(setting.shape, at, start, end)
        number = jnp.where(at >= start, before * (1 - t) + after * t, number)
    return number


def is_zero(setting: float | Schedule, begin: float, end: float) -> bool:
    """Return whether a setting is 0 all through a stretch of the budget.

    Args:
        setting: a number, or a number that changes over the budget.
        begin: share of the budget at which the stretch begins.
        end: share at which it ends; the setting may be other than 0 there.
    """
    if not isinstance(setting, Schedule):
        return setting == 0
    # Constant before the first point and after the last.
    first = (-math.inf, setting.points[0][1])
    last = (math.inf, setting.points[-1][1])
    for (start, before), (stop, after) in pairwise([first, *setting.points, last]):
        stays = before == 0 and (after == 0 or setting.shape == "step")
        if start < end and begin < stop and not stays:
            return False
    return True


def value_at_step(setting: float | Schedule, batch: Mapping[str, Any]) -> float | jax.Array:
    """Compute the number at the batch's `budget_fraction`; at 0 if it has none."""
    return schedule_value(setting, batch.get("budget_fraction", 0.0))


def _is_point(point: Any) -> bool:
    return isinstance(point, (list, tuple)) and len(point) == 2 and is_amount(point[0])


def _fraction(shape: str, at: jax.Array, start: float, end: float) -> jax.Array:
    """Compute the share of the way between two points' values that is behind, 0…1."""
    if shape == "step":
        return (at >= end).astype(at.dtype)
    fraction = jnp.clip((at - start) / (end - start), 0, 1)
    if shape == "cosine":
        return (1 - jnp.cos(math.pi * fraction)) / 2
    return fraction
