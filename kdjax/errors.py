"""What a user can get wrong: every such error is an `InputError`, which the command line prints as
one line.

And `Stopped`, which is nobody's mistake.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Something given to kdjax cannot be used.

    The message is one line: what was found, where, and what was expected. The command line prints
    it and ends with status 2; a library caller catches it.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


class Diverged(InputError):
    """Training came to numbers that are not finite: its settings cannot be used."""


class Unfinished(InputError):
    """Work that took long stopped before its end, and what is done of it stays: the same command
    goes on with it."""


class Stopped(SystemExit):
    """The process was told to stop, and nothing is lost: the same command goes on.

    Its code, the exit status, is 75: the `EX_TEMPFAIL` of sysexits.h, "try again later". `except
    Exception` lets it through.
    """

    STATUS = 75

    def __init__(self, done: str = "nothing is lost"):
        super().__init__(self.STATUS)
        self.message = f"told to stop; {done}; the same command goes on"

    def __str__(self) -> str:
        return self.message


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint for a misspelt name: ` (did you mean 'x'?)`, or the valid names when none is near."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (valid: {', '.join(names)})" if names else ""
