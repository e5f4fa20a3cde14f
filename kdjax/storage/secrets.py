"""Users and passwords in what should be a path or a plain URL: found, and never repeated.

Whatever looks like the authority of a URL counts, well-formed or not, since what is mistyped is
shown in a message: `https:user:password@host`, `//user:password@host`, `a::https://user@host`.
"""

from __future__ import annotations

import re

from kdjax.storage.prefixes import NAME_PREFIXES

_PROTOCOLS = re.compile(r"(?:[a-z][a-z0-9+.-]*:+)*/*", re.IGNORECASE)
# A password may hold a slash: then what stands before it is no number of a port.
_AUTHORITY = re.compile(r"(?:^/|:/?)/[^/@]*@|:/+[^/@]*:(?!\d+/)[^@]*@")
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*:(?=[:/])", re.IGNORECASE)


def has_user(text: str) -> bool:
    """Return whether a path or URL looks as if it had a user or a password before an @."""
    before, at, _ = text.rpartition("@")
    if not at:
        return False
    if _AUTHORITY.search(text):
        return True
    # Names have a revision or a split behind their @; two colons before it are none of theirs.
    if text.startswith(NAME_PREFIXES):
        return ":" in before.partition(":")[2]
    protocols = _PROTOCOLS.match(before)
    start = protocols.group() if protocols else ""
    return (":" in start or start.startswith("//")) and "/" not in before[len(start) :]


def without_user(text: str) -> str:
    """Return a path or URL as a message may show it.

    Where it has a user, nothing before the last @ is left but the protocol, and no query, which
    may be a signature.
    """
    if not has_user(text):
        return text
    protocol = _PROTOCOL.match(text)
    place = re.split(r"[?#]", text.rpartition("@")[2], maxsplit=1)[0]
    if protocol:
        return f"{protocol.group()}//{place}"
    return place
