"""The space that tuning searches: which of an arm's own settings, and what values each may have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, get_args, get_type_hints

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from kdjax.config import ArmConfig, Config, ModelSpec, OptimizerConfig, RangeConfig
from kdjax.dry_run.arms import arms_of
from kdjax.errors import InputError, nearest

SECTIONS = {"optimizer": OptimizerConfig, "student": ModelSpec}
"""An arm's sections whose settings can be tuned. Those of `finetune` cannot: trials do not
fine-tune."""


EDGE = 0.1
"""A value lies at the edge of a range if it is in this share of it, on its scale, at one of its
ends."""


def distributions_of(config: Config) -> dict[str, BaseDistribution]:
    """Setting -> what Optuna draws it from, by name: the order in which the recipe lists them must
    not matter.

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
    made = {name: _distribution(name, space[name]) for name in sorted(space)}
    for name, distribution in made.items():
        for arm, own in config.arms.items():
            for value in _ends(distribution):
                try:
                    arms_of(
                        dataclasses.replace(config, arms={arm: with_settings(own, {name: value})})
                    )
                except InputError as e:
                    raise InputError(f"tune.space.{name}: {e}") from None
    return made


def with_settings(arm: ArmConfig, settings: Mapping[str, Any]) -> ArmConfig:
    """An arm with some of its own settings replaced.

    Args:
        arm: as the recipe has it.
        settings: dotted setting (`optimizer.learning_rate`) -> value.
    """
    sections: dict[str, Any] = {section: dict(getattr(arm, section)) for section in SECTIONS}
    for name, value in settings.items():
        section, setting = name.split(".")
        sections[section][setting] = value
    return dataclasses.replace(arm, **sections)


def edge_of(values: RangeConfig, found: Any) -> str | None:
    """Whether a value lies at the `low` or the `high` end of a range, or of choices that are
    numbers; else None."""
    low = values.low
    high = values.high
    width = EDGE
    if values.choices:
        if len(values.choices) < 2 or not all(
            type(choice) in (int, float) for choice in values.choices
        ):
            return None
        low = min(values.choices)
        high = max(values.choices)
        width = 0.0
    ends = [math.log(end) if values.log else end for end in (low, high, found)]
    place = (ends[2] - ends[0]) / (ends[1] - ends[0])
    return "low" if place <= width else "high" if place >= 1 - width else None


def _distribution(name: str, values: RangeConfig) -> BaseDistribution:
    kinds = _kinds(name)
    if values.choices:
        choices = [_typed(name, choice, kinds) for choice in values.choices]
        if len(set(choices)) < len(choices):
            raise InputError(f"tune.space.{name}: found the choices {choices}, expected each once")
        return CategoricalDistribution(choices)
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
    """What a setting may be: types, or the values of a Literal."""
    known = {
        f"{section}.{setting}": hint
        for section, cls in SECTIONS.items()
        for setting, hint in get_type_hints(cls).items()
    }
    if name.startswith("finetune."):
        raise InputError(
            f"tune.space.{name}: trials do not fine-tune, expected settings of "
            f"{' or '.join(SECTIONS)}"
        )
    if name not in known:
        raise InputError(f"tune.space: unknown setting {name!r}{nearest(name, known)}")
    hint = known[name]
    return get_args(hint) or (hint,)


def _typed(name: str, value: Any, kinds: tuple[Any, ...]) -> Any:
    """The value as the setting has it."""
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) in kinds or value in (kind for kind in kinds if not isinstance(kind, type)):
        return value
    wanted = " or ".join(
        "null" if k is NoneType else k.__name__ if isinstance(k, type) else repr(k) for k in kinds
    )
    raise InputError(f"tune.space.{name}: found the choice {value!r}, expected {wanted}")


def _ends(distribution: BaseDistribution) -> Iterable[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, (FloatDistribution, IntDistribution))  # nothing else is made
    return distribution.low, distribution.high
