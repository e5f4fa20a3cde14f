"""Reading a recipe: one YAML file plus dotted overrides becomes a `Config`, or one line says what
is wrong.

`load(path, ["--data.seq_len", "64"])` reads it, applies the overrides, and checks names and types.
jsonargparse does the
reading: it takes plain dataclasses as they are.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from kdjax.config import Config, ModelSpec, TokenizerConfig, new_name, plain, to_dict
from kdjax.errors import InputError, nearest

set_parsing_settings(docstring_parse_attribute_docstrings=True)


@functools.cache
def parser() -> ArgumentParser:
    """The parser of a recipe's settings."""
    made = ArgumentParser(prog="kdjax", exit_on_error=False, add_help=False)
    made.add_class_arguments(Config)
    made.add_argument("--config", action="config", help="The recipe.")
    return made


def help_text() -> str:
    """Every setting with its type, default and meaning, by its dotted name."""
    lines = ["settings, in the recipe or on the command line as --SETTING VALUE:"]
    for name, kind, default, meaning in _settings(Config, Config(), ""):
        given = "" if default is dataclasses.MISSING else f" = {default!r}"
        lines += [
            "",
            f"  {name}: {kind}{given}",
            *textwrap.wrap(meaning, 100, initial_indent="      ", subsequent_indent="      "),
        ]
    return "\n".join(lines)


def _settings(cls: Any, instance: Any, prefix: str) -> Iterator[tuple[str, str, Any, str]]:
    """(dotted name, type, default, meaning) of every setting below a dataclass."""
    meanings = {
        found.arg_name: " ".join((found.description or "").split())
        for base in reversed(cls.__mro__[:-1])
        for found in docstring_parser.parse_from_object(base).params
    }
    hints = get_type_hints(cls)
    for f in dataclasses.fields(cls):
        hint = hints[f.name]
        default = getattr(instance, f.name, dataclasses.MISSING)
        inner = next((arg for arg in get_args(hint) if dataclasses.is_dataclass(arg)), None)
        if dataclasses.is_dataclass(hint):
            yield from _settings(hint, default, f"{prefix}{f.name}.")
            continue
        kind = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
        yield (
            f"{prefix}{f.name}",
            re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", kind),
            default,
            meanings.get(f.name, ""),
        )
        if inner is not None:
            among = {dict: ".NAME", tuple: ".N"}.get(get_origin(hint), "")
            yield from _settings(inner, inner, f"{prefix}{f.name}{among}.")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a recipe.

    Args:
        path: a YAML file.
        overrides: dotted overrides as on a command line, for instance `["--data.seq_len", "64"]`.

    Raises:
        InputError: no such file, not YAML, an unknown key or a value of the wrong type; names the
            nearest valid key.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise InputError(f"{path}: not a readable YAML recipe: {e}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: expected a mapping of settings, found {type(raw).__name__}")
    _check_keys(raw, Config, str(path), ())
    _check_overrides(overrides)
    try:
        namespace = parser().parse_args(["--config", str(path), *overrides])
        namespace.pop("config", None)
        instance = parser().instantiate(namespace)
    except InputError:
        raise
    # argparse's, jsonargparse's and the dataclasses' own complaints: all about the user's values
    except Exception as e:
        if isinstance(e.__cause__, InputError):
            raise e.__cause__ from None
        where = " ".join([str(path), *overrides])
        raise InputError(f"{where}: {_one_line(str(e))}") from None
    return Config(**dict(instance.items()))


def from_dict(values: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict` after a trip through JSON or YAML."""
    namespace = parser().parse_object(copy.deepcopy(dict(values)))  # it changes what it is given
    namespace.pop("config", None)
    return Config(**dict(parser().instantiate(namespace).items()))


def dump(config: Config) -> str:
    """The resolved config as YAML that `load` reads back to an equal one."""
    return yaml.safe_dump(plain(to_dict(config)), sort_keys=False, allow_unicode=True)


_READABLE = (
    (r"<class '(?:\w+\.)*(\w+)'>", r"\1"),
    (r"typing\.|Parser key ", ""),
    (r"\"([\w.]+)\": Problem with given class_path '[\w.]+': ", r"\1."),
    (r"- Problem with given class_path '[\w.]+': ", ""),
    (
        r"Does not validate against any of the Union subtypes Subtypes: \[([\w, ]+)\] Errors:",
        r"expected one of \1:",
    ),
    (r" - Expected a (?:float|NoneType)\b", ""),
    (r" - Expected a dot import path string:", " got"),
    (r" Given value type: .*$", ""),
    (r"\"(\w[\w.]*)\": ", r"\1: "),
    (
        r"(\.positions: Expected .* Got value: \d+)$",
        r"\1 (the longest sequence is now max_positions)",
    ),
)
"""What jsonargparse says of nested dataclasses, and how a user would say it."""


def _one_line(message: str) -> str:
    line = " ".join(message.split())
    for pattern, plainly in _READABLE:
        line = re.sub(pattern, plainly, line)
    return line


def _fields_of(hint: Any) -> dict[str, Any] | None:
    """The settings below a dataclass, or below one that may also be None or a plain number."""
    found = next(
        (one for one in (hint, *_alternatives(hint)) if dataclasses.is_dataclass(one)), None
    )
    return get_type_hints(found) if found is not None else None


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else ()


def _check_keys(raw: Any, hint: Any, where: str, path: tuple[str, ...]) -> None:
    """Raises for the first key the dataclasses do not have, with the nearest one they have."""
    known = _fields_of(hint)
    if known is not None:
        if not isinstance(raw, dict):
            return
        for key, value in raw.items():
            if key not in known:
                name = ".".join((*path, str(key)))
                now = new_name(name, known)
                hint = f": it is now '{now}'" if now else nearest(str(key), known)
                raise InputError(f"{where}: unknown setting '{name}'{hint}")
            _check_keys(value, known[key], where, (*path, str(key)))
    elif get_origin(hint) is dict and isinstance(raw, dict):
        for key, value in raw.items():
            _check_keys(value, get_args(hint)[1], where, (*path, str(key)))
    elif get_origin(hint) is tuple and isinstance(raw, list):
        for n, value in enumerate(raw):
            _check_keys(value, get_args(hint)[0], where, (*path, str(n)))


def _check_overrides(overrides: Sequence[str]) -> None:
    for name in _override_names(overrides):
        hint: Any = Config
        parts = name.split(".")
        for n, part in enumerate(parts):
            known = _fields_of(hint)
            if known is not None:
                if part not in known:
                    if now := new_name(name, known):
                        raise InputError(
                            f"command line: unknown setting '--{name}': it is now '--{now}'"
                        )
                    shown = ".".join(
                        [
                            *parts[:n],
                            difflib.get_close_matches(part, list(known), n=1, cutoff=0.0)[0],
                        ]
                    )
                    raise InputError(
                        f"command line: unknown setting '--{name}' (did you mean '--{shown}'?)"
                    )
                hint = known[part]
            elif get_origin(hint) is dict:
                hint = get_args(hint)[1]
            else:
                break


def _override_names(overrides: Sequence[str]) -> Iterator[str]:
    for word in overrides:
        if word.startswith("--"):
            yield word[2:].split("=")[0].removesuffix("+")


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """A recipe with some of its settings replaced, by their dotted names.

    Raises:
        InputError: there is no such setting, or a value of another type or out of range.
    """
    _check_overrides([f"--{name}" for name in settings])
    values = to_dict(config)
    if any(name.startswith("data.tokenizer") for name in settings):
        _free_vocabulary(config, values)
    for name, value in settings.items():
        *path, last = name.split(".")
        inner = values
        for part in path:
            if not isinstance(inner[part], dict):  # a path, where a tokenizer shall be trained
                inner[part] = {}
            inner = inner[part]
        inner[last] = value
    try:
        return from_dict(plain(values))
    except Exception as e:
        if isinstance(e, InputError):
            raise
        if isinstance(e.__cause__, InputError):
            raise e.__cause__ from None
        where = ", ".join(f"{name} {value!r}" for name, value in settings.items())
        raise InputError(f"{where}: {_one_line(str(e))}") from None


def _free_vocabulary(config: Config, values: dict[str, Any]) -> None:
    """Set the models' vocabulary sizes back to the default where they follow from the tokenizer
    that is trained.

    Args:
        config: the recipe.
        values: its settings as plain values; changed in place.
    """
    if isinstance(config.data.tokenizer, TokenizerConfig):
        for model in (values["student"], values["teacher"]["architecture"]):
            model["vocab_size"] = ModelSpec().vocab_size
