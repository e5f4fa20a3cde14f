"""The check for contamination: how many evaluation rows stand in the pretraining text, and among
the training rows of other tasks and of their own.

The text is read once more from its sources, after it was prepared: the rows change more often than
the text, a preparation that goes on reads no finished block again, and the same check serves every
way to prepare. A corpus whose sources are gone is not checked, and the result says so.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdjax.config.data import LATER_SETTINGS
from kdjax.data.contamination import rows
from kdjax.data.contamination.index import RowIndex, RowTexts, hash_whole_row
from kdjax.data.contamination.rows import RowGroup
from kdjax.data.corpus import Corpus
from kdjax.data.manifest import Manifest
from kdjax.errors import InputError
from kdjax.storage.files import digest, write_json
from kdjax.storage.typed_json import read_version
from kdjax.text import sources
from kdjax.text.document import ReadSettings
from kdjax.text.reading_notes import ReadingNotes
from kdjax.text.repeats import RepeatFinder
from kdjax.text.source_kinds import Source

VERSION = 2
"""Version of the file and of the comparison: another one is computed again."""
EXAMPLES = 3
"""Rows that are named of those that were found."""
PATTERN = "contamination-*.json"
"""Names of the files, which hold the beginning of a digest."""


@dataclass(frozen=True)
class Overlap:
    """The rows of a result that stand in some text, counted.

    Attributes:
        task: name of the task.
        result: name of its result.
        use: what the rows are for: `selection` or `reported`.
        trained: name of the task whose training rows the text is, perhaps the rows' own; empty:
            it is the pretraining text.
        rows: number of rows that were looked for.
        found: number of those that stand there.
        examples: places of the first of them.
    """

    task: str
    result: str
    use: str
    trained: str
    rows: int
    found: int
    examples: tuple[str, ...]

    @property
    def share(self) -> float:
        """Return the share of the rows that stand there; 0 where there are none."""
        return self.found / max(1, self.rows)


@dataclass(frozen=True)
class Contamination:
    """The result of a check.

    Attributes:
        version: version of the comparison.
        corpus: digest of the prepared text.
        tasks: digest of the tasks' rows.
        unchecked: why the pretraining text was not looked at; empty where it was.
        overlaps: every result and use with the pretraining text, and with the training rows of
            a task where any row stands there.
    """

    version: int
    corpus: str
    tasks: str
    unchecked: str
    overlaps: tuple[Overlap, ...]

    def above(self, share: float) -> list[Overlap]:
        """Return the overlaps that are a larger share of the rows."""
        return [overlap for overlap in self.overlaps if overlap.share > share]


def check_contamination(
    corpus: Corpus,
    files: str | Sequence[str],
    groups: Sequence[RowGroup],
    show: Callable[[str], None],
) -> Contamination:
    """Read the check of a corpus, or check it and store the result beside its manifest.

    The file's name has the beginning of a digest of text and rows. Where the directory cannot be
    written, or the text could not be looked at, nothing is stored.

    Args:
        corpus: the prepared text.
        files: `data.files`, from which it was prepared; empty: where its manifest says.
        groups: rows of the tasks.
        show: called with a line about the progress, every 10,000 documents.

    Raises:
        InputError: a row cannot be read, or the text no more.
    """
    tasks = rows.digest(groups)
    manifest = corpus.manifest
    path = corpus.directory / f"contamination-{digest([manifest.digest, tasks])[:16]}.json"
    if path.is_file():
        stored = read(path)
        if stored and (stored.corpus, stored.tasks) == (manifest.digest, tasks):
            return stored

    # The text of a corpus from elsewhere may be gone.
    unchecked = ""
    documents: Iterable[str] | None = None
    try:
        documents = _training_documents(manifest, find_sources(manifest, files), show)
    except InputError as e:
        unchecked = str(e)
    overlaps = compare(groups, documents)
    result = Contamination(VERSION, manifest.digest, tasks, unchecked, tuple(overlaps))
    if not unchecked:
        with contextlib.suppress(InputError):
            write_json(path, asdict(result))
    return result


def read(path: Path) -> Contamination | None:
    """Read a stored check; None where it was of another version.

    Args:
        path: the stored check, a JSON file.

    Raises:
        InputError: the file is not whole, or a field is missing or mistyped.
    """
    return read_version(Contamination, path, VERSION)


def compare(groups: Sequence[RowGroup], documents: Iterable[str] | None) -> Iterator[Overlap]:
    """Look for evaluation rows in the pretraining text, and in the tasks' training rows.

    Of its own task a row is looked for as a whole: all of its texts in one training row. Tasks have
    one premise or question in many rows, so that either text of a pair would say nothing.

    The evaluation rows are held in memory; documents and training rows are read once, one batch
    after another.

    Args:
        groups: rows of the tasks.
        documents: training documents of the pretraining text; None: it is not looked at.

    Yields:
        An overlap for each group that is not for training and the pretraining text, then those
        with the training rows of tasks in which any row was found.

    Example:
        >>> rows = [("a.csv, line 2", ("A row.",)), ("a.csv, line 3", ("Another row.",))]
        >>> group = RowGroup("topics", "topics", "reported", lambda: rows)
        >>> (overlap,) = compare([group], ["A document. Another row. Its end."])
        >>> overlap.found, overlap.rows, overlap.examples
        (1, 2, ('a.csv, line 3',))
    """
    # All evaluation rows, one group after another; `ends` says where each group's end.
    evaluated = [group for group in groups if group.use != "train"]
    places: list[str] = []
    texts: list[RowTexts] = []
    ends: list[int] = []
    for group in evaluated:
        for place, row in group.read():
            places.append(place)
            texts.append(row)
        ends.append(len(places))

    # Found in text by their words, in training rows as a whole.
    index = RowIndex(texts)
    keys = [hash_whole_row(row) for row in texts]
    looked_for = set(keys) - {b""}
    del texts

    def overlaps(training_task: str, is_found: NDArray[np.bool_]) -> Iterator[Overlap]:
        start = 0
        for group, end in zip(evaluated, ends, strict=True):
            places_found = start + np.flatnonzero(is_found[start:end])
            yield Overlap(
                task=group.task,
                result=group.result,
                use=group.use,
                trained=training_task,
                rows=end - start,
                found=len(places_found),
                examples=tuple(places[number] for number in places_found[:EXAMPLES]),
            )
            start = end

    # The pretraining text, then the training rows of each task
    if documents is not None:
        yield from overlaps("", index.search((document,) for document in documents))
    for training_task in dict.fromkeys(group.task for group in groups):
        training_groups = [
            group for group in groups if group.task == training_task and group.use == "train"
        ]
        # Only what is looked for is held, however many training rows there are.
        trained_rows: set[bytes] = set()
        is_found = index.search(_noted_texts(training_groups, looked_for, trained_rows))
        is_same_row = np.array([key in trained_rows for key in keys], np.bool_)
        for overlap in overlaps(training_task, is_same_row):
            if overlap.found and overlap.task == training_task:
                yield overlap
        for overlap in overlaps(training_task, is_found):
            if overlap.found and overlap.task != training_task:
                yield overlap


def _noted_texts(
    groups: Iterable[RowGroup], looked_for: Set[bytes], met: set[bytes]
) -> Iterator[RowTexts]:
    """Yield the texts of all rows of some groups, and note which rows that are looked for they are.

    Args:
        groups: training rows, read once.
        looked_for: evaluation rows, each by its `whole_row`.
        met: gets those that are among the rows.
    """
    for group in groups:
        for _, texts in group.read():
            key = hash_whole_row(texts)
            if key in looked_for:
                met.add(key)
            yield texts


def find_sources(manifest: Manifest, files: str | Sequence[str]) -> list[Source]:
    """Find the sources that a corpus was prepared from.

    Args:
        manifest: the corpus's manifest, with the digests of the sources.
        files: `data.files`; empty: where the manifest says.

    Raises:
        InputError: they are gone, or have another content now.
    """
    candidates = sources.expand(files or tuple(manifest.sources))
    if len(candidates) == len(manifest.sources):
        digests = [sources.digest(source) for source in candidates]
        if digests == list(manifest.sources.values()):
            return candidates
    names = ", ".join(map(str, candidates[:EXAMPLES]))
    raise InputError(f"{names}: not the text that the corpus was prepared from")


def _training_documents(
    manifest: Manifest, found_sources: Sequence[Source], show: Callable[[str], None]
) -> Iterator[str]:
    """Yield the documents of the training split, as the preparation chose them.

    Args:
        manifest: the corpus's manifest, with the settings of its preparation.
        found_sources: its sources.
        show: called with a line about the progress, every 10,000 documents.
    """
    settings = {**LATER_SETTINGS, **manifest.settings}
    reading = ReadSettings(
        tuple(settings["text_field"]), settings["documents"], settings["unusable"] == "skip"
    )
    notes = ReadingNotes()
    by_source = (sources.documents_of(source, reading, notes) for source in found_sources)
    repeats = RepeatFinder(deduplicate=settings["deduplicate"])
    documents = repeats.split(itertools.chain.from_iterable(by_source), settings["validation"])
    for number, document in enumerate(documents):
        if number % 10_000 == 0:
            show(f"contamination: {number:,} documents")
        if not document.held_out:
            yield document.text
