"""Configs as plain values, and with some of them replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from typing import Any

from kdjax.errors import InputError, nearest


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain values, for JSON and YAML."""
    return dataclasses.asdict(config)


def plain(value: Any) -> Any:
    """A tree of plain values with lists for tuples, as JSON and YAML give it back."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def changed(config: Any, changes: dict[str, Any], where: str) -> Any:
    """A config with some of its settings replaced.

    Args:
        config: a frozen dataclass.
        changes: setting -> value.
        where: the changes' dotted name, for messages.

    Raises:
        InputError: an unknown setting, or a value of another type or out of range.
    """
    known = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    for name, value in changes.items():
        if name not in known:
            now = new_name(f"{where}.{name}", known)
            hint = f": it is now {now}" if now else nearest(name, known)
            raise InputError(f"{where}: unknown setting {name!r}{hint}")
        before = known[name]
        same = isinstance(value, type(before)) and isinstance(value, bool) == isinstance(
            before, bool
        )
        whole_for_real = (
            isinstance(before, float) and isinstance(value, int) and not isinstance(value, bool)
        )
        if before is not None and not (same or whole_for_real):
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
"""Former name of a setting -> what it is called now, wherever it stands."""


def new_name(name: str, known: Container[str]) -> str | None:
    """Return what a setting with this former name is called now, dotted; None where it had none.

    Args:
        name: dotted, such as `data.length`.
        known: the settings that stand beside it.
    """
    section, _, field = name.rpartition(".")
    now = RENAMED.get(field)
    if now is None or now not in known:
        return None
    return f"{section}.{now}".lstrip(".")


def renamed(name: str, value: Any) -> str:
    """Return what to add to a complaint about a value of a setting whose meaning has moved.

    Args:
        name: the setting's own name, without its section.
        value: what was given.
    """
    was_length = name == "positions" and isinstance(value, int)
    return " (the longest sequence is now max_positions)" if was_length else ""


def first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first setting in which two configs differ: its dotted name and both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            found = first_difference(
                before.get(key), now.get(key), f"{name}.{key}" if name else key
            )
            if found:
                return found
        return None
    return None if before == now else (name, before, now)
