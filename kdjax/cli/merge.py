"""`kdjax merge`: put the runs of a study's parts into one directory."""

import argparse

from kdjax.cli.command import Command, Options, add_out, path_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the parts and --out."""
    parser.add_argument(
        "parts", type=path_argument("PART"), nargs="+", metavar="PART", help="directory of a part"
    )
    add_out(parser)


def run(options: Options) -> None:
    """Merge the parts, and print how many runs there are now."""
    from kdjax.study.parts import merge

    # All finished runs that are now in one place, those that were there before included.
    runs = merge(options.parts, options.out)
    print(f"{options.out}: {len(runs)} finished runs: {', '.join(runs)}")


COMMAND = Command(
    "merge",
    "The finished runs of a study's parts in one directory; `compare` with the same --out "
    "takes it up.",
    run,
    usage="PART ... --out DIR",
    add_arguments=add_arguments,
    takes_recipe=False,
)
