"""The inputs that a recipe names, looked at before the first minute is spent on any of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kdjax.config import Config
from kdjax.data import minimal_pairs
from kdjax.data.manifest import NAME, Manifest
from kdjax.data.tasks.load import raw_tasks
from kdjax.errors import InputError
from kdjax.storage import hub, urls
from kdjax.storage.paths import local_path
from kdjax.text import sources
from kdjax.text.document import ReadSettings
from kdjax.text.reading_notes import ReadingNotes
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from kdjax.tokenizers.tokenizer_files import locate_tokenizer

HEADS = 64
"""Most files of a text whose first document is read."""


def check_inputs(
    config: Config, prepared: Mapping[str, Path] | None = None, *, only_here: bool = False
) -> None:
    """Check that all inputs of a recipe are there and begin as they should.

    What takes long is not done: no text is read to its end, no row is tokenised. Weights of a
    teacher are read elsewhere (`kdjax.study.teachers.study_teachers.check_teacher`).

    Args:
        config: resolved recipe.
        prepared: directories of the study's corpus (`data`) and held-out texts (`texts`), which
            need their sources no more once they are prepared; None: there are none.
        only_here: whether what lies on the Hugging Face Hub or behind a URL is passed over.

    Raises:
        InputError: a file or directory is missing, has another layout or cannot be read; the first
            of them.
    """
    prepared = prepared or {}
    # Text first, as it takes longest to make ready.
    if config.data.prepared:
        Manifest.read(local_path(config.data.prepared, "data.prepared"))
    elif not _is_prepared(prepared.get("data")):
        _check_text(config, config.data.files, only_here)
    tokenizer = config.data.tokenizer
    if isinstance(tokenizer, str) and tokenizer and not (only_here and _is_elsewhere(tokenizer)):
        TextTokenizer.read(locate_tokenizer(tokenizer))
    teacher_tokenizer = config.data.teacher_tokenizer
    if teacher_tokenizer and not (only_here and _is_elsewhere(teacher_tokenizer)):
        with _within("data.teacher_tokenizer"):
            TextTokenizer.read(locate_tokenizer(teacher_tokenizer))
    # Then what models are measured on.
    for name, files in config.evaluation.texts.items():
        directory = prepared.get("texts")
        if not _is_prepared(directory and directory / name):
            with _within(f"evaluation.texts.{name}"):
                _check_text(config, files, only_here)
    minimal_pairs.check(config.evaluation.minimal_pairs)
    # The first row of each split; one's own files are read whole, as their splits ask for it.
    with _within("evaluation.tasks", unless="task "):
        for task in raw_tasks(config.evaluation):
            for source in task.sources:
                next(iter(source.rows()), None)


def missing_input(config: Config) -> str:
    """Return a line on the first input of a recipe that is not as it should be; empty: all are.

    What does not lie on this machine is not asked for.

    Args:
        config: resolved recipe.
    """
    # A recipe may leave it to the command line.
    if not (config.data.files or config.data.prepared):
        return "this recipe names no text: a study of it takes --data.files or --data.prepared"
    try:
        check_inputs(config, only_here=True)
    except InputError as e:
        return f"a study of this recipe would be refused: {e}"
    return ""


def _is_prepared(directory: Path | None) -> bool:
    """Return whether text was prepared in a directory."""
    return directory is not None and (directory / NAME).is_file()


def _is_elsewhere(name: str) -> bool:
    """Return whether a name is of something on the Hub or behind a URL."""
    return hub.is_hub_name(name) or urls.is_url(name)


def _check_text(config: Config, files: str | tuple[str, ...], only_here: bool) -> None:
    """Check that files of text are there, and that each of the first ones has a document."""
    patterns = sources.patterns_of(files)
    if only_here:
        patterns = [pattern for pattern in patterns if not _is_elsewhere(pattern)]
        if not patterns and files:
            return
    settings = ReadSettings.from_config(config.data)
    for source in sources.expand(patterns)[:HEADS]:
        # What lies elsewhere is read when it is prepared.
        if isinstance(source, Path):
            next(sources.documents_of(source, settings, ReadingNotes()))


@contextmanager
def _within(name: str, unless: str = "evaluation.") -> Iterator[None]:
    """Put a setting's name before errors of the block that do not say what they are of.

    Args:
        name: name of the setting.
        unless: beginning of errors that do.

    Raises:
        InputError: that of the block.
    """
    try:
        yield
    except InputError as e:
        if str(e).startswith(("evaluation.", unless)):
            raise
        raise InputError(f"{name}: {e}") from None
