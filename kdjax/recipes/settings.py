"""Every setting of a recipe: its name, type, default and meaning, from the dataclasses."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

import docstring_parser

from kdjax.config import Config, plain
from kdjax.errors import InputError, counted, nearest

PLACEHOLDERS = {dict: ".NAME", tuple: ".N"}
"""How names have the members of settings that hold several of a dataclass."""


@dataclass(frozen=True)
class Setting:
    """A setting of a recipe.

    Attributes:
        name: dotted name; NAME and N stand for a key and a number that the recipe gives.
        kind: type, as a user would write it.
        default: default as JSON, which is YAML, too; empty: there is none.
        meaning: what it is, with the range of numbers.
        choices: the values it may have; empty: others, too.
    """

    name: str
    kind: str
    default: str
    meaning: str
    choices: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Return the first sentence of its meaning, without its end."""
        return re.split(r"[.;](?:\s|$)", self.meaning, maxsplit=1)[0]

    def line(self, width: int | None) -> str:
        """Return name, type, default and summary on one line.

        Args:
            width: most columns of the line, which is cut there; None: any number.
        """
        line = f"{self.head()}  {self.summary}"
        if width is None or len(line) <= width:
            return line
        return f"{line[: width - 1]}…"

    def head(self) -> str:
        """Return name, type and default."""
        default = f" = {self.default}" if self.default else ""
        return f"{self.name}: {self.kind}{default}"

    def paragraph(self, width: int) -> str:
        """Return all that is known of it, on lines of at most `width` columns."""
        indent = " " * 4
        meaning = textwrap.wrap(
            self.meaning, width, initial_indent=indent, subsequent_indent=indent
        )
        return "\n".join([self.head(), *meaning])


@functools.cache
def settings() -> tuple[Setting, ...]:
    """Return the settings, in the order of the dataclasses."""
    return tuple(_below(Config, Config(), ""))


def sections() -> tuple[Setting, ...]:
    """Return the sections of a recipe, and what stands beside them, without what is in them."""
    meanings = _meanings(Config)
    return tuple(
        Setting(field.name, "", "", meanings[field.name]) for field in dataclasses.fields(Config)
    )


def beginning_with(beginnings: Sequence[str]) -> list[Setting]:
    """Return the settings whose names begin with one of some dotted names.

    Args:
        beginnings: whole parts of names; where a name has NAME or N, anything stands for it.
    """
    matching = []
    for setting in settings():
        if any(_begins(setting, beginning) for beginning in beginnings):
            matching.append(setting)
    return matching


def overview(beginnings: Sequence[str], width: int) -> list[str]:
    """Return a line for each setting that stands directly below some dotted names, and for each
    group of settings there.

    Args:
        beginnings: dotted names.
        width: most columns of a line.
    """
    lines = []
    for beginning in beginnings:
        depth = beginning.count(".") + 2
        groups: dict[str, list[Setting]] = {}
        for setting in beginning_with([beginning]):
            parts = setting.name.split(".")
            groups.setdefault(".".join(parts[:depth]), []).append(setting)
        for name, members in groups.items():
            lines += [setting.line(width) for setting in members if setting.name == name]
            below = sum(setting.name != name for setting in members)
            if below:
                lines.append(f"{name}.*: {counted(below, 'setting')}")
    return lines


def look_up(words: str) -> list[Setting]:
    """Return the settings that begin with a dotted name; where none does, those that have it in
    theirs.

    Args:
        words: the name or a part of it, for instance `train.optimizer` or `learning_rate`.

    Raises:
        InputError: no setting has it; names the nearest section or setting.
    """
    name = words.removeprefix("--")
    matching = beginning_with([name])
    if not matching:
        matching = [setting for setting in settings() if name in setting.name]
    if not matching or not name:
        known = set(itertools.chain.from_iterable(s.name.split(".") for s in settings()))
        raise InputError(f"command line, settings: no setting has {words!r}{nearest(name, known)}")
    return matching


def _begins(setting: Setting, beginning: str) -> bool:
    """Return whether a setting's name begins with whole parts of a dotted name."""
    parts = setting.name.split(".")
    wanted = beginning.split(".")
    if len(wanted) > len(parts):
        return False
    pairs = zip(wanted, parts, strict=False)
    return all(part in (word, "NAME", "N") for word, part in pairs)


def _below(cls: Any, instance: Any, prefix: str) -> Iterator[Setting]:
    """Yield every setting below a dataclass.

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
            yield from _below(hint, default, f"{name}.")
            continue
        shown = ""
        if default is not dataclasses.MISSING:
            shown = json.dumps(plain(default), default=str)
        yield Setting(name, _kind(hint), shown, meanings.get(field.name, ""), _choices(hint))
        # A dataclass among the type's arguments has settings of its own.
        inner = next(filter(dataclasses.is_dataclass, get_args(hint)), None)
        if inner is not None:
            yield from _below(inner, inner, name + PLACEHOLDERS.get(get_origin(hint), "") + ".")


def _kind(hint: Any) -> str:
    """Return a type as a user would write it: choices by their values, no modules' names."""
    kind = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    kind = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", kind)
    kind = re.sub(r"Literal\[([^\]]*)\]", lambda match: match[1].replace(", ", " | "), kind)
    return kind.replace("'", "").replace("NoneType", "null").replace("None", "null")


def _choices(hint: Any) -> tuple[str, ...]:
    """Return the values of a type that has a few alone: those of a Literal, true and false."""
    if hint is bool:
        return ("true", "false")
    values = get_args(hint)
    are_text = bool(values) and all(isinstance(value, str) for value in values)
    if not are_text:
        return ()
    return values


def _meanings(cls: Any) -> dict[str, str]:
    """Return the help text of each setting of a dataclass, by its docstrings and its bases'."""
    meanings = {}
    for base in reversed(cls.__mro__[:-1]):
        for param in docstring_parser.parse_from_object(base).params:
            meanings[param.arg_name] = " ".join((param.description or "").split())
    return meanings
