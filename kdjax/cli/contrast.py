"""`kdjax contrast`: how the gaps between arms differ between two finished studies."""

import argparse

from kdjax.cli.command import Command, Options, path_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add A, B and --json."""
    for name in ("A", "B"):
        parser.add_argument(
            name.lower(), type=path_argument(name), metavar=name, help="directory of a study"
        )
    parser.add_argument("--json", action="store_true", help="print the tests as JSON")


def run(options: Options) -> None:
    """Compare the two studies."""
    from kdjax.progress import Reporter

    with Reporter() as reporter:
        # What follows imports much, which takes a while: the first line comes before it.
        reporter.stage(f"contrasting {options.a} with {options.b}")
        from kdjax.study.contrast import contrast_command

        contrast_command(options.a, options.b, as_json=options.json, reporter=reporter)


COMMAND = Command(
    "contrast",
    "Whether an arm's gain over the baseline arm is larger in study A than in study B: paired "
    "differences of differences.",
    run,
    usage="A B [--json]",
    add_arguments=add_arguments,
    settings=None,
)
