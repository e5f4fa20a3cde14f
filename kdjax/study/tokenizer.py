"""The tokenizer that a recipe trains, in a directory of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kdjax.config import Config
from kdjax.data.prepare import wordpiece
from kdjax.data.text.streams import sha256
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.progress import Reporter
from kdjax.report import numbers
from kdjax.storage import locks
from kdjax.storage.files import LOCK, check_writable, entries


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
        trained = wordpiece.train_on_corpus(config.data)

        # Written beside and renamed: a kill leaves no half of it under the name that was asked for.
        check_writable(out.absolute().parent)
        beside = out.absolute().with_name(f".{out.name}.{os.getpid()}.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            beside.mkdir()
            wordpiece.write_directory(trained, beside, model)
            # The lock stays, in the new directory; one that is not empty is not replaced.
            locks.carry(out, beside)
            (out / LOCK).unlink(missing_ok=True)
            beside.replace(out)
        except OSError as e:
            shutil.rmtree(beside, ignore_errors=True)
            raise InputError(
                f"{out}: cannot be written ({e.strerror}), expected room and a name that the file "
                "system takes"
            ) from None
        path = out / "tokenizer.json"
        reporter.log(
            f"{path}: {trained.size:,} entries; {numbers.percent(trained.uncovered)} of the "
            f"training text's characters have none; digest {sha256(path)[:16]}"
        )
    return path
