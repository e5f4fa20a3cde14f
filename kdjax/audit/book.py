"""What an audit finds: differences between what files say and what follows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.audit.counts import Counts
from kdjax.data.manifest import Shard
from kdjax.errors import InputError
from kdjax.files import read_json

CLOSE = 1e-9
"""Relative difference up to which real numbers are the same: another library may round the last
digits otherwise."""
NOTHING = "nothing"
WRITTEN = "the file as kdjax wrote it"


@dataclass(frozen=True)
class Difference:
    """Something that a study's files say and that does not follow.

    Attributes:
        where: the file, and what in it.
        found: what is there.
        expected: what follows from the recipe, the prices, the text or the other files.
    """

    where: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}, expected {self.expected}"


class Book:
    """What an audit finds.

    Attributes:
        differences: in the order they were found, each once.
        lines: what was worked out anew.
        counts: tokens counted, by corpus, seed and batch.
    """

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.lines: list[str] = []
        self.counts: dict[Any, Counts] = {}
        self._hashed: dict[Path, bool] = {}

    def add(self, where: object, found: object, expected: object) -> None:
        """A difference, unless it is known; studies of a sweep share files."""
        made = Difference(str(where), str(found), str(expected))
        if made not in self.differences:
            self.differences.append(made)

    def same(
        self, where: object, found: Any, expected: Any, name: str = "", note: str = ""
    ) -> None:
        """Holds one tree of plain values against another; a difference for every leaf that is
        another.

        Args:
            where: the file.
            found: what is there.
            expected: what should be.
            name: of the tree in the file, dotted.
            note: what else is to be said of an expected value.
        """
        if isinstance(found, list) and isinstance(expected, list):
            found = dict(enumerate(found))
            expected = dict(enumerate(expected))
        if isinstance(found, dict) and isinstance(expected, dict):
            for key in [*expected, *(key for key in found if key not in expected)]:
                pair = found.get(key, NOTHING), expected.get(key, NOTHING)
                self.same(where, *pair, f"{name}.{key}" if name else str(key), note)
        elif not _equal(found, expected):
            self.add(f"{where}: {name}" if name else where, found, f"{expected}{note}")

    @contextmanager
    def reading(self, where: Path) -> Iterator[None]:
        """What goes wrong in the block is a difference: there is no end to what a mangled file can
        cause."""
        try:
            yield
        except InputError as e:
            place, _, text = str(e).partition(": ")
            found, _, expected = (text if place.startswith(str(where)) else str(e)).partition(
                ", expected "
            )
            self.add(place if place.startswith(str(where)) else where, found, expected or WRITTEN)
        except Exception as e:
            self.add(where, f"{type(e).__name__}: {e}", WRITTEN)

    def read(self, path: Path) -> dict[str, Any]:
        """A JSON object; empty where there is none, which is a difference."""
        try:
            value = read_json(path)
        except InputError:
            self.add(path, "no JSON" if path.exists() else "no file", WRITTEN)
            return {}
        if isinstance(value, dict):
            return value
        self.add(path, f"JSON that is no object: {value!r:.40}", WRITTEN)
        return {}

    def intact(self, directory: Path, shards: Sequence[Shard]) -> bool:
        """Whether all shards have the bytes of the manifest."""
        for shard in shards:
            path = directory / shard.file
            if path not in self._hashed:
                self._hashed[path] = shard.intact(directory)
            if not self._hashed[path]:
                self.add(path, "other bytes", f"{shard.bytes} bytes of SHA-256 {shard.sha256}")
        return all(self._hashed[directory / shard.file] for shard in shards)


def _equal(found: Any, expected: Any) -> bool:
    """Whether two leaves are the same."""
    numbers = all(
        isinstance(value, (int, float)) and not isinstance(value, bool)
        for value in (found, expected)
    )
    if numbers and isinstance(found + expected, float):
        return math.isclose(found, expected, rel_tol=CLOSE, abs_tol=1e-12)
    return type(found) is type(expected) and bool(found == expected)


def among(values: Any, like: Any) -> Any:
    """Of a tree, what another has too."""
    if not (isinstance(values, dict) and isinstance(like, dict)):
        return values
    return {key: among(value, like[key]) for key, value in values.items() if key in like}
