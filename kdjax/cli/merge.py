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
    """Merge the parts; print how many runs there are now, and which were left."""
    from kdjax.study.parts import merge

    # All finished runs that are now in one place, those that were there before included.
    merged = merge(options.parts, options.out)
    print(f"{options.out}: {len(merged.runs)} finished runs: {', '.join(merged.runs)}")
    if merged.unfinished:
        unfinished = ", ".join(map(str, merged.unfinished))
        print(f"left where they are, {len(merged.unfinished)} unfinished runs: {unfinished}")


COMMAND = Command(
    "merge",
    "The finished runs of a study's parts in one directory; `compare` with the same --out takes it "
    "up.",
    run,
    usage="PART ... --out DIR",
    add_arguments=add_arguments,
    settings=None,
)
