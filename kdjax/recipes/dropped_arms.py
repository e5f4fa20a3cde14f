"""Overrides that drop an arm of a recipe: `--arms.NAME null`."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence

from jsonargparse import Namespace

from kdjax.errors import InputError, nearest


def take_dropped_arms(
    overrides: Sequence[str], arms: Collection[str]
) -> tuple[list[str], list[str]]:
    """Take overrides that drop an arm, `--arms.NAME null`, out of all overrides.

    Args:
        overrides: dotted overrides as on a command line.
        arms: names of the recipe's arms, which may hold dots as settings do.

    Returns:
        The names of the arms, and the other overrides.

    Raises:
        InputError: an arm is dropped and changed.
    """
    names: list[str] = []
    rest: list[str] = []
    words = iter(overrides)
    for word in words:
        name, equals, value = word.partition("=")
        following = [] if equals or not word.startswith("--") else list(itertools.islice(words, 1))
        if following:
            value = following[0]
        arm = name.removeprefix("--arms.")
        is_arm = arm != name and ("." not in arm or arm in arms)
        if is_arm and value.strip() in ("null", "~", "Null", "NULL"):
            names.append(arm)
        else:
            rest += [word, *following]
    for arm in names:
        changes = [word for word in rest if word.startswith(f"--arms.{arm}.")]
        if changes or f"--arms.{arm}" in [word.partition("=")[0] for word in rest]:
            raise InputError(
                f"command line: --arms.{arm} null drops the arm and another override changes it, "
                "expected one of them"
            )
    return names, rest


def drop_arms(namespace: Namespace, names: Iterable[str]) -> None:
    """Drop arms from parsed settings.

    Args:
        namespace: the parsed settings; changed in place.
        names: names of the arms to drop.

    Raises:
        InputError: the recipe has no such arm, or none is left.
    """
    arms = namespace["arms"]
    for name in names:
        if name not in arms:
            raise InputError(
                f"command line: --arms.{name} null drops an arm, expected one of the recipe's"
                f"{nearest(name, arms)}"
            )
        arms.pop(name)
        if not arms:
            raise InputError(
                f"command line: --arms.{name} null drops the last arm, expected one to be left"
            )
