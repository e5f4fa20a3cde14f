"""`kdjax compile`: compile every arm's step for a TPU slice without one."""

import argparse
import json

from kdjax.cli.command import Command, Options, add_recipe_and_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RECIPE, --json, and what is compiled for what."""
    add_recipe_and_json(parser)
    parser.add_argument(
        "--topology",
        required=True,
        metavar="CHIP:AxB",
        help="of the slice: v5e:2x4, v6e:4x4, v5p:2x2x1...",
    )
    parser.add_argument(
        "--arm", nargs="+", default=[], metavar="NAME", help="arms of the recipe; else all"
    )
    parser.add_argument(
        "--top", type=int, default=0, metavar="N", help="list a step's N longest operations"
    )


def run(options: Options) -> None:
    """Compile the steps, print what they need, and fail where one does not fit."""
    from kdjax.hlo import aot

    aot.forbid_accelerators()  # before what follows loads the TPU's compiler
    from kdjax.dry_run.compile_table import compile_table
    from kdjax.dry_run.compiling import check_fits, compile_recipe
    from kdjax.dry_run.task_compiling import compile_tasks, task_lines

    target = aot.slice_of(options.topology)
    rows = compile_recipe(options.config, target, options.arm, options.top)
    rows["tasks"] = compile_tasks(options.config, target, options.arm)
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        compile_table(rows, len(options.config.seeds))
        for line in task_lines(rows["tasks"], len(options.config.seeds)):
            print(line)
    # After the table, which shows what does not fit.
    check_fits(rows)


COMMAND = Command(
    "compile",
    "Compile every arm's step for a TPU slice without one: memory, collectives, estimated time and "
    "utilisation.",
    run,
    usage="RECIPE --topology CHIP:AxB [--arm NAME ...] [--top N] [--json] [--SETTING VALUE ...]",
    add_arguments=add_arguments,
)
