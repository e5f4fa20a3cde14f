"""Bytes and lines of files, plain or compressed: all streamed, so no archive bursts memory."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import importlib
import io
import itertools
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, BinaryIO, Protocol

from kdjax.errors import InputError
from kdjax.text.remote import RemoteFile

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
LINE_BYTES = 32 * 2**20
"""A longer line, or record of a .json file, is refused before it is held."""
BUFFER = 2**20
"""Bytes read at a time."""
XZ_BYTES = 2**28
"""Memory that an .xz archive may ask for: four times that of the highest preset, `xz -9`."""
OLD_MAC = (
    "line ends of old Macs (\\r), which end no line here; `tr '\\r' '\\n'` turns them into \\n"
)
"""What is said of a file with \\r and without \\n."""
ZSTANDARD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


TextFile = Path | RemoteFile
"""A file of text, on this machine or at a URL."""


class TextError(InputError):
    """Text that cannot be used: trying again with the same files fails in the same way."""


def import_optional(module: str, extra: str, where: object) -> ModuleType:
    """Import a library that comes with an extra.

    Args:
        module: dotted name of the library's module.
        extra: extra of kdjax that installs it.
        where: what needs it, for the message.

    Raises:
        InputError: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise InputError(f"{where}: needs {module} ({e}): pip install 'kdjax[{extra}]'") from None


def uncompressed_suffix(path: TextFile) -> str:
    """Return a file's suffix in lower case, without that of a compression."""
    name = PurePath(path.name)
    if compression(path):
        name = name.with_suffix("")
    return name.suffix.lower()


def compression(path: TextFile) -> str:
    """Return the suffix of a file's compression in lower case; empty where it has none."""
    suffix = path.suffix.lower()
    if suffix not in COMPRESSIONS:
        return ""
    return suffix


def check_readable(path: TextFile) -> None:
    """Raise an InputError where a library is missing that the file's compression needs."""
    if compression(path) == ".zst":
        import_optional(ZSTANDARD, "zstd", path)


@contextlib.contextmanager
def open_decompressed(path: TextFile) -> Iterator[BinaryIO]:
    """Open a file's bytes, decompressed by its suffix.

    An archive of several members or frames is one text.

    Args:
        path: the file, plain or with a suffix of `COMPRESSIONS`.

    Raises:
        TextError: cannot be read, is damaged or ends early; also while it is read inside the block.
    """
    suffix = compression(path)
    damaged: tuple[type[Exception], ...] = (gzip.BadGzipFile, zlib.error, lzma.LZMAError)
    try:
        with contextlib.ExitStack() as stack:
            file: BinaryIO = stack.enter_context(path.open("rb", buffering=BUFFER))
            archive: Any = None
            if suffix == ".gz":
                archive = stack.enter_context(gzip.GzipFile(fileobj=file))
            elif suffix == ".bz2":
                archive = stack.enter_context(_Members(file, b"BZh", bz2.BZ2Decompressor))
            elif suffix == ".xz":
                archive = stack.enter_context(_Members(file, b"\xfd7zXZ\0", _xz_member))
            elif suffix == ".zst":
                zstd = import_optional(ZSTANDARD, "zstd", path)
                damaged = (*damaged, zstd.ZstdError)
                archive = stack.enter_context(zstd.ZstdFile(file))
            if archive is not None:
                file = io.BufferedReader(archive, BUFFER)
            # What goes wrong while the caller reads is raised here, too.
            yield file
    except EOFError:
        raise TextError(f"{path}: ends early, expected a whole {suffix} archive") from None
    except damaged as e:
        raise TextError(f"{path}: damaged ({e}), expected a {suffix} archive") from None
    except OSError as e:
        # The system's errors have a number, those of the bz2 module have none.
        if e.errno is None and suffix:
            raise TextError(f"{path}: damaged ({e}), expected a {suffix} archive") from None
        raise TextError(f"{path}: cannot be read ({e.strerror}), expected a file") from None


def lines(path: TextFile) -> Iterator[tuple[int, str]]:
    """Yield a UTF-8 file's lines, numbered from 1, without line ends and a byte-order mark.

    A line ends at \\n or \\r\\n and nowhere else: other characters that Unicode counts as line
    ends, such as U+0085 and U+2028, are text.

    Args:
        path: the file, perhaps compressed.

    Raises:
        TextError: cannot be read, a line of more than `LINE_BYTES`, or not UTF-8; says the byte.
    """
    start = 0
    with open_decompressed(path) as file:
        for number in itertools.count(1):
            line = file.readline(LINE_BYTES + 1)
            if not line:
                return
            # The line goes on behind what was read of it.
            if len(line) > LINE_BYTES:
                remedy = f" (has {OLD_MAC})" if b"\r" in line else ""
                raise TextError(
                    f"{path}, line {number}: is longer than {mebibytes(LINE_BYTES)}, the most that "
                    f"is held of a line, expected shorter lines{remedy}"
                )
            text = decode(line, path, start)
            if number == 1:
                text = text.removeprefix("\ufeff")
            # \r belongs to the line's end only where \n follows.
            if text.endswith("\n"):
                text = text.removesuffix("\n").removesuffix("\r")
            yield number, text
            start += len(line)


class _Member(Protocol):
    """What the decompressors of bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Members(io.RawIOBase):
    """The text of an archive's members, one after another.

    The standard library's own files pass over what follows the last member; here it is damage.
    """

    def __init__(self, file: BinaryIO, magic: bytes, new_member: Callable[[], _Member]) -> None:
        """Take an archive's bytes.

        Args:
            file: the archive.
            magic: first bytes of every member.
            new_member: makes a member's decompressor.
        """
        self._file = file
        self._magic = magic
        self._new_member = new_member
        self._member: _Member | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with text.

        Raises:
            EOFError: the archive ends within a member.
            OSError: something else stands where a member would begin.
        """
        text = b""
        while not text:
            data = b""
            if self._member is None or self._member.eof:
                data = self._member.unused_data if self._member else b""
                data = data or self._file.read(BUFFER)
                if not data and self._member:
                    return 0
                # A decompressor may wait for more bytes before it says what these are.
                if not data.startswith(self._magic[: len(data)]):
                    raise OSError("begins like no such archive")
                self._member = self._new_member()
            elif self._member.needs_input:
                data = self._file.read(BUFFER)
                if not data:
                    raise EOFError
            text = self._member.decompress(data, len(buffer))
        buffer[: len(text)] = text
        return len(text)


def _xz_member() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_BYTES)


def read_text(path: Path) -> str:
    """Read a whole UTF-8 file, without a byte-order mark; line ends stay as they are.

    Args:
        path: the file, perhaps compressed.

    Raises:
        TextError: cannot be read, or not UTF-8; says the byte.
    """
    with open_decompressed(path) as file:
        return decode(file.read(), path, 0).removeprefix("\ufeff")


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file's bytes, as they are on disk, in hex.

    Args:
        path: the file; a compressed one is not decompressed.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}), expected a file") from None


def decode(data: bytes, path: TextFile, start: int) -> str:
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
    """Check that a text has no half of a surrogate pair, which JSON can spell and UTF-8 cannot.

    Args:
        text: the text.
        where: place of the text, for the message.

    Raises:
        TextError: it has one; says the character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise TextError(
            f"{where}: has half a surrogate pair at character {e.start}, expected valid Unicode"
        ) from None


def mebibytes(size: int) -> str:
    """Return a limit in words, for messages."""
    return f"{size / 2**20:g} MiB"
