"""Bytes and lines of files, plain, gzip or Zstandard: all streamed, so no archive bursts memory."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import io
import itertools
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from kdjax.errors import InputError

COMPRESSIONS = (".gz", ".zst")
LINE_BYTES = 32 * 2**20
"""A longer line, or record of a .json file, is refused before it is held."""
BUFFER = 2**20
"""Bytes read at a time."""
ZSTANDARD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


class TextError(InputError):
    """Text that cannot be used: trying again with the same files fails in the same way."""


def optional(module: str, extra: str, where: object) -> ModuleType:
    """Import a library that comes with an extra.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise InputError(f"{where}: needs {module} ({e}): pip install 'kdjax[{extra}]'") from None


def kind(path: Path) -> str:
    """Return a file's suffix, without that of a compression."""
    if path.suffix in COMPRESSIONS:
        path = path.with_suffix("")
    return path.suffix


def check_readable(path: Path) -> None:
    """Raise an InputError where a library is missing that the file's compression needs."""
    if path.suffix == ".zst":
        optional(ZSTANDARD, "zstd", path)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file's bytes, decompressed by its suffix.

    An archive of several members or frames is one text.

    Raises:
        TextError: cannot be read, is damaged or ends early; also while it is read inside the block.
    """
    damaged: tuple[type[Exception], ...] = (gzip.BadGzipFile, zlib.error)
    try:
        with contextlib.ExitStack() as stack:
            file: BinaryIO = stack.enter_context(path.open("rb", buffering=BUFFER))
            if path.suffix == ".gz":
                archive: Any = stack.enter_context(gzip.GzipFile(fileobj=file))
                file = io.BufferedReader(archive, BUFFER)
            elif path.suffix == ".zst":
                zstd = optional(ZSTANDARD, "zstd", path)
                damaged = (*damaged, zstd.ZstdError)
                archive = stack.enter_context(zstd.ZstdFile(file))
                file = io.BufferedReader(archive, BUFFER)
            # What goes wrong while the caller reads is raised here, too.
            yield file
    except EOFError:
        raise TextError(f"{path}: ends early, expected a whole {path.suffix} archive") from None
    except damaged as e:
        raise TextError(f"{path}: damaged ({e}), expected a {path.suffix} archive") from None
    except OSError as e:
        raise TextError(f"{path}: cannot be read ({e.strerror}), expected a file") from None


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield a UTF-8 file's lines, numbered from 1, without line ends and a byte-order mark.

    Raises:
        TextError: cannot be read, a line of more than `LINE_BYTES`, or not UTF-8; says the byte.
    """
    start = 0
    with opened(path) as file:
        for number in itertools.count(1):
            line = file.readline(LINE_BYTES + 1)
            if not line:
                return
            # The line goes on behind what was read of it.
            if len(line) > LINE_BYTES:
                raise TextError(
                    f"{path}, line {number}: is longer than {mebibytes(LINE_BYTES)}, expected "
                    "shorter lines"
                )
            text = decode(line, path, start)
            if number == 1:
                text = text.removeprefix("\ufeff")
            yield number, text.rstrip("\r\n")
            start += len(line)


def read_text(path: Path) -> str:
    """Read a whole UTF-8 file, without a byte-order mark; line ends stay as they are.

    Raises:
        TextError: cannot be read, or not UTF-8; says the byte.
    """
    with opened(path) as file:
        return decode(file.read(), path, 0).removeprefix("\ufeff")


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file's bytes, as they are on disk, in hex.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}), expected a file") from None


def decode(data: bytes, path: Path, start: int) -> str:
    """Decode UTF-8.

    Args:
        data: bytes of the file.
        path: the file, for messages.
        start: number of bytes before them, for messages.

    Raises:
        TextError: not UTF-8; says the byte.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        raise TextError(
            f"{path}: not UTF-8 at byte {start + e.start} ({e.reason}), expected UTF-8 text"
        ) from None


def check_characters(text: str, where: str) -> None:
    """Raise a TextError for half a surrogate pair, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise TextError(
            f"{where}: has half a surrogate pair at character {e.start}, expected valid Unicode"
        ) from None


def mebibytes(size: int) -> str:
    """Return a limit in words, for messages."""
    return f"{size / 2**20:g} MiB"
