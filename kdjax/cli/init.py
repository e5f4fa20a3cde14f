"""`kdjax init`: copy a recipe or a program that comes with kdjax, to change it."""

import argparse
from collections.abc import Mapping

from kdjax.cli.command import Command, Options, path_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NAME and FILE, which may be left out."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="which one; without it: a list")
    parser.add_argument(
        "file",
        type=path_argument("FILE"),
        metavar="FILE",
        nargs="?",
        help="where to; else here, by its own name",
    )


def run(options: Options) -> None:
    """Copy it and print what it needs and what to do next; without a name, list what there is."""
    from kdjax.recipes.starters import copy_starter, starters

    if options.name is None:
        by_name = starters()
        width = max(map(len, by_name))
        for name, starter in by_name.items():
            print(f"{name:{width}}  {starter.summary}")
        return
    copied = copy_starter(options.name, options.file)
    for path in (copied.file, *copied.companions):
        print(f"wrote {path}")
    print("next:")
    for command, remark in copied.commands:
        print(f"  {command}")
        print(f"      {remark or _summary(command, options.parser.commands)}")


def _summary(command: str, parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """Return what a command does, as its help says; a program's own words are in its docstring.

    Args:
        command: the command.
        parsers: parsers of kdjax's commands, by name.
    """
    program, name, *_ = command.split()
    if program == "kdjax" and name in parsers:
        return (parsers[name].description or "").partition(". ")[0].removesuffix(".")
    return "the program"


COMMAND = Command(
    "init",
    "A commented recipe or program to start from, copied here with what it reads. Without NAME, a "
    "list of them.",
    run,
    usage="[NAME [FILE]]",
    add_arguments=add_arguments,
    settings=None,
    needs_jax=False,
)
