"""What tests read out of directories."""

from __future__ import annotations

import hashlib
from pathlib import Path


def contents(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory, by its path in it."""
    digests = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(directory))
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests
