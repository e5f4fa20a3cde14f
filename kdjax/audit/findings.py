"""Differences between what a study's files say and what follows from its recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.audit.counts import Counts
from kdjax.config import Config
from kdjax.data.corpus import Corpus
from kdjax.data.manifest import Shard
from kdjax.data.mask_rate import MaskRate
from kdjax.errors import InputError
from kdjax.progress import Reporter
from kdjax.storage.files import read_json
from kdjax.study.batches import train_batches

CLOSE = 1e-9
"""Relative difference up to which real numbers are the same: another library may round the last
digits otherwise."""
COUNTED = 64
"""Sequences whose tokens are counted at once."""
NOTHING = "nothing"
WRITTEN = "the file as kdjax wrote it"


@dataclass(frozen=True)
class Mismatch:
    """Something that a study's files say and that does not follow.

    Attributes:
        where: the file, and what in it.
        found: value that is there.
        expected: value that follows from the recipe, the prices, the text or the other files.
    """

    where: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}, expected {self.expected}"


class AuditFindings:
    """The differences that an audit has found so far, and what its studies share.

    Attributes:
        differences: all differences, in the order they were found, each once.
        lines: a line for each study, that says what was worked out anew.
    """

    def __init__(self, reporter: Reporter | None = None) -> None:
        """Begin with no differences.

        Args:
            reporter: receiver of reports on progress; None: there is none.
        """
        self._reporter = reporter
        self.differences: list[Mismatch] = []
        self.lines: list[str] = []
        self._counts: dict[Any, Counts] = {}
        self._intact: dict[Path, bool] = {}

    def stage(self, text: str) -> None:
        """Announce what is audited next, which may take a while."""
        if self._reporter is not None:
            self._reporter.stage(text)

    def status(self, text: str) -> None:
        """Report how far a stage is."""
        if self._reporter is not None:
            self._reporter.status(text)

    def add(self, where: object, found: object, expected: object) -> None:
        """Record a difference, unless the same one is recorded: studies of a sweep share files.

        Args:
            where: file or place of the difference, for the report.
            found: what stands there.
            expected: what should stand there.
        """
        difference = Mismatch(str(where), str(found), str(expected))
        if difference not in self.differences:
            self.differences.append(difference)

    def expect_equal(
        self, where: object, recorded: Any, expected: Any, name: str = "", note: str = ""
    ) -> None:
        """Compare two trees of plain values, and add a difference for every leaf that differs.

        Args:
            where: the file.
            recorded: the tree in the file.
            expected: the tree that should be there.
            name: dotted name of the tree in the file.
            note: remark to add to an expected value.
        """
        # Lists are compared by index, so that the place of a difference has a name.
        if isinstance(recorded, list) and isinstance(expected, list):
            recorded = dict(enumerate(recorded))
            expected = dict(enumerate(expected))
        if isinstance(recorded, dict) and isinstance(expected, dict):
            for key in {**expected, **recorded}:
                value = recorded.get(key, NOTHING)
                key_name = f"{name}.{key}".removeprefix(".")
                self.expect_equal(where, value, expected.get(key, NOTHING), key_name, note)
        elif not _equal(recorded, expected):
            # A whole file has no name within itself.
            self.add(f"{where}: {name}".removesuffix(": "), recorded, f"{expected}{note}")

    def expect_fields(
        self,
        where: object,
        recorded: Mapping[str, Any],
        expected: Mapping[str, Any],
        name: str = "",
        note: str = "",
    ) -> None:
        """Compare those fields of a mapping that are expected, and leave out the others.

        Args:
            where: the file.
            recorded: the mapping in the file.
            expected: fields that should be in it.
            name: dotted name of the mapping in the file.
            note: remark to add to an expected value.
        """
        fields = {field: recorded.get(field, NOTHING) for field in expected}
        self.expect_equal(where, fields, dict(expected), name, note)

    @contextmanager
    def record_errors(self, where: Path) -> Iterator[None]:
        """Turn an error in the block into a difference, whatever it is.

        Args:
            where: the file that the block reads.
        """
        try:
            yield
        except InputError as error:
            # An error that names the file has its own place, else it is this one.
            place, _, text = str(error).partition(": ")
            if not place.startswith(str(where)):
                place = str(where)
                text = str(error)
            recorded, _, expected = text.partition(", expected ")
            self.add(place, recorded, expected or WRITTEN)
        except Exception as error:
            # There is no end to what a mangled file can cause. Where it is known which field of it
            # is wrong, that says more.
            if not any(known.where.startswith(str(where)) for known in self.differences):
                self.add(where, f"{type(error).__name__}: {error}", WRITTEN)

    def read(self, path: Path) -> dict[str, Any]:
        """Read a file's JSON object; empty where there is none, which is a difference."""
        try:
            value = read_json(path)
        except InputError:
            self.add(path, "no JSON" if path.exists() else "no file", WRITTEN)
            return {}
        if isinstance(value, dict):
            return value
        self.add(path, f"JSON that is no object: {value!r:.40}", WRITTEN)
        return {}

    def counts(
        self,
        config: Config,
        corpus: Corpus | None,
        seed: int,
        mask_rate: MaskRate | None = None,
    ) -> Counts | None:
        """Return the tokens of a text in a seed's order; studies of a sweep share them.

        Args:
            config: the recipe.
            corpus: the text; None: it is not there any more, and nothing is counted.
            seed: random seed of order and masks.
            mask_rate: masking rate of a run in which it changes over the budget.
        """
        if corpus is None:
            return None
        data = config.data
        key = (
            corpus.directory,
            corpus.digest,
            seed,
            data.mlm_probability,
            data.max_predictions,
            data.mask_copies,
            mask_rate,
        )
        if key not in self._counts:
            batch_size = min(COUNTED, corpus.sequences("train"))
            batches = train_batches(config, corpus, batch_size, seed, mask_rate=mask_rate)
            self._counts[key] = Counts(batches)
        return self._counts[key]

    def intact(self, directory: Path, shards: Sequence[Shard]) -> bool:
        """Return whether all shards have the manifest's bytes; add a difference for each other.

        Each file is hashed once in an audit.

        Args:
            directory: directory of the shards.
            shards: shards with the size and the SHA-256 that the manifest says.
        """
        for shard in shards:
            path = directory / shard.file
            # Studies of a sweep share their text, and hashing it is most of an audit.
            if path not in self._intact:
                self._intact[path] = shard.intact(directory)
            if not self._intact[path]:
                self.add(path, "other bytes", f"{shard.bytes} bytes of SHA-256 {shard.sha256}")
        return all(self._intact[directory / shard.file] for shard in shards)


def _equal(recorded: Any, expected: Any) -> bool:
    """Return whether two leaves are the same: whole numbers exactly, real ones but for rounding."""
    # `type`, not `isinstance`: a bool is no number here.
    are_numbers = all(type(value) in (int, float) for value in (recorded, expected))
    if are_numbers and isinstance(recorded + expected, float):
        return math.isclose(recorded, expected, rel_tol=CLOSE, abs_tol=1e-12)
    return type(recorded) is type(expected) and bool(recorded == expected)


def shared_part(values: Any, like: Any) -> Any:
    """Return a tree of dicts without the keys that another tree does not have.

    Args:
        values: tree that is cut down; a leaf is returned as it is.
        like: tree whose keys are kept, level by level.
    """
    if not (isinstance(values, dict) and isinstance(like, dict)):
        return values
    return {key: shared_part(value, like[key]) for key, value in values.items() if key in like}
