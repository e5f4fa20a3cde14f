"""Errors that a user can cause, all of them `InputError`, which the command line prints as a line.

And `Stopped`, which is nobody's mistake.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_USER = re.compile(r"//[^/@\s]+@")
"""What stands before the server in a URL. Paths and URLs are looked at more closely where they are
read (`kdjax.storage.secrets`)."""


_ERROR_NUMBER = re.compile(r"\[Errno -?\d+\] ")
"""What Python puts before the words of the operating system."""


class InputError(Exception):
    """An input of kdjax that cannot be used.

    The message is one line: what was found, where, and what was expected. The command line prints
    it and ends with status 2; a library caller catches it. Where it repeats a URL, it does so
    without the user and the password in it, whatever setting the URL stands in; of an error of the
    operating system it has the words without the number.
    """

    def __init__(self, message: str):
        line = _ERROR_NUMBER.sub("", " ".join(message.split()))
        super().__init__(_USER.sub("//", line))


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun: `1 seed`, `3,000 seeds`, `2 studies`.

    Args:
        count: the number.
        noun: the noun for one.
        plural: the noun for several; empty: `noun` with an s.
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {plural or noun + 's'}"


class Diverged(InputError):
    """Training that came to numbers that are not finite: its settings cannot be used."""


class NoHandles(InputError):
    """No file handle is left to this process, nor to the libraries that would end their threads."""


class Unfinished(InputError):
    """Long work that stopped before its end and stays: the same command goes on with it."""


class InUse(InputError):
    """A place that another process is writing to: it has to end first, and nothing was touched."""


class Stopped(SystemExit):
    """A signal to stop, after which nothing is lost: the same command goes on.

    Its code, the exit status, is 75: the `EX_TEMPFAIL` of sysexits.h, "try again later". `except
    Exception` lets it through.
    """

    STATUS = 75

    def __init__(self, done: str = "nothing is lost"):
        super().__init__(self.STATUS)
        self.message = f"told to stop; {done}; the same command goes on"

    def __str__(self) -> str:
        return self.message


MOST_NAMED = 40
"""Valid names that a message lists, at most."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint for a misspelt name: the nearest valid one, or all where none is near.

    ` (did you mean 'x'?)` or ` (valid: x, y)`; nothing where there are no valid names. Of more than
    `MOST_NAMED` the three nearest: ` (230 are valid, the nearest of them x, y, z)`.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    if len(names) > MOST_NAMED:
        nearer = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
        return f" ({len(names)} are valid, the nearest of them {', '.join(nearer)})"
    if names:
        return f" (valid: {', '.join(names)})"
    return ""
