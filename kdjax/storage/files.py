"""Small files, written whole or not at all, and lines added to files likewise."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdjax.errors import InputError, InUse, Unfinished

LOCK = ".lock"
"""Begins the names of the files by which `kdjax.storage.locks` keeps a directory to one writer."""


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it: a kill leaves the old or the new one.

    It is UTF-8 whatever the locale. Bytes of a file's name that are not are written as `\\udcXX`,
    which JSON reads as the same name.

    Raises:
        InputError: it cannot be written.
    """
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it: a kill leaves the old or the new one.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with beside.open("wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        beside.replace(path)
    except OSError as e:
        raise InputError(
            f"{path}: cannot be written ({e.strerror}), expected a file's place in a directory "
            "that can be written to"
        ) from None


def append_text(path: Path, text: str, *, durable: bool) -> None:
    """Add to the end of a file, made where there is none: all of the text, or none.

    Args:
        path: file to add to.
        text: text to add.
        durable: whether it is on the disk before this returns, with all that was added before.

    Raises:
        OSError: it cannot be written; a part that was is taken back.
    """
    with path.open("ab", buffering=0) as f:
        end = f.seek(0, os.SEEK_END)
        unwritten = memoryview(text.encode())
        try:
            while unwritten:
                unwritten = unwritten[f.write(unwritten) :]
            if durable:
                os.fsync(f.fileno())
        except OSError:
            f.truncate(end)
            raise


def check_writable(directory: Path) -> None:
    """Make a directory where there is none, and check that files can be made in it.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as e:
        raise InputError(
            f"{directory}: cannot be written ({e.strerror}), expected a writable directory"
        ) from None


@contextmanager
def remove_on_input_error(*directories: Path, unless: str = "") -> Iterator[None]:
    """Delete what the block made of these directories if it ends in bad input.

    Those that held something before stay, and so does work that is `Unfinished`, and all of it
    where another process is writing.

    Args:
        directories: directories that the block makes.
        unless: a pattern of paths within one of them; where any is there, work that took long is
            done, and nothing at all is deleted.
    """
    new = [directory for directory in directories if not entries(directory)]
    absent = [directory for directory in new if not directory.exists()]
    try:
        yield
    except (Unfinished, InUse):
        raise
    except InputError:
        if unless and any(next(directory.glob(unless), None) for directory in new):
            raise
        for directory in new:
            for path in entries(directory):
                _remove(path)
        # A locked directory was made for its lock, and goes with it.
        for directory in absent:
            shutil.rmtree(directory, ignore_errors=True)
        raise


def entries(directory: Path) -> list[Path]:
    """List the entries of a directory besides locks; nothing where there is no directory."""
    if not directory.is_dir():
        return []
    return [path for path in directory.iterdir() if not path.name.startswith(LOCK)]


def _remove(path: Path) -> None:
    """Delete a file, or a directory with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all.

    Raises:
        InputError: it cannot be written.
        ValueError: the value holds a number that is not finite.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def digest(value: Any) -> str:
    """Compute the SHA-256 of a value as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a mapping of a JSON object's keys and values, for `object_pairs_hook`.

    Raises:
        ValueError: a key comes twice.
    """
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r:.80} twice in one object, expected each key once")
    return mapping


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        InputError: the file is not whole JSON, or an object in it has a key twice.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(f"{path}: expected a JSON file, found {e}") from None
