"""Reading a recipe: a YAML file plus dotted overrides becomes a `Config`, or a line says why not.

`load(path, ["--data.seq_len", "64"])` reads it, applies the overrides, and checks names and types.
jsonargparse does the reading: it takes plain dataclasses as they are.
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from jsonargparse import ArgumentParser, Namespace, set_loader, set_parsing_settings

from kdjax import strict_yaml
from kdjax.config import (
    Config,
    ModelSpec,
    OptimizerConfig,
    TokenizerConfig,
    new_name,
    plain,
    predictions,
    to_dict,
)
from kdjax.errors import InputError, nearest
from kdjax.storage.paths import local_path

set_parsing_settings(docstring_parse_attribute_docstrings=True)
# A recipe and the values of overrides are YAML of the same kind.
set_loader(strict_yaml.MODE, strict_yaml.load, (yaml.YAMLError,))


@functools.cache
def parser() -> ArgumentParser:
    """Build the parser of a recipe's settings."""
    recipe_parser = ArgumentParser(
        prog="kdjax", exit_on_error=False, add_help=False, parser_mode=strict_yaml.MODE
    )
    recipe_parser.add_class_arguments(Config)
    # Not the number that follows from the other defaults: a recipe may set those alone.
    recipe_parser.set_defaults({"data.max_predictions": 0})
    recipe_parser.add_argument("--config", action="config", help="The recipe.")
    return recipe_parser


def help_text() -> str:
    """Return every setting with its type, default and meaning, by its dotted name."""
    lines = ["settings, in the recipe or on the command line as --SETTING VALUE:"]
    for name, kind, default, meaning in _settings(Config, Config(), ""):
        line = f"  {name}: {kind}"
        if default is not dataclasses.MISSING:
            line += f" = {default!r}"
        lines += ["", line]
        lines += textwrap.wrap(meaning, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


_PLACEHOLDERS = {dict: ".NAME", tuple: ".N"}
"""How the help names the members of settings that hold several of a dataclass."""


def _settings(cls: Any, instance: Any, prefix: str) -> Iterator[tuple[str, str, Any, str]]:
    """Yield (dotted name, type, default, meaning) of every setting below a dataclass.

    Args:
        cls: dataclass of settings.
        instance: an instance with the defaults; the class itself where there are none.
        prefix: beginning of the dotted names.
    """
    meanings = _meanings(cls)
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name = f"{prefix}{field.name}"
        hint = hints[field.name]
        # Below a mapping or a tuple there are no defaults, only what each member may have.
        default = getattr(instance, field.name, dataclasses.MISSING)
        if dataclasses.is_dataclass(hint):
            yield from _settings(hint, default, f"{name}.")
            continue
        kind = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
        kind = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", kind)  # without modules' names
        yield name, kind, default, meanings.get(field.name, "")
        # A dataclass among the type's arguments has settings of its own.
        inner = next(filter(dataclasses.is_dataclass, get_args(hint)), None)
        if inner is not None:
            yield from _settings(inner, inner, name + _PLACEHOLDERS.get(get_origin(hint), "") + ".")


def _meanings(cls: Any) -> dict[str, str]:
    """Return what each setting of a dataclass means, by its docstrings and those of its bases."""
    meanings = {}
    for base in reversed(cls.__mro__[:-1]):
        for param in docstring_parser.parse_from_object(base).params:
            meanings[param.arg_name] = " ".join((param.description or "").split())
    return meanings


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe.

    Args:
        path: path of a YAML file.
        overrides: dotted overrides as on a command line, for instance `["--data.seq_len", "64"]`.

    Raises:
        InputError: no such file, not YAML, an unknown key or a value of the wrong type; names the
            nearest valid key.
    """
    # Keys are checked first: the parser does not say which one is near.
    path = local_path(path, "the recipe")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a file, expected a YAML recipe")
    try:
        raw = strict_yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise InputError(f"{path}: not a readable YAML recipe: {e}") from None
    except InputError as e:
        raise InputError(f"{path}: {e}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: expected a mapping of settings, found {type(raw).__name__}")
    _check_keys(raw, Config, str(path), ())
    _check_overrides(_override_names(overrides))
    _check_override_values(overrides)
    with _one_line_errors(" ".join([str(path), *overrides])):
        return _instantiate(parser().parse_args(["--config", str(path), *overrides]))


def from_dict(values: Mapping[str, Any]) -> Config:
    """Invert `to_dict`, after a trip through JSON or YAML."""
    return _instantiate(parser().parse_object(copy.deepcopy(dict(values))))  # it changes them


_IN_SEVERAL_PLACES = {
    "student": ModelSpec,
    "teacher.architecture": ModelSpec,
    "train.optimizer": OptimizerConfig,
    "teacher.train.optimizer": OptimizerConfig,
    "teacher.head.optimizer": OptimizerConfig,
}
"""Sections whose settings cannot say themselves where in a recipe they stand."""


def _instantiate(namespace: Namespace) -> Config:
    """Make the config of parsed settings.

    Raises:
        InputError: a value is out of range.
    """
    namespace.pop("config", None)
    # Before all else, as the message needs the section's name.
    for name, section in _IN_SEVERAL_PLACES.items():
        try:
            section(**namespace[name].as_dict())
        except InputError as e:
            raise InputError(f"{name}: {e}") from None
    return Config(**dict(parser().instantiate(namespace).items()))


@contextmanager
def _one_line_errors(source: str) -> Iterator[None]:
    """Turn the errors of argparse, jsonargparse and the dataclasses in the block into InputErrors.

    All are about the user's values.

    Args:
        source: origin of the values, for messages.

    Raises:
        InputError: the error that the block raised, on one line.
    """
    try:
        yield
    except InputError:
        raise
    # A dataclass's own complaint is wrapped by jsonargparse, and says more than the wrapper.
    except Exception as e:
        if isinstance(e.__cause__, InputError):
            raise e.__cause__ from None
        raise InputError(f"{source}: {_one_line(str(e))}") from None


def dump(config: Config) -> str:
    """Return the resolved config as YAML, which `load` reads back to an equal one."""
    return yaml.safe_dump(plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True)


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
"""What jsonargparse says of nested dataclasses, and how a user would say it.

Its errors are text alone: neither the setting nor what was found or expected is a field of them.
"""


def _one_line(message: str) -> str:
    """Return a message of jsonargparse on one line, as a user would say it."""
    line = " ".join(message.split())
    for pattern, replacement in _READABLE:
        line = re.sub(pattern, replacement, line)
    return line


def _fields_of(hint: Any) -> dict[str, Any] | None:
    """Return the settings of a dataclass, which may be one alternative of a type; else None."""
    alternatives = [hint]
    if get_origin(hint) in (types.UnionType, typing.Union):
        alternatives += get_args(hint)
    for alternative in alternatives:
        if dataclasses.is_dataclass(alternative):
            return get_type_hints(alternative)
    return None


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


def _check_keys(raw: Any, hint: Any, source: str, path: tuple[str, ...]) -> None:
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
        _check_keys(value, kind, source, below)


def _members(raw: Any, hint: Any) -> Iterable[tuple[Any, Any]]:
    """Return what stands below a part of a recipe, by key or number; nothing of another form.

    Args:
        raw: the part, as YAML gives it.
        hint: the type that it should have.
    """
    if isinstance(raw, dict) and (_fields_of(hint) is not None or get_origin(hint) is dict):
        return raw.items()
    if isinstance(raw, list) and get_origin(hint) is tuple:
        return enumerate(raw)
    return ()


def _check_overrides(names: Iterable[str]) -> None:
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


def _check_override_values(overrides: Sequence[str]) -> None:
    """Check that no override says two things, as `_check_keys` has it for a recipe.

    Raises:
        InputError: one does; names its setting.
    """
    words = iter(overrides)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            value = next(words, "")
        try:
            strict_yaml.load(value)
        except yaml.YAMLError:  # text that is no YAML: a glob
            continue
        except InputError as e:
            raise InputError(f"command line: {name} {value!r:.80}: {e}") from None


def _override_names(overrides: Sequence[str]) -> Iterator[str]:
    """Yield the dotted names of overrides as they stand on a command line."""
    for word in overrides:
        if word.startswith("--"):
            yield word[2:].split("=")[0].removesuffix("+")


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return a recipe with some of its settings replaced, by their dotted names.

    Raises:
        InputError: there is no such setting, or a value of another type or out of range.
    """
    _check_overrides(settings)
    values = to_dict(config)
    # A trained tokenizer's size is also the models'; they take it anew.
    if any(name.startswith("data.tokenizer") for name in settings):
        _free_vocabulary(config, values)
    _free_predictions(config, values, settings)
    for name, value in settings.items():
        *path, last = name.split(".")
        inner = values
        for part in path:
            if not isinstance(inner[part], dict):  # a path, where a tokenizer shall be trained
                inner[part] = {}
            inner = inner[part]
        inner[last] = value
    with _one_line_errors(", ".join(f"{name} {value!r}" for name, value in settings.items())):
        return from_dict(plain(values))


def _free_predictions(config: Config, values: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Reset `data.max_predictions` where it follows from settings that are replaced.

    Args:
        config: the recipe.
        values: settings of the recipe as plain values; changed in place.
        settings: what is replaced, by dotted names.
    """
    data = config.data
    following = predictions(data.seq_len, data.highest_mlm_probability)
    decisive = {"data.seq_len", "data.mlm_probability", "data.mlm_probability_start"}
    replaced = decisive & settings.keys()
    if replaced and data.max_predictions == following:
        values["data"]["max_predictions"] = 0


def _free_vocabulary(config: Config, values: dict[str, Any]) -> None:
    """Reset the models' vocabulary sizes where they follow from the tokenizer that is trained.

    Args:
        config: recipe as it was read; it is not changed.
        values: settings of the recipe as plain values; changed in place.
    """
    if isinstance(config.data.tokenizer, TokenizerConfig):
        for model in (values["student"], values["teacher"]["architecture"]):
            model["vocab_size"] = ModelSpec().vocab_size
