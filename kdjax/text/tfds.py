"""Data sets that TensorFlow Datasets has prepared: `tfds:DIRECTORY:SPLIT`."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.errors import InputError
from kdjax.storage.paths import local_path
from kdjax.text.records import Record
from kdjax.text.streams import TextError, import_optional, sha256

PREFIX = "tfds:"
INFO = "dataset_info.json"
EXAMPLES = 256
"""Examples read at a time."""


@dataclass(frozen=True)
class TfdsSplit:
    """One split of a prepared data set, or a slice of it as TFDS writes it: `train`, `train[:10%]`.

    Attributes:
        directory: directory of one version of one configuration, with its dataset_info.json.
        split: name of the split or slice.
    """

    directory: Path
    split: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.directory}:{self.split}"

    def digest(self) -> str:
        """Compute the SHA-256 of the split's name and of its files.

        Raises:
            InputError: a file is missing.
        """
        files = [self.directory / INFO, self.directory / "features.json"]
        split = _builder(self.directory).info.splits[self.split]
        files += map(Path, split.filepaths)
        digests = "".join(f"{path.name} {sha256(path)}\n" for path in files)
        return hashlib.sha256(f"{self.split}\n{digests}".encode()).hexdigest()


def find(uri: str) -> TfdsSplit:
    """Find the split of `tfds:DIRECTORY:SPLIT`; the directory is enough where there is one split.

    Args:
        uri: the name, prefix included.

    Raises:
        InputError: TFDS, or the TensorFlow this directory's format needs, is not installed.
        TextError: not a prepared data set, or no such split.
    """
    place, split = _split_uri(uri.removeprefix(PREFIX))
    directory = local_path(place, uri)
    if not (directory / INFO).is_file():
        raise TextError(
            f"{uri}: {directory} holds no {INFO}, expected the directory of one version of a data "
            "set"
        )
    builder = _builder(directory)
    # Only a data set with one split needs no name of it.
    splits = list(builder.info.splits)
    if not split and len(splits) != 1:
        raise TextError(
            f"{uri}: has the splits {', '.join(splits)}, expected tfds:DIRECTORY:SPLIT with one of "
            "them"
        )
    split = split or splits[0]
    if not _random_access(builder) and importlib.util.find_spec("tensorflow") is None:
        stored = builder.info.file_format.value
        raise InputError(
            f"{uri}: is stored as {stored}, which only TensorFlow reads: pip install tensorflow, "
            "or prepare the data set with file_format='array_record'"
        )
    try:
        builder.info.splits[split]
    except (KeyError, ValueError) as e:
        message = str(e).partition("\n")[0].strip("'\"")
        raise TextError(
            f"{uri}: no such split ({message}), expected one of {', '.join(splits)}"
        ) from None
    return TfdsSplit(directory, split)


def directory_hint(path: Path, pattern: str) -> str:
    """Return what to write for a prepared data set's directory that was named as if it were a file.

    Args:
        path: the place that was named.
        pattern: its name, as the user wrote it.

    Returns:
        A remark in brackets; empty where the place is no such directory.
    """
    if not (path / INFO).is_file():
        return ""
    return f" (a TFDS directory: '{PREFIX}{pattern}:SPLIT')"


def examples(
    source: TfdsSplit,
    features: Collection[str],
    expected: str = "the one data.text_field names",
) -> Iterator[Record]:
    """Yield a split's examples as stored, each with those of the features that it has.

    array_record needs no TensorFlow; other formats are read with it.

    Args:
        source: the split.
        features: names of the features to read.
        expected: what the features should have been, for messages.

    Raises:
        TextError: none of the features is there, or its files cannot be read.
    """
    builder = _builder(source.directory)
    present = [name for name in builder.info.features if name in features]
    if not present:
        names = ", ".join(builder.info.features)
        raise TextError(f"{source}: has the features {names}, expected {expected}")
    read = _read_at_random if _random_access(builder) else _stream
    try:
        for number, example in enumerate(read(builder, source, present)):
            where = f"{source}, example {number}"
            yield Record(where, None, {name: _text(example[name], where) for name in present})
    except (OSError, RuntimeError, ValueError) as e:
        raise TextError(
            f"{source}: cannot be read ({e}), expected a data set as TFDS prepared it"
        ) from None


def _split_uri(name: str) -> tuple[str, str]:
    """Split DIRECTORY:SPLIT; the split may have colons, as in `train[:10%]`, but no slash."""
    parent, slash, last = name.rpartition("/")
    directory, _, split = last.partition(":")
    return f"{parent}{slash}{directory}", split


def _builder(directory: Path) -> Any:
    """Open a prepared data set.

    Raises:
        TextError: TFDS cannot read it.
    """
    tfds = import_optional("tensorflow_datasets", "tfds", directory)
    try:
        return tfds.builder_from_directory(directory)
    except Exception as e:  # whatever TFDS finds wrong with the files
        raise TextError(
            f"{directory}: not readable as a data set ({e}), expected one that TFDS prepared"
        ) from None


def _random_access(builder: Any) -> bool:
    """Return whether a data set is stored as array_record, which is read without TensorFlow."""
    return bool(builder.info.file_format.value == "array_record")


def _read_at_random(builder: Any, source: TfdsSplit, names: Collection[str]) -> Iterator[Any]:
    # An image that nobody asks for is not decoded.
    decode = import_optional("tensorflow_datasets", "tfds", source).decode
    skipped = {name: decode.SkipDecoding() for name in builder.info.features if name not in names}
    data = builder.as_data_source(split=source.split, decoders=skipped)
    for start in range(0, len(data), EXAMPLES):
        yield from data.__getitems__(range(start, min(start + EXAMPLES, len(data))))


def _stream(builder: Any, source: TfdsSplit, _: Collection[str]) -> Iterator[Any]:
    tfds = import_optional("tensorflow_datasets", "tfds", source)
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    data = builder.as_dataset(split=source.split, shuffle_files=False, read_config=in_order)
    yield from tfds.as_numpy(data)


def _text(value: Any, where: str) -> Any:
    """Decode a feature: text comes as bytes; what else there is stays as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as e:
        raise TextError(
            f"{where}: not UTF-8 at byte {e.start} ({e.reason}), expected UTF-8 text"
        ) from None
