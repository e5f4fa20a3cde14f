"""Paths that a user writes, in a recipe, on the command line or in a program: one way to read them
all."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kdjax.errors import InputError
from kdjax.storage import hub, secrets, urls
from kdjax.storage.prefixes import NAME_PREFIXES

LONGEST_PART = 255
"""Most bytes of a file's or a directory's name on common file systems."""
LONGEST_PATH = 4095
"""Most bytes of a path on Linux."""
_BUCKET = re.compile(r"gs://[^/]+(/.*)?")


def user_cache() -> Path:
    """Return the directory for files that can be made again: `$XDG_CACHE_HOME/kdjax`, or
    `~/.cache/kdjax`.

    Raises:
        RuntimeError: the user has no home.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ".cache"
    return base / "kdjax"


def expand_path(text: str | Path, name: str, *, bucket: bool = False) -> str:
    """Check a path and expand a leading `~`; whether it exists is not looked at.

    Args:
        text: the path as the user wrote it.
        name: name of the setting or argument, for messages.
        bucket: whether gs://bucket/path is taken, too; it is returned as it is.

    Raises:
        InputError: it is no path, is empty, has a user or a password as URLs have them, holds a
            NUL, is longer than file systems allow, names a user who has no home, or is a URL where
            a path is expected.
    """
    expected = "a path or gs://bucket/path" if bucket else "a path on this machine"
    path = path_text(text, name, expected)
    check_no_user(path, name, expected)
    if not path.strip():
        raise InputError(f"{name} is {path!r}, expected {expected}")
    if "\0" in path:
        raise InputError(f"{name} is {path!r}, expected {expected}, without NUL characters")
    # Path() would make a directory of a URL; one slash is left where a path was joined or made.
    if re.match(r"[a-z0-9+.-]+:/", path, re.IGNORECASE):
        if bucket and _BUCKET.fullmatch(path):
            return path
        only = ": only files of text and train.checkpoint.directory can be elsewhere"
        if bucket:
            only = ""
        # Behind a question mark may stand a signature.
        shown = re.split(r"[?#]", path, maxsplit=1)[0]
        raise InputError(f"{name} is {shown!r}, expected {expected}{only}")
    home = os.path.expanduser(path)  # noqa: PTH111 - Path's raises without saying whose home
    if home.startswith("~"):
        user = path.partition("/")[0]
        raise InputError(f"{name} is {path!r}, expected a path: {user} has no home here")
    too_long = any(len(os.fsencode(part)) > LONGEST_PART for part in home.split("/"))
    if too_long or len(os.fsencode(home)) > LONGEST_PATH:
        raise InputError(
            f"{name} is {path[:60]!r}…, expected a path of at most {LONGEST_PATH:,} bytes, and "
            f"{LONGEST_PART} between two slashes"
        )
    return home


def path_text(path: object, name: str, expected: str = "a path") -> str:
    """Return a path as text; what is no path is refused.

    Args:
        path: text, or an object that stands for a path, such as `pathlib.Path`.
        name: name of the setting or argument, for messages.
        expected: what it should have been, for messages.

    Raises:
        InputError: it is neither.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise InputError(f"{name} is {path!r:.80}, expected {expected}: a str or a Path")
    return text


def check_no_user(text: str, name: str, expected: str) -> None:
    """Refuse a text with what looks like the user or the password of a URL, and do not repeat it.

    Args:
        text: path, URL or name as the user wrote it.
        name: name of the setting or argument, for messages.
        expected: what it should have been, for messages.

    Raises:
        InputError: it has one.
    """
    if secrets.has_user(text):
        raise InputError(
            f"{name} is {secrets.without_user(text)!r:.200} with a user or a password before its "
            f"@, expected {expected} without them"
        )


def local_path(text: str | Path, name: str) -> Path:
    """Read a path on this machine.

    Args:
        text: the path as the user wrote it.
        name: name of the setting or argument, for messages.

    Raises:
        InputError: it cannot be a path, or names a user who has no home (`expand_path`).
    """
    path = Path(expand_path(text, name))
    # `.` and `..` have no name, beside which another could be made.
    if path.name in ("", ".."):
        return path.resolve()
    return path


def check_setting(
    text: str,
    name: str,
    *,
    bucket: bool = False,
    url: bool = False,
    hub_file: bool = False,
    hub_repository: bool = False,
) -> None:
    """Check a path of a recipe when the recipe is read; an empty one is one that is not set.

    Args:
        text: the path, or a name that begins with one of `NAME_PREFIXES`.
        name: dotted name of the setting, for messages.
        bucket: whether gs://bucket/path is taken, too.
        url: whether the URL of a file of text is taken, too.
        hub_file: whether a file of the Hugging Face Hub is taken, too (hf://...).
        hub_repository: whether a repository of it is taken, too (hf:OWNER/NAME).

    Raises:
        InputError: it cannot be a path (`expand_path`), or is an ill-formed URL or name of the Hub.
            What stands before an @, as a password does, is not repeated.
    """
    if not isinstance(text, str):
        raise InputError(f"{name} is {text!r:.80}, expected text")
    if hub.is_hub_name(text):
        _check_hub_name(text, name, file=hub_file, repository=hub_repository)
        return
    if url and urls.is_url(text):
        urls.check_url(text, name)
        return
    # What stands behind the colon is found by the package's or the data set's own rules.
    if text.startswith(NAME_PREFIXES):
        check_no_user(text, name, "a name")
        if "\0" in text:
            raise InputError(f"{name} is {text!r}, expected a name without NUL characters")
    elif text:
        expand_path(text, name, bucket=bucket)


def _check_hub_name(text: str, name: str, *, file: bool, repository: bool) -> None:
    """Check a name on the Hub: well-formed, and of a file or a repository as is taken here."""
    if not (file or repository):
        shown = secrets.without_user(text)
        raise InputError(f"{name} is {shown!r:.200}, expected a path on this machine")
    parsed = hub.parse(text, name)
    is_taken = file if parsed.path else repository
    if not is_taken:
        expected = hub.EXPECTED_FILE if file else hub.EXPECTED_REPOSITORY
        raise InputError(f"{name} is {text!r:.200}, expected {expected}")
