"""The library that reaches gs://, gcsfs, as kdjax uses it."""

from __future__ import annotations

import logging


def silence() -> None:
    """Keep gcsfs from logging failures with their tracebacks: whoever calls it says them itself.

    To be called once the library is imported, since that sets its own level.
    """
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
