"""`kdjax train`: one run of a study, or one part of its runs."""

import argparse

from kdjax.cli.command import Command, Options, add_recipe_and_out
from kdjax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RECIPE, --out, and which runs are made."""
    add_recipe_and_out(parser)
    parser.add_argument("--arm", help="which arm of the recipe")
    parser.add_argument("--seed", type=int, help="which seed")
    parser.add_argument(
        "--part", metavar="I/N", help="in their place: the I-th of N parts of all runs"
    )


def run(options: Options) -> None:
    """Make the runs.

    Raises:
        InputError: neither one run is named nor a part.
    """
    from kdjax.study.compare import train_one, train_part
    from kdjax.study.parts import StudyPart

    # Either one run by arm and seed, or a part; nothing in between.
    names_run = options.arm is not None and options.seed is not None
    names_part = options.part is not None
    if names_part and options.arm is None and options.seed is None:
        train_part(options.config, options.out, StudyPart.parse(options.part))
    elif names_run and not names_part:
        train_one(options.config, options.out, options.arm, options.seed)
    else:
        raise InputError("kdjax train: expected either --arm and --seed, or --part")


COMMAND = Command(
    "train",
    "One arm under one seed of a study, or one part of its runs; `compare` with the same --out "
    "takes it up.",
    run,
    add_arguments=add_arguments,
    multiprocess=True,
)
