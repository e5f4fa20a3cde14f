"""`kdjax tokenizer`: train the recipe's tokenizer."""

from kdjax.cli.command import Command, Options


def run(options: Options) -> None:
    """Train the tokenizer."""
    from kdjax.study.artifacts.trained_tokenizer import prepare_tokenizer

    prepare_tokenizer(options.config, options.out)


COMMAND = Command(
    "tokenizer",
    "Train the recipe's tokenizer on its text, for `data.tokenizer` of any recipe.",
    run,
    settings=("data.files", "data.text_field", "data.documents", "data.tokenizer"),
)
