"""What each command says of itself: its words on the command line, and how it is run."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdjax.storage import locks
from kdjax.storage.paths import local_path


def path_argument(name: str) -> Callable[[str], Path]:
    """Return the function by which argparse reads a path, as a path of a recipe is read.

    Args:
        name: name of the argument, for messages.
    """
    return lambda text: local_path(text, name)


Options = argparse.Namespace
"""What a command line says: `config`, the recipe, and `out`, `json` and what a command adds."""


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add RECIPE."""
    parser.add_argument("config", metavar="RECIPE", help="the recipe, a YAML file")


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add --out DIR."""
    parser.add_argument(
        "--out", type=path_argument("--out"), required=True, metavar="DIR", help="output directory"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def add_recipe_and_out(parser: argparse.ArgumentParser) -> None:
    """Add RECIPE and --out DIR, as a command that writes takes them."""
    add_recipe(parser)
    add_out(parser)


def add_recipe_and_json(parser: argparse.ArgumentParser) -> None:
    """Add RECIPE and --json, as a command that prints takes them."""
    add_recipe(parser)
    add_json(parser)


def check_out_is_free(options: Options) -> None:
    """Check that no other command writes to `out`."""
    locks.check_free(options.out)


@dataclass(frozen=True)
class Command:
    """A command of `kdjax`.

    Attributes:
        name: word for the command on the command line.
        summary: sentence on what the command does, for the help.
        run: runs it; it imports what it needs, so that help and errors come at once.
        usage: text that follows the command's name in the help.
        add_arguments: adds its arguments to its parser.
        settings: settings that its help lists, by the beginnings of their names; none: the sections
            of a recipe; None: it reads no recipe.
        needs_jax: whether JAX, memory and the compilation cache are set up before it runs.
        multiprocess: whether several processes run it as one; else the first alone runs it.
        check_first: looks at what takes no time, before JAX is loaded, which takes some; None:
            there is nothing such. A process of several leaves it out.
    """

    name: str
    summary: str
    run: Callable[[Options], None]
    usage: str = "RECIPE --out DIR [--SETTING VALUE ...]"
    add_arguments: Callable[[argparse.ArgumentParser], None] = add_recipe_and_out
    settings: tuple[str, ...] | None = ()
    needs_jax: bool = True
    multiprocess: bool = False
    check_first: Callable[[Options], None] | None = None
