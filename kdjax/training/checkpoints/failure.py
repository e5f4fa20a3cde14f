"""Why a file could not be written or read, in a few words for the user."""

from __future__ import annotations

import os
import re
from typing import Any


class Damaged(Exception):
    """A checkpoint is damaged; the message is for the user."""


def reason_of(error: Exception, within: Any = None) -> str:
    """Return in a few words why something failed: the system's, or the file or array it names.

    Args:
        error: exception that was raised.
        within: directory whose path is left out.
    """
    root = _root_cause(error)
    if isinstance(root, OSError) and root.errno:
        return os.strerror(root.errno)
    text = " ".join(str(root).split())
    # TensorStore names the system's error by its number.
    code = re.search(r"os[ _]error(?:_code=')? ?(\d+)", text)
    if code:
        return os.strerror(int(code[1]))
    text = re.sub(r" \[tensorstore_spec.*", "", text).replace(f"{within}/", "")
    if not isinstance(root, Damaged):
        text = f"{type(root).__name__}: {text}"
    return text[:400]


def _root_cause(error: BaseException) -> BaseException:
    """Return the first error of a chain of errors."""
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    if cause is None:
        return error
    return _root_cause(cause)
