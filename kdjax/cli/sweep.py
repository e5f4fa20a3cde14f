"""`kdjax sweep`: a study for every combination of settings."""

from kdjax.cli.command import Command, Options, check_out_is_free


def run(options: Options) -> None:
    """Run the sweep."""
    from kdjax.sweep.sweep import sweep

    sweep(options.config, options.out)


COMMAND = Command(
    "sweep",
    "A study for every combination of values in the recipe's `sweep`: budgets, sizes, any setting.",
    run,
    settings=("sweep",),
    multiprocess=True,
    check_first=check_out_is_free,
)
