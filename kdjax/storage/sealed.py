"""JSON files that hold the digest of their own content, so that damage and edits show."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from kdjax.errors import InputError
from kdjax.storage.files import digest, read_json, write_json
from kdjax.storage.typed_json import from_plain, to_plain

SEAL = "sha256"
"""The field with the digest of all others and of the file's name."""


class Sealed(NamedTuple):
    """The content of a file, and whether it was held against a digest.

    Attributes:
        value: what was read.
        has_seal: whether the file holds a digest; those of earlier versions do not.
    """

    value: Any
    has_seal: bool


def write_sealed(path: Path, value: Any) -> None:
    """Write a dataclass as JSON with its digest, whole or not at all.

    Args:
        path: path of the file; its name is part of the digest.
        value: a dataclass without a field `sha256`.

    Raises:
        InputError: it cannot be written.
    """
    content = to_plain(value)
    write_json(path, {**content, SEAL: _seal(path, content)})


def read_sealed(kind: type[Any], path: Path) -> Sealed:
    """Read a file of `write_sealed`, and check its digest, where there is one.

    Args:
        kind: the dataclass.
        path: path of the file.

    Raises:
        InputError: the file is not whole JSON, a field in it is missing, mistyped or unknown, or
            its content has another digest than it holds.
    """
    content = from_plain(dict[str, Any], read_json(path), f"{path}:")
    has_seal = SEAL in content
    seal = content.pop(SEAL, None)
    value = from_plain(kind, content, f"{path}:")
    if has_seal and seal != _seal(path, content):
        raise InputError(
            f"{path}: its content has another digest than its {SEAL} says, expected the file as "
            "kdjax wrote it, or none: then it is made again"
        )
    return Sealed(value, has_seal)


def _seal(path: Path, content: dict[str, Any]) -> str:
    """Compute the SHA-256 of a file's name and content."""
    return digest([path.name, content])
