"""Configs as plain values, with some of them replaced, and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from typing import Any

from kdjax.errors import InputError, nearest


def expect(holds: bool, name: str, value: object, expected: str) -> None:
    """Check the value of a setting.

    Args:
        holds: whether the value is in range.
        name: the setting's dotted name.
        value: value that the setting has, for messages.
        expected: the range in words.

    Raises:
        InputError: the value is out of range.
    """
    if not holds:
        raise InputError(f"{name} is {value}, expected {expected}")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as plain values, for JSON and YAML."""
    return dataclasses.asdict(config)


def plain(value: Any) -> Any:
    """Return a tree of plain values with lists for tuples, as JSON and YAML give it back."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def changed(config: Any, changes: dict[str, Any], where: str) -> Any:
    """Return a config with some of its settings replaced.

    Args:
        config: instance of a frozen dataclass of settings; it stays as it is.
        changes: values by the settings' names.
        where: dotted name of the changes, for messages.

    Raises:
        InputError: an unknown setting, or a value of another type or out of range.
    """
    known = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    for name, value in changes.items():
        if name not in known:
            now = new_name(f"{where}.{name}", known)
            hint = f": it is now {now}" if now else nearest(name, known)
            raise InputError(f"{where}: unknown setting {name!r}{hint}")
        # A bool is an int in Python, and no number here; a whole number may stand for a real one.
        before = known[name]
        kinds: tuple[type, ...] = (type(before), int) if type(before) is float else (type(before),)
        fits = isinstance(value, kinds) and isinstance(value, bool) == isinstance(before, bool)
        if before is not None and not fits:
            raise InputError(
                f"{where}.{name} is {value!r}, expected "
                f"{type(before).__name__}{renamed(name, value)}"
            )
    try:
        return dataclasses.replace(config, **changes)
    except InputError as e:
        raise InputError(f"{where}: {e}") from None


RENAMED = {
    "length": "seq_len",
    "slots": "max_predictions",
    "mask_rate": "mlm_probability",
    "views": "mask_copies",
    "types": "type_vocab_size",
    "batch": "batch_size",
    "microbatches": "grad_accum_steps",
    "ramp": "batch_ramp",
    "seeds_at_once": "vmapped_seeds",
}
"""Former name of a setting -> its name now, wherever it stands."""


def new_name(name: str, known: Container[str]) -> str | None:
    """Return the dotted name that a setting with a former name has now; None where it had none.

    Args:
        name: former name, dotted, such as `data.length`.
        known: names of the settings that stand beside it.
    """
    section, _, field = name.rpartition(".")
    now = RENAMED.get(field)
    if now is None or now not in known:
        return None
    return f"{section}.{now}".lstrip(".")


def renamed(name: str, value: Any) -> str:
    """Return a hint for a value of a setting whose meaning has moved to another, or nothing.

    Args:
        name: name of the setting, without its section.
        value: the value that is refused.
    """
    was_length = name == "positions" and isinstance(value, int)
    return " (the longest sequence is now max_positions)" if was_length else ""


def first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Find the first setting in which two configs differ: its dotted name and both values."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return None if before == now else (name, before, now)
    for key in {**before, **now}:
        inner = f"{name}.{key}".lstrip(".")
        difference = first_difference(before.get(key), now.get(key), inner)
        if difference:
            return difference
    return None
