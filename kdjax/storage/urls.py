"""URLs that a user writes, of files of text."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from kdjax.errors import InputError
from kdjax.storage import hub, secrets

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Return whether a text begins as a URL does."""
    return _URL.match(text) is not None


def check_url(text: str, name: str) -> None:
    """Check a URL; nothing is asked of its server.

    What a URL can carry of a secret (a password, a signature) would come to stand in manifests
    and reports, so none of it is taken; no message repeats it.

    Args:
        text: the URL as the user wrote it.
        name: dotted name of the setting, for messages.

    Raises:
        InputError: it has no server or path, or has a user, a password, a query or a fragment; or
            it is of the Hub and ill-formed.
    """
    if text.lower().startswith(hub.FILE_PREFIX):
        hub.parse(text, name)
        return
    try:
        parts = urlsplit(text)
        server = parts.hostname
    except ValueError:
        raise InputError(f"{name} is not a whole URL, expected PROTOCOL://SERVER/PATH") from None
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if secrets.has_user(text):
        shown = secrets.without_user(text)
    if secrets.has_user(text) or "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            f"{name} is {shown!r:.200} with more, expected a URL without user, password, query and "
            "fragment, which would come to stand in manifests: credentials belong in the "
            "environment or in files, as the server's own tools have them"
        )
    if not server or not parts.path.strip("/") or "::" in text or "\0" in text:
        raise InputError(f"{name} is {shown!r:.200}, expected PROTOCOL://SERVER/PATH")
