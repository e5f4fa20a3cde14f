"""The tokenizer that a recipe trains, in a directory of its own."""

from __future__ import annotations

from pathlib import Path

from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.progress import Reporter
from kdjax.report import numbers
from kdjax.storage import locks
from kdjax.storage.files import entries
from kdjax.storage.whole_directory import whole_directory
from kdjax.text.streams import sha256
from kdjax.tokenizers import tokenizer_training


def prepare_tokenizer(config: Config, out: Path) -> Path:
    """Train a recipe's tokenizer and write it, whole or not at all, for any recipe's text.

    Args:
        config: the recipe, whose `data.tokenizer` says how one is trained.
        out: the directory, new or empty. `transformers.AutoTokenizer` reads it.

    Returns:
        The path of its tokenizer.json.

    Raises:
        InputError: the recipe trains none, its text is unusable or too small, or the directory is
            not empty.
    """
    if out.is_symlink() or out.resolve() == Path.cwd():
        raise InputError(f"{out}: expected a directory of its own for --out, that can be replaced")
    model = zoo.resolve(config.student)
    with locks.hold(out), Reporter() as reporter:
        if entries(out):
            raise InputError(f"{out}: is not empty, expected a new or empty directory for --out")
        reporter.stage("tokenizer: training")
        trained = tokenizer_training.train_on_corpus(config.data)

        # A kill leaves no half of it under the name that was asked for.
        with whole_directory(out) as unfinished:
            tokenizer_training.write_directory(trained, unfinished, model)
        path = out / "tokenizer.json"
        reporter.log(
            f"{path}: {trained.size:,} entries; {numbers.percent(trained.uncovered)} of the "
            f"training text's characters have none; digest {sha256(path)[:16]}"
        )
    return path
