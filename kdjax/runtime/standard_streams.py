"""Standard output and standard error that cannot end a command.

What a terminal cannot show is replaced. A pipe whose reader is gone is no error: nobody wants the
rest. What else cannot be written (a full disk, a stream that was closed before the start) is
remembered, and the command goes on: its files matter more than what it says.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_STREAMS = (("stdout", 1), ("stderr", 2))
"""Names in `sys`, and numbers."""
_LIKE = {
    "−": "-",
    "–": "-",
    "±": "+/-",
    "×": "x",
    "…": "...",
    "↑": "^",
    "↓": "v",
    "\u00a0": " ",
    "\u2009": " ",
    "\u202f": " ",
}
"""Characters that kdjax prints -> what stands for each where the encoding lacks it; for any other a
question mark does. A number keeps its sign."""


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Return a replacement for characters that an encoding lacks, and the place to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_LIKE.get(character, "?") for character in missing), error.end


codecs.register_error("kdjax.replace", _replace)


class _LossyFile(io.FileIO):
    """A file of which writing never fails.

    Attributes:
        failure: the first error of writing, but for a pipe without a reader; None: there was none.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of the data, or remember why that cannot be.

        Args:
            data: bytes to write.

        Returns:
            The number of bytes, whether they were written or not.
        """
        unwritten = memoryview(data).cast("B")
        size = len(unwritten)
        try:
            while unwritten:
                count = super().write(unwritten)
                if count is None:
                    # The stream does not block, and its reader is slow.
                    select.select([], [self], [])
                else:
                    unwritten = unwritten[count:]
        except OSError as error:
            if error.errno != errno.EPIPE and self.failure is None:
                self.failure = error
        return size


class StandardStreams:
    """The streams of a command, while `protect_streams` holds."""

    def __init__(self) -> None:
        """Take no stream yet."""
        self._output: TextIO | None = None
        self._file: _LossyFile | None = None

    def take_output(self, stream: TextIO, file: _LossyFile) -> None:
        """Take standard output, to know later whether all of it was written."""
        self._output = stream
        self._file = file

    def output_failure(self) -> OSError | None:
        """Flush the streams; return the reason why not all of the output was written, or None."""
        if self._output is None or self._file is None:
            return None
        self._output.flush()
        return self._file.failure


@contextmanager
def protect_streams() -> Iterator[StandardStreams]:
    """Put streams that cannot fail in the place of this process's own, for the block.

    Streams that a program has redirected are its own, and stay.
    """
    before = {name: getattr(sys, name) for name, _ in _STREAMS}
    streams = StandardStreams()
    for name, number in _STREAMS:
        stream = before[name]
        if stream is not getattr(sys, f"__{name}__"):
            continue
        if stream is None:
            _hold_closed(number)
        file = _LossyFile(number, "w", closefd=False)
        lossy = _text_stream(stream, file)
        setattr(sys, name, lossy)
        if name == "stdout":
            streams.take_output(lossy, file)
    try:
        yield streams
    finally:
        for name, stream in before.items():
            if getattr(sys, name) is not stream:
                getattr(sys, name).flush()
                setattr(sys, name, stream)


def _hold_closed(number: int) -> None:
    """Keep the number of a closed stream from the next file that is opened.

    Else what libraries print would be written into that file.
    """
    try:
        os.fstat(number)
    except OSError:
        # Opened for reading: writing to it is an error, as it is for a closed stream.
        null = os.open(os.devnull, os.O_RDONLY)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def _text_stream(stream: TextIO | None, file: _LossyFile) -> TextIO:
    """Make a text stream of a file, in the encoding and with the buffering of another stream.

    Args:
        stream: the stream whose place it takes; None: it was closed.
        file: file that it writes to.
    """
    encoding = "utf-8"
    line_buffering = False
    write_through = False
    if isinstance(stream, io.TextIOWrapper):
        stream.flush()
        encoding = stream.encoding
        line_buffering = stream.line_buffering
        write_through = stream.write_through
    # Unbuffered text goes to the file at once, as it does in Python's own streams.
    buffer: Any = file if write_through else io.BufferedWriter(file)
    return io.TextIOWrapper(
        buffer,
        encoding=encoding,
        errors="kdjax.replace",
        line_buffering=line_buffering,
        write_through=write_through,
    )
