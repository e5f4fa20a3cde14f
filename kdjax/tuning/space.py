"""The space that tuning searches: which of an arm's own settings, and what values each may have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, get_args, get_type_hints

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from kdjax.arms.recipe_arms import arms_of
from kdjax.config import ArmConfig, Config, ModelSpec, OptimizerConfig, RangeConfig
from kdjax.errors import InputError, nearest

SECTIONS = {"optimizer": OptimizerConfig, "student": ModelSpec}
"""An arm's sections whose settings can be tuned; not `finetune`, as trials do not fine-tune."""

EDGE = 0.1
"""A value lies at the edge of a range if it is in this share of it, on its scale, at one of its
ends."""


def distributions_of(config: Config) -> dict[str, BaseDistribution]:
    """Return setting -> the distribution Optuna draws it from, sorted by name.

    The order in the recipe must not matter.

    Raises:
        InputError: an empty space, an unknown setting, values of another type than the setting's,
            or values that one of the arms cannot have. Of a range only both ends are tried, and one
            setting at a time.
    """
    space = config.tune.space
    if not space:
        raise InputError(
            "tune.space is empty, expected settings of an arm: {optimizer.learning_rate: {low, "
            "high}}"
        )

    # A setting whose distribution stands may still not suit an arm: a width that its heads do not
    # divide. Trying the ends now costs nothing, a trial that fails costs its runs.
    distributions = {name: _distribution(name, space[name]) for name in sorted(space)}
    for name, distribution in distributions.items():
        for arm, settings in config.arms.items():
            for value in _ends(distribution):
                changed = {arm: with_settings(settings, {name: value})}
                try:
                    arms_of(dataclasses.replace(config, arms=changed))
                except InputError as error:
                    raise InputError(f"tune.space.{name}: {error}") from None
    return distributions


def with_settings(arm: ArmConfig, settings: Mapping[str, Any]) -> ArmConfig:
    """Return an arm with some of its own settings replaced.

    Args:
        arm: settings of the arm in the recipe.
        settings: dotted setting (`optimizer.learning_rate`) -> value.
    """
    sections: dict[str, Any] = {section: dict(getattr(arm, section)) for section in SECTIONS}
    for name, value in settings.items():
        section, setting = name.split(".")
        sections[section][setting] = value
    return dataclasses.replace(arm, **sections)


def edge_of(values: RangeConfig, value: Any) -> str | None:
    """Return at which end of what tuning may try a value lies: `low`, `high`, or None for neither.

    A best value at an end says that a better one may lie beyond it. At an end of a range are the
    values in its outer `EDGE`; of choices the least and the greatest number, and of others none.

    Args:
        values: the range or the choices of a setting.
        value: value of the setting, one that the range or the choices have.
    """
    if values.choices:
        return _end_of_choices(values.choices, value)

    # Where the value lies between the ends, from 0 to 1, as it was drawn: on a log scale or not.
    scale = math.log if values.log else float
    low = scale(values.low)
    position = (scale(value) - low) / (scale(values.high) - low)
    if position <= EDGE:
        return "low"
    if position >= 1 - EDGE:
        return "high"
    return None


def _end_of_choices(choices: Sequence[Any], value: Any) -> str | None:
    """Return whether a choice is the least or the greatest of several different numbers."""
    are_numbers = all(type(choice) in (int, float) for choice in choices)
    if not are_numbers or len(set(choices)) < 2:
        return None
    if value == min(choices):
        return "low"
    if value == max(choices):
        return "high"
    return None


def _distribution(name: str, values: RangeConfig) -> BaseDistribution:
    """Return the distribution that Optuna draws a setting from."""
    kinds = _kinds(name)
    # Equal after conversion is equal: 0 and 0.0 would be tried as two.
    if values.choices:
        choices = [_typed(name, choice, kinds) for choice in values.choices]
        if len(set(choices)) < len(choices):
            raise InputError(f"tune.space.{name}: found the choices {choices}, expected each once")
        return CategoricalDistribution(choices)

    # A range has the setting's type, however its ends are written.
    if float in kinds:
        return FloatDistribution(float(values.low), float(values.high), log=values.log)
    if int not in kinds:
        raise InputError(
            f"tune.space.{name}: found a range, expected choices: the setting is no number"
        )
    low = values.low
    high = values.high
    if low != int(low) or high != int(high):
        raise InputError(
            f"tune.space.{name}: found low {low:g} and high {high:g}, expected whole numbers"
        )
    return IntDistribution(int(low), int(high), log=values.log)


def _kinds(name: str) -> tuple[Any, ...]:
    """Return the types that a setting may have, or the values of its Literal."""
    hints = {}
    for section, cls in SECTIONS.items():
        for setting, hint in get_type_hints(cls).items():
            hints[f"{section}.{setting}"] = hint
    if name.startswith("finetune."):
        raise InputError(
            f"tune.space.{name}: trials do not fine-tune, expected settings of "
            f"{' or '.join(SECTIONS)}"
        )
    if name not in hints:
        raise InputError(f"tune.space: unknown setting {name!r}{nearest(name, hints)}")
    # A setting that may be left open has alternatives, of which one may be a Literal.
    kinds: list[Any] = []
    for alternative in get_args(hints[name]) or (hints[name],):
        kinds += get_args(alternative) or (alternative,)
    return tuple(kinds)


def _typed(name: str, value: Any, kinds: tuple[Any, ...]) -> Any:
    """Return a choice in the setting's type, a whole number where a float is expected included."""
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) in kinds or value in (kind for kind in kinds if not isinstance(kind, type)):
        return value
    expected = " or ".join(_kind_name(kind) for kind in kinds)
    raise InputError(f"tune.space.{name}: found the choice {value!r}, expected {expected}")


def _kind_name(kind: Any) -> str:
    """Return a type as a recipe's author knows it, or the value of a Literal."""
    if kind is NoneType:
        return "null"
    if isinstance(kind, type):
        return kind.__name__
    return repr(kind)


def _ends(distribution: BaseDistribution) -> Iterable[Any]:
    """Return every choice, or both ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, (FloatDistribution, IntDistribution))  # nothing else is made
    return distribution.low, distribution.high
