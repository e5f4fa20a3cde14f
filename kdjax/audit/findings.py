"""What an audit finds: differences between what files say and what follows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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


class AuditFindings:
    """What an audit finds.

    Attributes:
        differences: in the order they were found, each once.
        lines: what was worked out anew.
        counts: tokens counted, by corpus, seed and masking: studies of a sweep share them.
    """

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.lines: list[str] = []
        self.counts: dict[Any, Counts] = {}
        self._intact: dict[Path, bool] = {}

    def add(self, where: object, found: object, expected: object) -> None:
        """Add a difference, unless it is known; studies of a sweep share files."""
        difference = Difference(str(where), str(found), str(expected))
        if difference not in self.differences:
            self.differences.append(difference)

    def expect_equal(
        self, where: object, found: Any, expected: Any, name: str = "", note: str = ""
    ) -> None:
        """Hold one tree of plain values against another, and add a difference for every leaf that
        is another.

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
            for key in {**expected, **found}:
                below = f"{name}.{key}" if name else str(key)
                here = found.get(key, NOTHING)
                self.expect_equal(where, here, expected.get(key, NOTHING), below, note)
        elif not _equal(found, expected):
            self.add(f"{where}: {name}" if name else where, found, f"{expected}{note}")

    def expect_fields(
        self,
        where: object,
        found: Mapping[str, Any],
        expected: Mapping[str, Any],
        name: str = "",
        note: str = "",
    ) -> None:
        """Hold the fields of a mapping that are expected against it, and leave out the others.

        Args:
            where: the file.
            found: what is there.
            expected: what should be in it.
            name: of the mapping in the file, dotted.
            note: what else is to be said of an expected value.
        """
        fields = {field: found.get(field, NOTHING) for field in expected}
        self.expect_equal(where, fields, dict(expected), name, note)

    @contextmanager
    def record_errors(self, where: Path) -> Iterator[None]:
        """Make a difference of what goes wrong in the block: there is no end to what a mangled file
        can cause.

        Args:
            where: what is read there.
        """
        try:
            yield
        except InputError as error:
            # An error that names the file has its own place, else it is this one.
            place, _, text = str(error).partition(": ")
            if not place.startswith(str(where)):
                place = str(where)
                text = str(error)
            found, _, expected = text.partition(", expected ")
            self.add(place, found, expected or WRITTEN)
        except Exception as error:
            self.add(where, f"{type(error).__name__}: {error}", WRITTEN)

    def read(self, path: Path) -> dict[str, Any]:
        """Return a file's JSON object; empty where there is none, which is a difference."""
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
        """Return whether all shards have the bytes of the manifest; each is read once."""
        for shard in shards:
            path = directory / shard.file
            if path not in self._intact:
                self._intact[path] = shard.intact(directory)
            if not self._intact[path]:
                self.add(path, "other bytes", f"{shard.bytes} bytes of SHA-256 {shard.sha256}")
        return all(self._intact[directory / shard.file] for shard in shards)


def _equal(found: Any, expected: Any) -> bool:
    """Return whether two leaves are the same."""
    is_number = all(type(value) in (int, float) for value in (found, expected))
    if is_number and isinstance(found + expected, float):
        return math.isclose(found, expected, rel_tol=CLOSE, abs_tol=1e-12)
    return type(found) is type(expected) and bool(found == expected)


def shared_part(values: Any, like: Any) -> Any:
    """Return the part of a tree whose branches another tree has too."""
    if not (isinstance(values, dict) and isinstance(like, dict)):
        return values
    return {key: shared_part(value, like[key]) for key, value in values.items() if key in like}
