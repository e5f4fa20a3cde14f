"""Configs as plain values, with some of them replaced, and checked."""

from __future__ import annotations

import dataclasses
import numbers
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from kdjax.errors import InputError, nearest
from kdjax.storage import typed_json


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


FLOPS_LIMIT = 1e30
"""Most FLOPs that a setting may name: a hundred thousand times what the largest models took."""
TOKENS_LIMIT = 1e18
"""Most tokens that a setting may name."""
FLOAT32_LIMIT = 1e38
"""Largest number of a setting that becomes a float32."""
LARGEST_SEED = 2**32 - 1
"""Seeds are 32 bits wide: NumPy's and JAX's take them all."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
"""Names that a recipe may give to arms, tasks and texts. They become names of files, parts of
endpoints and of dotted settings, and words on command lines."""


def check_range(
    config: Any, prefix: str, low: float, high: float, *names: str, above: bool = False
) -> None:
    """Check that settings of a config are numbers within a range.

    Args:
        config: a dataclass. A setting whose type is `int` takes whole numbers alone.
        prefix: what stands before the settings' names in messages, such as `data.`.
        low: smallest number.
        high: largest number.
        names: names of the settings; None is passed over where a setting may be None.
        above: whether `low` itself is out of range.

    Raises:
        InputError: a setting is no number, not finite, or out of range.
    """
    types = {field.name: str(field.type) for field in dataclasses.fields(config)}
    for name in names:
        value = getattr(config, name)
        if value is None and "None" in types[name]:
            continue
        check_number(
            value,
            f"{prefix}{name}",
            low,
            high,
            whole=types[name].startswith("int"),
            above=above,
        )


def check_number(
    value: object, name: str, low: float, high: float, *, whole: bool = False, above: bool = False
) -> None:
    """Check that a value is a number within a range.

    Args:
        value: the value.
        name: dotted name of its setting, for messages.
        low: smallest number.
        high: largest number.
        whole: whether it must be a whole number.
        above: whether `low` itself is out of range.

    Raises:
        InputError: it is no number, not finite, or out of range.
    """
    # A bool is an int in Python, and no number here.
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
        expected = "a whole number" if whole else "a number"
        raise InputError(f"{name} is {value!r:.80}, expected {expected}")
    # A comparison with NaN is false.
    number: Any = value
    in_range = low < number <= high if above else low <= number <= high
    if not in_range:
        least = f"more than {low:,}" if above else f"at least {low:,}"
        shown = repr(value)
        if len(shown) > 40:
            shown = f"{shown:.40}…"
        raise InputError(f"{name} is {shown}, expected {least}, at most {_bound(high)}")


def _bound(number: float) -> str:
    """Return an upper bound as a user would write it."""
    if isinstance(number, int):
        return f"{number:,}"
    return f"{number:g}"


def check_seeds(seeds: Any, name: str) -> None:
    """Check a list of seeds: one or more, each once, from 0 to 2^32 - 1.

    Raises:
        InputError: there is none, or one is no whole number, out of range or there twice.
    """
    expected = "one or more whole numbers from 0 to 2^32 - 1, each once"
    if not isinstance(seeds, (list, tuple)) or not seeds:
        shown = list(seeds) if isinstance(seeds, tuple) else seeds
        raise InputError(f"{name} is {shown!r:.80}, expected {expected}")
    for seed in seeds:
        is_whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
        if not is_whole or not 0 <= int(seed) <= LARGEST_SEED:
            raise InputError(f"{name} has {seed!r:.80}, expected whole numbers from 0 to 2^32 - 1")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"{name} is {list(seeds)!r:.80}, expected one or more, each once")


def check_names(names: Any, section: str, reserved: Iterable[str] = ()) -> None:
    """Check names that a recipe gives, which become names of directories and files.

    Args:
        names: the names: a mapping's keys, or a list.
        section: dotted name of what has them, for messages.
        reserved: names that the program uses itself where these become files.

    Raises:
        InputError: one is no text, has letters that it may not have, is too long or reserved, or
            two are the same on a disk that does not tell capitals from small letters.
    """
    folded: dict[str, str] = {}
    for name in names:
        # YAML reads a bare number or `no` as no text.
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InputError(
                f"{section} has {name!r:.80}, expected names of 1 to 64 letters (A to Z), digits, "
                "_, +, - and dots, the first a letter, a digit or _, quoted where YAML reads "
                "something else"
            )
        if name.casefold() in reserved:
            raise InputError(
                f"{section} has {name!r}, expected another name: kdjax uses this one itself"
            )
        before = folded.setdefault(name.casefold(), name)
        if before != name:
            raise InputError(
                f"{section} has {before!r} and {name!r}, expected names that differ in more than "
                "capitals: some disks do not tell them apart"
            )


def check_mapping(value: object, name: str) -> None:
    """Check that a setting is a mapping by text.

    Raises:
        InputError: it is none, or one of its keys is no text.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {value!r:.80}, expected a mapping")
    for key in value:
        if not isinstance(key, str):
            raise InputError(
                f"{name} has {key!r:.80}, expected text, quoted where YAML reads something else"
            )


LATER = {typed_json.LATER: True}
"""Metadata of a setting that came later than what may have been made without it. Where it has its
default, which is what was so before, `to_dict` leaves it out, so that studies, teachers and other
artifacts of earlier versions go on."""


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as plain values, for JSON and YAML, without later settings at their defaults.

    What it returns identifies a study or an artifact; `kdjax.recipes.from_dict` inverts it.
    """
    values: dict[str, Any] = _copied(config)
    return values


def _copied(value: Any) -> Any:
    """Return a copy of a tree of dataclasses, mappings and sequences, with mappings for the
    first."""
    if dataclasses.is_dataclass(value):
        copied = {}
        for field in dataclasses.fields(value):
            content = getattr(value, field.name)
            if not typed_json.is_left_out(field, content):
                copied[field.name] = _copied(content)
        return copied
    if isinstance(value, dict):
        return {key: _copied(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(content) for content in value)
    return value


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
            hint = nearest(name, known)
            if now := new_name(f"{where}.{name}", known):
                hint = f": it is now {now}"
            raise InputError(f"{where}: unknown setting {name!r}{hint}")
        # A bool is an int in Python, and no number here; a whole number may stand for a real one.
        before = known[name]
        kinds: tuple[type, ...] = (float, int) if type(before) is float else (type(before),)
        fits = isinstance(value, kinds) and isinstance(value, bool) == isinstance(before, bool)
        if before is not None and not fits:
            raise InputError(
                f"{where}.{name} is {value!r}, expected "
                f"{type(before).__name__}{rename_hint(name, value)}"
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


def rename_hint(name: str, value: Any) -> str:
    """Return a hint for a value of a setting whose meaning has moved to another, or nothing.

    Args:
        name: name of the setting, without its section.
        value: the value that is refused.
    """
    was_length = name == "positions" and isinstance(value, int)
    if was_length:
        return " (the longest sequence is now max_positions)"
    return ""


def differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the settings in which two configs differ: dotted name and both values of each.

    Args:
        before: the one config, as plain values.
        now: the other, of the same class.
        name: dotted name of both; empty for a whole recipe.
    """
    if not (isinstance(before, dict) and isinstance(now, dict)):
        if before != now:
            yield name, before, now
        return
    for key in {**before, **now}:
        inner = f"{name}.{key}".lstrip(".")
        yield from differences(before.get(key), now.get(key), inner)


def first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Find the first setting in which two configs differ: its dotted name and both values.

    Args:
        before: the one config, as plain values.
        now: the other, of the same class.
        name: dotted name of both, for messages; empty for a whole recipe.
    """
    return next(differences(before, now, name), None)
