"""`kdjax plan`: forecast what arms would reach at budgets nobody has spent."""

from kdjax.cli.command import Command, Options


def run(options: Options) -> None:
    """Make the forecast."""
    from kdjax.plan.plan import plan

    plan(options.config, options.out)


COMMAND = Command(
    "plan",
    "What each arm would reach at budgets nobody has spent, from published laws and a pilot's "
    "runs.",
    run,
    settings=("plan",),
)
