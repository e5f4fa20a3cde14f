"""Fields that results.json has only at times, and fields for keys that no type names."""

from __future__ import annotations

from dataclasses import field
from typing import Any

OPTIONAL = "optional"
"""In a field's metadata: it is written only where there is a value."""


REST = "rest"
"""In a field's metadata: it takes every key that no other field has."""


def optional() -> Any:
    """Return a field that is None where the file does not have its key."""
    return field(default=None, metadata={OPTIONAL: True})


def rest() -> Any:
    """Return a field for all keys that the type does not name."""
    return field(default_factory=dict, metadata={REST: True})
