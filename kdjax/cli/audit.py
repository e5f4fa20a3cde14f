"""`kdjax audit`: recount a finished study or sweep."""

import argparse
from pathlib import Path

from kdjax.cli.command import Command, Options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add DIR."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="of a study or a sweep")


def run(options: Options) -> None:
    """Recount the directory."""
    from kdjax.audit.audit import audit_command

    audit_command(options.directory)


COMMAND = Command(
    "audit",
    "Recount every price and every sum of a finished study or sweep, and report any difference.",
    run,
    usage="DIR",
    add_arguments=add_arguments,
    takes_recipe=False,
)
