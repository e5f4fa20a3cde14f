"""`kdjax audit`: recount a finished study or sweep."""

import argparse

from kdjax.cli.command import Command, Options, path_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add DIR."""
    parser.add_argument(
        "directory", type=path_argument("DIR"), metavar="DIR", help="of a study or a sweep"
    )


def run(options: Options) -> None:
    """Recount the directory."""
    from kdjax.progress import Reporter

    with Reporter() as reporter:
        # What follows imports JAX, which takes a while: the first line comes before it.
        reporter.stage(f"auditing {options.directory}")
        from kdjax.audit.audit import audit_command

        audit_command(options.directory, reporter)


COMMAND = Command(
    "audit",
    "Recount every price and every sum of a finished study or sweep, and report any difference.",
    run,
    usage="DIR",
    add_arguments=add_arguments,
    settings=None,
)
