"""Frozen dataclasses to JSON and back, every field checked on the way.

A field that is missing, mistyped or unknown is bad input, said in one line with the file's name and
the field's. Numbers are kept as they are written (an integer stays one where a float is expected),
so what is read and written again is the same file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from kdjax.errors import InputError
from kdjax.storage.files import read_json

T = TypeVar("T")

OPTIONAL = "optional"
"""In a field's metadata: it is written only where there is a value."""


LATER = "later"
"""In a field's metadata: files of earlier versions do not have it, and it is written only where it
is not its default, which is what was so before."""


REST = "rest"
"""In a field's metadata: it takes every key that no other field has."""


STORED_AS = "stored_as"
"""In a field's metadata: its key in files, where that is another than its name in the code."""


STORED_WORDS = "stored_words"
"""In a field's metadata: value -> the word that files have for it."""


def is_left_out(field: Field[Any], content: Any) -> bool:
    """Return whether a field's value is not written: a later field that is at its default."""
    if LATER not in field.metadata:
        return False
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return bool(content == default)


def stored_words(words: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """Return the metadata of a field whose values files have under other words.

    Args:
        words: value in the code -> its word in files, for every value that the field may have.
    """
    return {STORED_WORDS: words}


def stored_as(key: str) -> dict[str, str]:
    """Return the metadata of a field that files have under another key."""
    return {STORED_AS: key}


def optional(key: str | None = None) -> Any:
    """Return a field that is None where the file does not have its key.

    Args:
        key: key of the field in files; None: its name.
    """
    metadata: dict[str, Any] = {OPTIONAL: True}
    if key is not None:
        metadata |= stored_as(key)
    return field(default=None, metadata=metadata)


def rest() -> Any:
    """Return a field for all keys that the type does not name."""
    return field(default_factory=dict, metadata={REST: True})


def to_plain(value: Any) -> Any:
    """Convert a tree of dataclasses, mappings and sequences to plain values for JSON."""
    if is_dataclass(value):
        plain: dict[str, Any] = {}
        for field in fields(value):
            content = getattr(value, field.name)
            if STORED_WORDS in field.metadata:
                content = field.metadata[STORED_WORDS][content]
            if is_left_out(field, content):
                continue
            # Keys that no field has a name for lie beside those of the fields.
            if REST in field.metadata:
                plain |= to_plain(content)
            elif content is not None or OPTIONAL not in field.metadata:
                plain[_key(field)] = to_plain(content)
        return plain
    # Keys of mappings are names already; of tuples JSON makes lists.
    if isinstance(value, dict):
        return {key: to_plain(content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(content) for content in value]
    return value


def from_plain(kind: type[T], value: Any, where: str) -> T:
    """Read plain values as an instance of a type, checked all the way down.

    Args:
        kind: a dataclass, or a type that a field of one may have: `int`, `float`, `str`, `bool`,
            `None`, `Any`, a union, a `Literal`, `dict[str, ...]` or `tuple[..., ...]`.
        value: plain value, as JSON gives it.
        where: the file and the field, for messages: `results.json: runs[0].seed`. A file alone ends
            in a colon.

    Raises:
        InputError: a field is missing, mistyped or unknown.
    """
    result: T = _read(kind, value, where)
    return result


def read_typed(kind: type[T], path: Path) -> T:
    """Read a JSON file as an instance of a type, checked all the way down.

    Args:
        kind: a type, as for `from_plain`.
        path: path of the file.

    Raises:
        InputError: the file is not whole JSON, or a field in it is missing, mistyped or unknown.
    """
    return from_plain(kind, read_json(path), f"{path}:")


def read_version(kind: type[T], path: Path, version: int) -> T | None:
    """Read a JSON file of one version as an instance of a type; None where it is of another.

    Args:
        kind: a type with a field `version`, as for `from_plain`.
        path: path of the file.
        version: version that is read; another one may have other fields.

    Raises:
        InputError: the file is not whole JSON, or a field in it is missing, mistyped or unknown.
    """
    stored = check_fields(read_json(path), {"version": int}, f"{path}:")
    if stored["version"] != version:
        return None
    return from_plain(kind, stored, f"{path}:")


def check_fields(values: Any, kinds: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check some fields of a JSON object that no dataclass describes; the others may be anything.

    Args:
        values: plain value, as JSON gives it.
        kinds: names of the fields that must be there, and the type of each, as for `from_plain`.
        where: the file and the field, for messages, as for `from_plain`.

    Returns:
        The object, as it is.

    Raises:
        InputError: it is no object, or one of the fields is missing or mistyped.
    """
    content = from_plain(dict[str, Any], values, where)
    for name, kind in kinds.items():
        place = _below(where, name)
        if name not in content:
            raise InputError(f"{place} is missing, expected {_name(kind)}")
        _read(kind, content[name], place)
    return content


def _read(kind: Any, value: Any, where: str) -> Any:
    """Read plain values as `from_plain` does, of a kind that need not be a class."""
    # A union is read as the first of its types that fits.
    if get_origin(kind) in (Union, UnionType):
        # What fits none of the types is an error of the last one, which is not None.
        fitting = (alternative for alternative in get_args(kind) if _fits(alternative, value))
        kind = next(fitting, [k for k in get_args(kind) if k is not NoneType][-1])
    # A mapping that does not fit its dataclass is read all the same: that names the field.
    if is_dataclass(kind) and isinstance(value, dict):
        return _read_dataclass(kind, value, where)
    if not _fits(kind, value):
        raise InputError(f"{where} is {_shortened(value)}, expected {_name(kind)}")
    if kind is Any:
        _check_finite(value, where)

    # Members are read in turn, each under a name of its own for messages.
    if get_origin(kind) is dict:
        _, kind = get_args(kind)
        return {key: _read(kind, item, _below(where, key)) for key, item in value.items()}
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
        return tuple(_read(kind, item, f"{where}[{n}]") for n, item in enumerate(value))
    return value


def _read_dataclass(kind: Any, values: dict[str, Any], where: str) -> Any:
    """Read a mapping as an instance of a dataclass."""
    by_name, rest = _fields(kind)
    hints = _hints(kind)
    known: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for name, value in values.items():
        if name in by_name:
            field = by_name[name]
            content = value
            if STORED_WORDS in field.metadata:
                content = _value_of_word(field.metadata[STORED_WORDS], value, _below(where, name))
            known[field.name] = _read(hints[field.name], content, _below(where, name))
        else:
            unknown[name] = value
    # What is missing is said first: a field under another name is both.
    missing = _required(by_name) - values.keys()
    if missing:
        name = min(missing)
        kind_of_field = _name(hints[by_name[name].name])
        raise InputError(f"{_below(where, name)} is missing, expected {kind_of_field}")
    if rest is not None:
        known[rest.name] = unknown
    elif unknown:
        name = next(iter(unknown))
        raise InputError(f"{_below(where, name)} is unknown, expected {', '.join(by_name)}")
    return kind(**known)


def _value_of_word(words: Mapping[str, str], word: Any, where: str) -> str:
    """Return the value that a file has a word for."""
    for value, stored in words.items():
        if stored == word:
            return value
    raise InputError(f"{where} is {_shortened(word)}, expected {', '.join(words.values())}")


def _fits(kind: Any, value: Any) -> bool:
    """Return whether a value has the outer form of a type that is no union.

    A mapping fits a dataclass that knows every field there is and misses none. Every integer is a
    float, no bool is a number, and a float is finite.
    """
    origin = get_origin(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        by_name, rest = _fields(kind)
        if not isinstance(value, dict) or not _required(by_name) <= value.keys():
            return False
        return rest is not None or value.keys() <= by_name.keys()
    if origin is Literal:
        return value in get_args(kind)
    # In Python a bool is an int.
    if isinstance(value, bool):
        return kind in (bool, Any)
    forms: dict[Any, Any] = {dict: dict, tuple: (list, tuple), float: (int, float), Any: object}
    if not isinstance(value, forms.get(origin or kind, kind)):
        return False
    # Nothing that kdjax writes is NaN or infinite.
    return kind is Any or not isinstance(value, float) or math.isfinite(value)


def _check_finite(value: Any, where: str) -> None:
    """Check the numbers of a tree that no type describes.

    Raises:
        InputError: one of them is not finite.
    """
    members: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        members = ((_below(where, key), item) for key, item in value.items())
    elif isinstance(value, list):
        members = ((f"{where}[{number}]", item) for number, item in enumerate(value))
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} is {value}, expected a finite number")
    for name, member in members:
        _check_finite(member, name)


@functools.cache
def _fields(kind: Any) -> tuple[dict[str, Field[Any]], Field[Any] | None]:
    """Return a dataclass's fields by key, and apart from them its `rest` field, if any."""
    named = {_key(field): field for field in fields(kind)}
    rest = next((field for field in named.values() if REST in field.metadata), None)
    if rest is not None:
        del named[rest.name]
    return named, rest


def _key(field: Field[Any]) -> str:
    """Return the key that a field has in files."""
    key: str = field.metadata.get(STORED_AS, field.name)
    return key


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields."""
    return get_type_hints(kind)


def _required(by_name: dict[str, Field[Any]]) -> set[str]:
    """Return the keys of fields without a default."""
    return {
        name
        for name, field in by_name.items()
        if field.default is MISSING and field.default_factory is MISSING
    }


def _below(where: str, name: str) -> str:
    """Return the name of a field for messages: within a file, or within another field."""
    if where.endswith(":"):
        return f"{where} {name}"
    return f"{where}.{name}"


def _shortened(value: Any) -> str:
    """Return a value for a message, cut short."""
    return f"{value!r:.60}"


def _name(kind: Any) -> str:
    """Return a type for a message."""
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__
    return str(kind)
