"""`kdjax compare`: run a study, or go on with an interrupted one."""

from kdjax.cli.command import Command, Options, check_out_is_free


def run(options: Options) -> None:
    """Run the study."""
    from kdjax.study.compare import compare

    compare(options.config, options.out, options.begun)


def check_first(options: Options) -> None:
    """Check that the directory is free and that the recipe's inputs on this machine are there."""
    from kdjax.study.artifacts.artifact_dirs import artifact_dirs
    from kdjax.study.artifacts.input_checks import check_inputs

    check_out_is_free(options)
    # A recipe of a sweep is refused for that, whatever its inputs.
    config = options.config
    if not config.sweep and (config.data.files or config.data.prepared):
        check_inputs(config, artifact_dirs(config, options.out), only_here=True)


COMMAND = Command(
    "compare",
    "Train every arm under every seed within the budget, evaluate, and write the report.",
    run,
    multiprocess=True,
    check_first=check_first,
)
