"""`kdjax compare`: run a study, or go on with an interrupted one."""

from kdjax.cli.command import Command, Options


def run(options: Options) -> None:
    """Run the study."""
    from kdjax.study.compare import compare

    compare(options.config, options.out, options.begun)


COMMAND = Command(
    "compare",
    "Train every arm under every seed within the budget, evaluate, and write the report.",
    run,
    multiprocess=True,
)
