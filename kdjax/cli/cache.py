"""`kdjax cache`: store the teacher's outputs."""

from kdjax.cli.command import Command, Options


def run(options: Options) -> None:
    """Store the outputs."""
    from kdjax.study.artifacts.cache import prepare_cache

    prepare_cache(options.config, options.out)


COMMAND = Command(
    "cache",
    "Run the teacher once over all mask views and store what the recipe's arms need of it.",
    run,
    settings=("cache",),
)
