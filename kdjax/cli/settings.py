"""`kdjax settings`: every setting of a recipe."""

import argparse
import dataclasses
import json
import shutil
import sys

from kdjax.cli.command import Command, Options, add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NAME, which may be left out, and --json."""
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="beginning of settings' names, or a part of them: train.optimizer, learning_rate",
    )
    add_json(parser)


def run(options: Options) -> None:
    """Print a line for each setting; all that is known of each where a name is given."""
    from kdjax.recipes.settings import look_up, settings

    chosen = settings() if options.name is None else look_up(options.name)
    width = shutil.get_terminal_size((100, 24)).columns
    # What goes into a pipe or a file is searched, not looked at: lines stay whole.
    line_width = width if sys.stdout.isatty() else None
    if options.json:
        print(json.dumps([dataclasses.asdict(setting) for setting in chosen], indent=1))
    elif options.name is None:
        # For a pipe, too: `kdjax settings | grep layers`.
        for setting in chosen:
            print(setting.line(line_width))
    else:
        print("\n\n".join(setting.paragraph(min(width, 100)) for setting in chosen))


COMMAND = Command(
    "settings",
    "Every setting of a recipe: name, type, default and meaning. With NAME, those of that name in "
    "full.",
    run,
    usage="[NAME] [--json]",
    add_arguments=add_arguments,
    settings=None,
    needs_jax=False,
)
