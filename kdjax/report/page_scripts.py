"""The scripts that a study's page carries, and how data stand in a page for them."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

DIRECTORY = Path(__file__).parent / "scripts"
NAMES = ("d3.min.js", "plot.umd.min.js", "page.js")
"""The files, in the order in which a page runs them."""
_ESCAPED = "<>&\u2028\u2029"
"""Characters with which a tag, an entity or a line of JavaScript could begin."""


@dataclass(frozen=True)
class Script:
    """A script of a page.

    Attributes:
        text: the script.
        digest: its SHA-256 as a content security policy names it.
    """

    text: Markup
    digest: str


@functools.cache
def scripts() -> tuple[Script, ...]:
    """Return the scripts of a page, in their order."""
    read = []
    for name in NAMES:
        text = (DIRECTORY / name).read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        read.append(Script(Markup(text), f"sha256-{digest}"))
    return tuple(read)


def as_json(values: Any) -> Markup:
    """Return values as JSON that may stand within a script element: no tag can begin in it.

    Args:
        values: plain values.
    """
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in _ESCAPED:
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
