"""`kdjax tune`: the same number of trials for every arm."""

from kdjax.cli.command import Command, Options, check_out_is_free


def run(options: Options) -> None:
    """Run the trials."""
    from kdjax.tuning.tune import tune

    tune(options.config, options.out)


COMMAND = Command(
    "tune",
    "The same number of trials for every arm; writes a recipe with the best settings found.",
    run,
    settings=("tune",),
    multiprocess=True,
    check_first=check_out_is_free,
)
