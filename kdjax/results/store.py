"""Reading and writing results: frozen dataclasses to JSON and back, every field checked on the way.

A field that is missing, mistyped or unknown is bad input, said in one line with the file's name and
the field's. Numbers are kept as they are written (an integer stays one where a float is expected),
so what is read and written again is the same file.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from kdjax.errors import InputError
from kdjax.files import read_json, write_json
from kdjax.results.arms import first_without_teacher
from kdjax.results.fields import OPTIONAL, REST
from kdjax.results.runs import RunResult
from kdjax.results.study import VERSION, Results

T = TypeVar("T")


def write_results(path: Path, results: Results) -> None:
    """Write results.json, whole or not at all.

    Args:
        path: the file to write.
        results: the results to write.
    """
    write_json(path, to_plain(results))


def run_result(content: Mapping[str, Any]) -> RunResult:
    """Read the content of a run's result.json.

    Args:
        content: plain values, as JSON gives them.

    Raises:
        InputError: a field is missing, mistyped or unknown.
    """
    name = f"{content.get('arm')}-seed{content.get('seed')}"
    return from_plain(RunResult, content, f"runs/{name}/result.json:")


def read_results(path: Path) -> Results:
    """Read results.json.

    Args:
        path: the file.

    Raises:
        InputError: no JSON, a version this kdjax does not know, or a field that is missing,
            mistyped or unknown.
    """
    return results_of(read_json(path), path)


def results_of(content: Any, path: Path) -> Results:
    """Read the content of a results.json, of this version or an earlier one.

    Args:
        content: plain values, as JSON gives them.
        path: the file, for messages.

    Raises:
        InputError: as `read_results`.
    """
    if not isinstance(content, dict):
        raise InputError(f"{path}: found {_shortened(content)}, expected the results of a study")
    # Fields that a later version renamed would read as missing ones: the version is told first.
    version = content.get("version", 1)
    if version not in (1, VERSION):
        raise InputError(
            f"{path}: version is {version!r}, expected at most {VERSION}; read it with the kdjax "
            f"that wrote it, {content.get('kdjax', 'a later one')}"
        )
    try:
        if version == 1:
            content = _second_version(content, path)
        return from_plain(Results, content, f"{path}:")
    except InputError as error:
        raise InputError(
            f"{error}; `kdjax compare` with the study's recipe writes the file anew from its runs"
        ) from None


def _second_version(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the content of a file of the first version with what the second adds."""
    arms = from_plain(dict[str, dict[str, Any]], content.get("arms"), f"{path}: arms")
    needs_teacher = {name: bool(arm.get("needs_teacher")) for name, arm in arms.items()}
    baseline = first_without_teacher(needs_teacher)
    return {"version": VERSION, "baseline_arm": baseline, **content}


def to_plain(value: Any) -> Any:
    """Convert a tree of dataclasses, mappings and sequences to plain values for JSON."""
    if is_dataclass(value):
        plain: dict[str, Any] = {}
        for field in fields(value):
            content = getattr(value, field.name)
            # Keys that no field has a name for lie beside those of the fields.
            if REST in field.metadata:
                plain |= to_plain(content)
            elif content is not None or OPTIONAL not in field.metadata:
                plain[field.name] = to_plain(content)
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


def _read(kind: Any, value: Any, where: str) -> Any:
    """Read plain values as `from_plain` does, of a kind that need not be a class."""
    # Of a union's types the first that fits is read.
    if get_origin(kind) in (Union, UnionType):
        # What fits none of the types is an error of the last one, which is not None.
        fitting = (alternative for alternative in get_args(kind) if _fits(alternative, value))
        kind = next(fitting, [k for k in get_args(kind) if k is not NoneType][-1])
    # A mapping that does not fit its dataclass is read all the same: that names the field.
    if is_dataclass(kind) and isinstance(value, dict):
        return _read_dataclass(kind, value, where)
    if not _fits(kind, value):
        raise InputError(f"{where} is {_shortened(value)}, expected {_name(kind)}")

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
            known[name] = _read(hints[name], value, _below(where, name))
        else:
            unknown[name] = value
    # What is missing is said first: a field under another name is both.
    missing = _required(by_name) - known.keys()
    if missing:
        name = min(missing)
        raise InputError(f"{_below(where, name)} is missing, expected {_name(hints[name])}")
    if rest is not None:
        known[rest.name] = unknown
    elif unknown:
        name = next(iter(unknown))
        raise InputError(f"{_below(where, name)} is unknown, expected {', '.join(by_name)}")
    return kind(**known)


def _fits(kind: Any, value: Any) -> bool:
    """Return whether a value has the outer form of a type that is no union.

    A mapping fits a dataclass that knows every field there is and misses none. Every integer is a
    float, and no bool is a number.
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
    return isinstance(value, forms.get(origin or kind, kind))


@functools.cache
def _fields(kind: Any) -> tuple[dict[str, Field[Any]], Field[Any] | None]:
    """Return a dataclass's fields by name, and apart from them its `rest` field, if any."""
    named = {field.name: field for field in fields(kind)}
    rest = next((field for field in named.values() if REST in field.metadata), None)
    if rest is not None:
        del named[rest.name]
    return named, rest


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields."""
    return get_type_hints(kind)


def _required(by_name: dict[str, Field[Any]]) -> set[str]:
    """Return the names of fields without a default."""
    return {
        name
        for name, field in by_name.items()
        if field.default is MISSING and field.default_factory is MISSING
    }


def _below(where: str, name: str) -> str:
    """Return the name of a field for messages: within a file, or within another field."""
    return f"{where} {name}" if where.endswith(":") else f"{where}.{name}"


def _shortened(value: Any) -> str:
    """Return a value for a message, cut short."""
    return f"{value!r:.60}"


def _name(kind: Any) -> str:
    """Return a type for a message."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
