"""Settings by their names: those of a recipe and of a command line, and the nearest valid one where
a name is none."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from kdjax.config import Config, new_name
from kdjax.errors import InputError, nearest
from kdjax.recipes import strict_yaml


def check_keys(raw: Any, hint: Any, source: str, path: tuple[str, ...]) -> None:
    """Check that the dataclasses have every key of a recipe.

    Args:
        raw: the recipe, or what a key of it holds.
        hint: type of what `raw` is.
        source: the recipe's file, for messages.
        path: the keys that lead to `raw`.

    Raises:
        InputError: a key is unknown, and the nearest one that is known is named; or nothing stands
            where settings should.
    """
    fields = _fields_of(hint)
    if fields is not None:
        if not isinstance(raw, dict):
            # One of several alternatives may be no mapping.
            if dataclasses.is_dataclass(hint):
                raise InputError(
                    f"{source}: '{'.'.join(path)}' is {raw!r:.80}, expected a mapping of settings, "
                    "{} where none is set"
                )
            return
    elif raw is None and get_origin(hint) in (dict, tuple):
        raise InputError(f"{source}: '{'.'.join(path)}' is null, expected values, or no such line")

    for key, value in _members(raw, hint):
        below = (*path, str(key))
        kind = _type_below(hint, key)
        if kind is None and fields is not None:
            name = ".".join(below)
            advice = nearest(str(key), fields)
            if now := new_name(name, fields):
                advice = f": it is now '{now}'"
            raise InputError(f"{source}: unknown setting '{name}'{advice}")
        check_keys(value, kind, source, below)


def check_override_names(names: Iterable[str]) -> None:
    """Check that the dataclasses have every overridden setting.

    Args:
        names: dotted names.

    Raises:
        InputError: a setting is unknown; names the nearest one that is known.
    """
    for name in names:
        hint: Any = Config
        parts = name.split(".")
        for number, part in enumerate(parts):
            # A tuple's members have no names on the command line: the parser says so.
            if get_origin(hint) is tuple:
                break
            fields = _fields_of(hint)
            hint = _type_below(hint, part)
            if hint is None and fields is not None:
                now = new_name(name, fields)
                advice = f": it is now '--{now}'"
                if not now:
                    close = difflib.get_close_matches(part, list(fields), n=1, cutoff=0.0)
                    suggestion = ".".join([*parts[:number], close[0]])
                    advice = f" (did you mean '--{suggestion}'?)"
                raise InputError(f"command line: unknown setting '--{name}'{advice}")


def check_override_values(overrides: Sequence[str]) -> None:
    """Check that the YAML of every override is what a recipe's file may hold there: no key twice,
    and something where settings should be.

    Args:
        overrides: words of a command line, for instance `["--data.seq_len", "64"]`, of settings
            that there are.

    Raises:
        InputError: one is not; names its setting.
    """
    for name, text in override_pairs(overrides):
        try:
            value = strict_yaml.load(text)
        except yaml.YAMLError:  # text that is no YAML: a glob
            continue
        except InputError as e:
            raise InputError(f"command line: --{name} {text!r:.80}: {e}") from None
        hint: Any = Config
        for part in name.removesuffix("+").split("."):
            hint = _type_below(hint, part)
        holds_settings = dataclasses.is_dataclass(hint) or get_origin(hint) in (dict, tuple)
        if value is None and holds_settings:
            raise InputError(f"command line: --{name} is null, expected values, or no such option")


def with_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any] | None:
    """Return a recipe's values with overrides in place of what they replace.

    Args:
        raw: values as YAML gives them; they are not changed.
        overrides: dotted overrides as on a command line, of settings that there are.

    Returns:
        The values; None where an override adds to a list, or to a mapping whose other members stay.
    """
    values = copy.deepcopy(raw)
    for name, text in override_pairs(overrides):
        # The section that has the setting, and the setting's type
        *path, last = name.split(".")
        section: Any = values
        hint: Any = Config
        for part in path:
            hint = _type_below(hint, part)
            if not dataclasses.is_dataclass(hint):
                return None
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                return None
        hint = _type_below(hint, last)
        if last.endswith("+") or _fields_of(hint) is not None:
            return None

        # Its value is YAML, unless the setting is text.
        value: Any = text
        if hint is not str:
            with suppress(yaml.YAMLError):
                value = strict_yaml.load(text)
        if isinstance(value, dict):
            return None
        section[last] = value
    return values


def override_pairs(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the text of each override."""
    words = iter(overrides)
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            text = next(words, "")
        yield name.removeprefix("--"), text


def override_names(overrides: Sequence[str]) -> Iterator[str]:
    """Yield the dotted names of overrides as they stand on a command line."""
    for word in overrides:
        if word.startswith("--"):
            yield word[2:].split("=")[0].removesuffix("+")


def _fields_of(hint: Any) -> dict[str, Any] | None:
    """Return the settings of a dataclass, which may be one alternative of a type; else None."""
    alternatives = [hint]
    if get_origin(hint) in (types.UnionType, typing.Union):
        alternatives += get_args(hint)
    for alternative in alternatives:
        if isinstance(alternative, type) and dataclasses.is_dataclass(alternative):
            return _hints(alternative)
    return None


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """Return the types of a dataclass's settings by name; to resolve them takes long."""
    return get_type_hints(cls)


def _type_below(hint: Any, key: str) -> Any:
    """Return the type of what a key holds; None: there is no such setting.

    The checks of a recipe's keys and of overrides both walk down by it.

    Args:
        hint: type of what has the key.
        key: name of a setting or of a member of a mapping, or a number in a tuple.
    """
    fields = _fields_of(hint)
    if fields is not None:
        return fields.get(key)
    if get_origin(hint) is dict:
        return get_args(hint)[1]
    if get_origin(hint) is tuple:
        return get_args(hint)[0]
    return Any


def _members(raw: Any, hint: Any) -> Iterable[tuple[Any, Any]]:
    """Return the values below a part of a recipe, by key or number; nothing of another form.

    Args:
        raw: the part, as YAML gives it.
        hint: the type that it should have.
    """
    if isinstance(raw, dict) and (_fields_of(hint) is not None or get_origin(hint) is dict):
        return raw.items()
    if isinstance(raw, list) and get_origin(hint) is tuple:
        return enumerate(raw)
    return ()
