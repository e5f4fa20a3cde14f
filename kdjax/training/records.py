"""What a run writes down besides its state, as it travels in a checkpoint: the journal and the
metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kdjax.budget import journal
from kdjax.files import write_text
from kdjax.training import metrics_log as log

FILES = (journal.NAME, log.NAME)


def read(directory: Path) -> dict[str, str]:
    """The records of a run so far, by file name."""
    return {name: (directory / name).read_text(encoding="utf-8") for name in FILES}


def restore(directory: Path, kept: Mapping[str, str]) -> None:
    """Puts a checkpoint's records in their place, but where those there begin with them: a kill may
    have undone steps that the journal has on record.

    They do not on another machine, or where the run went on elsewhere meanwhile.
    """
    for name, text in kept.items():
        path = directory / name
        if not path.exists() or not path.read_bytes().startswith(text.encode()):
            write_text(path, text)
