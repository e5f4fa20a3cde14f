"""`kdjax arms`: list the named arms."""

import argparse
import json

from kdjax.cli.command import Command, Options, add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RECIPE, which may be left out, and --json."""
    parser.add_argument("config", metavar="RECIPE", help="the recipe, a YAML file", nargs="?")
    add_json(parser)


def run(options: Options) -> None:
    """Print the arms."""
    from kdjax.dry_run.named_arms import arms_table, named_arms
    from kdjax.progress import Reporter

    # Pricing every arm takes half a minute at the paper's sizes.
    with Reporter() as reporter:
        rows = named_arms(options.config, reporter.status)
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        arms_table(options.config, rows)


COMMAND = Command(
    "arms",
    "The named arms: what each does, asks of the teacher and costs. Without RECIPE, at the paper's "
    "sizes.",
    run,
    usage="[RECIPE] [--json] [--SETTING VALUE ...]",
    add_arguments=add_arguments,
)
