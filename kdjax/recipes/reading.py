"""Reading a recipe: a YAML file plus dotted overrides becomes a `Config`, or a line says why not.

`load(path, ["--data.seq_len", "64"])` reads it, applies the overrides, and checks names and types.
Values that are plainly of their settings' types are taken by msgspec, which is a hundred times as
quick. jsonargparse takes other overrides, converts other values, and says what is wrong.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml
from jsonargparse import ArgumentParser, Namespace, set_loader, set_parsing_settings

from kdjax.config import (
    Config,
    ModelSpec,
    OptimizerConfig,
    TeacherConfig,
    TokenizerConfig,
    plain,
    predictions,
    to_dict,
)
from kdjax.config.model import with_family_settings
from kdjax.errors import InputError
from kdjax.recipes import strict_yaml
from kdjax.recipes.dropped_arms import drop_arms, take_dropped_arms
from kdjax.recipes.keys import (
    check_keys,
    check_override_names,
    check_override_values,
    override_names,
    with_overrides,
)
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
    except OSError as e:
        raise InputError(f"{path}: {e.strerror or e}, expected a YAML recipe") from None
    except (UnicodeDecodeError, yaml.YAMLError) as e:
        raise InputError(f"{path}: not a readable YAML recipe: {e}") from None
    except InputError as e:
        raise InputError(f"{path}: {e}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: expected a mapping of settings, found {type(raw).__name__}")
    check_keys(raw, Config, str(path), ())
    dropped, overrides = take_dropped_arms(overrides, raw.get("arms") or {})
    check_override_names(override_names(overrides))
    check_override_values(overrides)
    values = None if dropped else with_overrides(raw, overrides)
    config = None if values is None else take_plain_values(values)
    if config is not None:
        return config
    with _one_line_errors(" ".join([str(path), *overrides])):
        namespace = parser().parse_args(["--config", str(path), *overrides])
        drop_arms(namespace, dropped)
        return _instantiate(namespace)


def from_dict(values: Mapping[str, Any]) -> Config:
    """Invert `to_dict`, after a trip through JSON or YAML.

    Args:
        values: settings by name, nested as the recipe's are.

    Raises:
        InputError: a value is of another type or out of range.
    """
    config = take_plain_values(values)
    if config is not None:
        return config
    return _instantiate(parser().parse_object(copy.deepcopy(dict(values))))  # it changes them


SECTIONS_WITH_OTHER_DEFAULTS = {
    ("teacher", "architecture"): TeacherConfig().architecture,
    ("teacher", "head", "optimizer"): TeacherConfig().head.optimizer,
}
"""Sections whose defaults are not those of their class, by their path. What a recipe leaves out of
them is added before the class is made."""


def take_plain_values(values: Mapping[str, Any]) -> Config | None:
    """Make the config of values that are plainly of their settings' types.

    Args:
        values: values by setting, as YAML or JSON gives them; they are not changed.

    Returns:
        The config; None where a value is of another type, which may be converted, or out of range.
    """
    complete = copy.deepcopy(dict(values))
    if any(not _is_plain_text(text) for text in _texts(complete)):
        return None
    for path, default in SECTIONS_WITH_OTHER_DEFAULTS.items():
        *parents, name = path
        section: Any = complete
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if isinstance(section, dict) and isinstance(section.get(name), dict):
            section[name] = {**to_dict(default), **section[name]}
    try:
        check_keys(complete, Config, "", ())
        return msgspec.convert(complete, Config)
    except (msgspec.ValidationError, InputError, RecursionError):
        return None


_LIKE_A_VALUE = re.compile(r"[-+.\d\[{]|(true|false|null|yes|no|on|off|y|n|~)$", re.IGNORECASE)
"""Beginnings of text that YAML may read as a number or the like."""


def _is_plain_text(text: str) -> bool:
    """Return whether YAML has nothing but text for a text. jsonargparse reads it as YAML where a
    setting may have any type."""
    if not _LIKE_A_VALUE.match(text):
        return True
    try:
        return isinstance(strict_yaml.load(text), str)
    except yaml.YAMLError:
        return True
    except InputError:
        return False


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a tree of plain values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _texts(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _texts(member)


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
    # A section that was given one value
    (r": Unable to load config '(.*?)' - .*$", r": Expected settings. Got value: \1"),
    # A setting that may be left open
    (
        r"Does not validate against any of the Union subtypes Subtypes: .*, NoneType\] Errors: "
        r"- (Expected a (?:int|float|bool|str|Literal\[[^\]]*\])) - Expected a NoneType "
        r"Given value type: .*? Given value: ",
        r"\1. Got value: ",
    ),
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


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return a recipe with some of its settings replaced, by their dotted names.

    Args:
        config: the recipe, which stays as it is.
        settings: dotted name of a setting -> its new value.

    Raises:
        InputError: there is no such setting, or a value of another type or out of range.
    """
    check_override_names(settings)
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
        models = [values["student"]]
        # One that reads tokens of its own has a vocabulary of its own.
        if not config.data.teacher_tokenizer:
            models.append(values["teacher"]["architecture"])
        for model in models:
            spec = ModelSpec(family=model["family"])
            model["vocab_size"] = with_family_settings(spec).vocab_size
