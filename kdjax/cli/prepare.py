"""`kdjax prepare`: turn raw text into a prepared corpus."""

import argparse

from kdjax.cli.command import Command, Options, add_recipe_and_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RECIPE, --out and --beam."""
    add_recipe_and_out(parser)
    parser.add_argument(
        "--beam",
        action="store_true",
        help="by Apache Beam; its own options follow after --",
    )


def run(options: Options) -> None:
    """Prepare the corpus."""
    from kdjax.study.artifacts.corpus import prepare_corpus

    prepare_corpus(options.config, options.out, options.beam_options if options.beam else None)


COMMAND = Command(
    "prepare",
    "Turn raw text into packed, sharded sequences.",
    run,
    add_arguments=add_arguments,
    settings=("data",),
)
