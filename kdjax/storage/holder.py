"""What a lock says of the process that holds it."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from typing import Any


def this_process() -> dict[str, Any]:
    """Return this process's number, the name of its host, and the time now."""
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "began": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }


def describe(holder: Any) -> str:
    """Say in words who writes, and since when.

    Args:
        holder: what `this_process` returned there; anything else where it cannot be read.
    """
    try:
        return (
            f"process {holder['process']} on host {holder['host']} has been writing here since "
            f"{holder['began']}"
        )
    except (KeyError, TypeError):
        return "another process is writing here"
