"""`kdjax export`: a finished run's student for transformers, sentence-transformers and the Hub."""

import argparse

from kdjax.cli.command import Command, Options, add_out, path_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RUN, --out, what is exported of it, and where it is pushed."""
    parser.add_argument(
        "run", type=path_argument("RUN"), metavar="RUN", help="a run: runs/ARM-seedN of a study"
    )
    add_out(parser)
    parser.add_argument(
        "--task",
        default="",
        metavar="NAME",
        help="fine-tune on a task that the run was measured on, and export the head too",
    )
    parser.add_argument(
        "--protocol", default="", help="grid or fixed: whose setting is taken; grid where it is"
    )
    parser.add_argument("--glue", default="", metavar="DIR", help="where GLUE lies now")
    parser.add_argument(
        "--format",
        default="transformers",
        help="transformers, or sentence-transformers: mean of the last layer over tokens",
    )
    parser.add_argument(
        "--license", default="", metavar="ID", help="the model's licence, such as apache-2.0"
    )
    parser.add_argument(
        "--push",
        default="",
        metavar="OWNER/NAME",
        help="push the directory to a repository of the Hub, in one commit",
    )
    parser.add_argument(
        "--revision",
        default="",
        metavar="NAME",
        help="chck_1M and the like: the student when it had seen as many words; else the branch "
        "that is pushed to; main",
    )
    parser.add_argument(
        "--revisions",
        action="store_true",
        help="export the finished student (main) and every snapshot of the run (chck_1M …), a "
        "folder of DIR each, and with --push a branch each",
    )
    parser.add_argument("--private", action="store_true", help="make a private repository")


def run(options: Options) -> None:
    """Export, and print what was written where."""
    from kdjax.study.export.export import ExportOptions, export_run

    chosen = ExportOptions(
        task=options.task,
        protocol=options.protocol,
        glue=options.glue,
        library=options.format,
        license=options.license,
        push=options.push,
        revision=options.revision,
        revisions=options.revisions,
        private=options.private,
    )
    for line in export_run(options.run, options.out, chosen):
        print(line)


COMMAND = Command(
    "export",
    "A finished run's student as a directory that transformers or sentence-transformers loads, "
    "with a model card; pushed to the Hub if asked.",
    run,
    usage="RUN --out DIR [--task NAME] [--format sentence-transformers] [--revisions] "
    "[--license ID] [--push OWNER/NAME]",
    add_arguments=add_arguments,
    settings=None,
)
