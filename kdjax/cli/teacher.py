"""`kdjax teacher`: train a teacher, or fit an MLM head on an encoder."""

from kdjax.cli.command import Command, Options


def run(options: Options) -> None:
    """Make the teachers."""
    from kdjax.study.teachers.study_teachers import prepare_teacher

    prepare_teacher(options.config, options.out)


COMMAND = Command(
    "teacher",
    "Train a teacher from scratch, or fit an MLM head on an encoder; saved with a card that says "
    "its cost.",
    run,
    settings=("teacher",),
    multiprocess=True,
)
