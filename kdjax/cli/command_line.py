"""Reading a command line: the command, its arguments, and the overrides of its recipe."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from typing import NoReturn

import kdjax
from kdjax import recipes
from kdjax.cli import (
    arms,
    audit,
    cache,
    compare,
    compile,
    completion,
    contrast,
    doctor,
    export,
    glue_predictions,
    init,
    merge,
    plan,
    prepare,
    price,
    rehearse,
    report,
    settings,
    sweep,
    teacher,
    tokenizer,
    train,
    tune,
)
from kdjax.cli.command import Command, Options
from kdjax.config import Config, TrainConfig
from kdjax.errors import InputError, nearest
from kdjax.recipes.settings import overview, sections
from kdjax.recipes.settings import settings as settings_of_recipes

MODULES = (
    init,
    doctor,
    settings,
    price,
    compile,
    rehearse,
    compare,
    sweep,
    tune,
    plan,
    report,
    audit,
    contrast,
    prepare,
    tokenizer,
    teacher,
    cache,
    arms,
    train,
    merge,
    export,
    glue_predictions,
    completion,
)
COMMANDS: dict[str, Command] = {module.COMMAND.name: module.COMMAND for module in MODULES}
"""Every command by its name, in the order of the help."""
PAPER = Config(train=TrainConfig(batch_size=1024))
"""The sizes of arXiv 2404.19319: 6 x 768, BERT-base as teacher, 1024 x 128 tokens, 20 masked
slots."""


def read(words: Sequence[str]) -> tuple[Command, Options]:
    """Read a command line.

    Args:
        words: all words after `kdjax`.

    Returns:
        The command, and its arguments. Their `config` is the recipe with the overrides applied;
        where none was named, that of the paper.

    Raises:
        InputError: unknown words or options, or a recipe that cannot be used.
    """
    # What argparse does not know is taken out first: another program's options, and overrides of
    # settings, of which there are too many to declare.
    words, beam_options = _split_at_dashes(words)
    own_words, overrides = split_overrides(words)
    parser = _parser()
    options, unknown = parser.parse_known_args(
        own_words, Options(beam_options=beam_options, config=None, parser=parser)
    )
    if unknown:
        raise InputError(_unknown_word(unknown[0], options.command, parser))
    if beam_options and not getattr(options, "beam", False):
        raise InputError(
            f"command line: -- {beam_options[0]}: expected such options of `kdjax prepare --beam` "
            "alone"
        )
    if options.config == "":
        raise InputError("command line: RECIPE is empty, expected the path of a recipe")
    if overrides and options.config is None:
        raise InputError(
            f"command line: {overrides[0]} changes a recipe, expected RECIPE before it"
        )
    # Only now a recipe is read: mistakes on the command line come first.
    options.names_recipe = options.config is not None
    if options.config is not None:
        options.config = recipes.load(options.config, overrides)
    else:
        options.config = PAPER
    return COMMANDS[options.command], options


def _unknown_word(word: str, command: str, parser: _Parser) -> str:
    """Return the message on a word that a command does not take, with the nearest that it does.

    Args:
        word: the word, an option or what stands without one.
        command: name of the command.
        parser: parser of all commands.
    """
    where = f"command line, {command}"
    name = word.partition("=")[0]
    if not name.startswith("-"):
        return f"{where}: {word!r} is one word too many, expected {COMMANDS[command].usage}"
    options: list[str] = []
    for action in parser.commands[command]._actions:
        options += [option for option in action.option_strings if option.startswith("--")]
    # Of a setting the last part may be all that is remembered.
    if COMMANDS[command].settings is not None:
        options += [f"--{field.name}" for field in dataclasses.fields(Config)]
        matching = [s.name for s in settings_of_recipes() if s.name.endswith(f".{name[2:]}")]
        if matching:
            return f"{where}: there is no option {name}, expected one of --{', --'.join(matching)}"
    return f"{where}: there is no option {name}{nearest(name, options)}"


def _split_at_dashes(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into its own words and those after `--`, which are Apache Beam's."""
    # Beam's options are unknown here, and may be named like kdjax's.
    end = [*words, "--"].index("--")
    return list(words[:end]), list(words[end + 1 :])


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into its own words and the overrides, `--section.setting VALUE`.

    Raises:
        InputError: an override without a value.
    """
    sections = {field.name for field in dataclasses.fields(Config)}
    own_words: list[str] = []
    overrides: list[str] = []
    rest = iter(words)
    for word in rest:
        # An override names a setting, with a dot, or a whole section; `+` appends to what is there.
        name = word.partition("=")[0].removesuffix("+")
        if not name.startswith("--") or ("." not in name and name[2:] not in sections):
            own_words.append(word)
            continue
        overrides.append(word)
        if "=" not in word:
            value = next(rest, None)
            if value is None:
                raise InputError(f"command line: {word} has no value, expected one after it")
            overrides.append(value)
    return own_words, overrides


class _Parser(argparse.ArgumentParser):
    """A parser whose usage errors are bad input like any other: one line, status 2.

    Attributes:
        settings: settings with which the help ends (`Command.settings`).
        commands: of the parser of all commands: theirs, by name.
    """

    settings: tuple[str, ...] | None = None
    commands: Mapping[str, argparse.ArgumentParser] = {}

    def format_help(self) -> str:
        """Return the help; settings are looked up only now, which takes longer than parsing."""
        if self.settings is not None:
            self.epilog = settings_help(self.settings)
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        # Every line begins with `kdjax:`; a mistake of a command's arguments names the command.
        _, _, command = self.prog.partition(" ")
        where = f"command line, {command}" if command else "command line"
        raise InputError(f"{where}: {message}")


def settings_help(beginnings: Sequence[str]) -> str:
    """Return a line for each setting that a command's help lists, and where all others are.

    Args:
        beginnings: beginnings of settings' names; none: the sections of a recipe are listed.
    """
    width = shutil.get_terminal_size().columns
    if beginnings:
        listed = overview(beginnings, width - 2)
        more = f"`kdjax settings {beginnings[0]}` says more of these, `kdjax settings` lists all"
    else:
        listed = [f"{s.name:12}{s.summary}" for s in sections()]
        more = "`kdjax settings` lists all, `kdjax settings NAME` says more of some"
    lines = ["settings of the recipe, here as --SETTING VALUE:"]
    lines += [f"  {line}" for line in listed]
    return "\n".join([*lines, f"{more}."])


def _parser() -> _Parser:
    """Return the parser of all commands."""
    parser = _Parser(
        prog="kdjax",
        description="Distil or pretrain? Masked language models compared under one exact compute "
        "budget.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kdjax {kdjax.__version__}")
    subparsers = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    # Each command adds its own arguments; what all have in common is set here.
    for command in COMMANDS.values():
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=command.summary,
            allow_abbrev=False,
            usage=f"kdjax {command.name} {command.usage}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.settings = command.settings
        command.add_arguments(subparser)
    parser.commands = subparsers.choices
    return parser
