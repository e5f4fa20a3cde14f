"""`kdjax glue-predictions`: a finished run's predictions for GLUE's server."""

import argparse

from kdjax.cli.command import Command, Options, add_out, path_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RUN, --out, and what is predicted by what."""
    parser.add_argument(
        "run", type=path_argument("RUN"), metavar="RUN", help="a run: runs/ARM-seedN of a study"
    )
    add_out(parser)
    parser.add_argument(
        "--protocol", default="", help="grid or fixed: whose setting is taken; grid where it is"
    )
    parser.add_argument(
        "--tasks", default="", metavar="NAME,...", help="tasks to predict; else all of the recipe"
    )
    parser.add_argument("--glue", default="", metavar="DIR", help="where GLUE lies now")


def run(options: Options) -> None:
    """Predict, and print by what, and which files the server still needs."""
    from kdjax.study.runs.glue_predictions import glue_predictions

    tasks = [name.strip() for name in options.tasks.split(",") if name.strip()]
    written = glue_predictions(
        options.run, options.out, protocol=options.protocol, tasks=tasks, glue=options.glue
    )
    for line in written.lines:
        print(line)
    print(f"{written.archive}; GLUE's server asks for more files: {', '.join(written.missing)}")


COMMAND = Command(
    "glue-predictions",
    "The predictions of a finished run for GLUE's server: the setting that its protocol chose is "
    "trained again.",
    run,
    usage="RUN --out DIR [--protocol grid|fixed] [--tasks NAME,...] [--glue DIR]",
    add_arguments=add_arguments,
    settings=None,
)
