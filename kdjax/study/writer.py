"""The one writer of a place: a command, of one process or several, that keeps all others out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from etils import epath

from kdjax.config import Config
from kdjax.errors import InputError, InUse
from kdjax.parallel import hosts
from kdjax.storage import locks


@contextmanager
def sole_writer(out: Path, backup: Any = None, part: str = "") -> Iterator[None]:
    """Keep other commands from writing to a directory, and to where it outlives the machine.

    Several processes of one job are one writer: the main one takes the places, and all call this at
    the same point and learn what came of it.

    Args:
        out: the directory.
        backup: its place in `train.checkpoint.directory`; None: there is none.
        part: name of the part of both that is written; two parts may be written at once, a part and
            the whole may not. Empty: the whole.

    Raises:
        InputError: one of them cannot be written.
        InUse: another command writes there.
    """
    refusal = ""
    in_use = False
    with ExitStack() as stack:
        if hosts.is_main_process():
            try:
                stack.enter_context(locks.hold(out, part))
                if backup is not None:
                    _hold_backup(stack, backup, part)
            except InputError as e:
                refusal = str(e)
                in_use = isinstance(e, InUse)
        refusal, in_use = hosts.broadcast_from_main([refusal, in_use])
        if refusal:
            raise InUse(refusal) if in_use else InputError(refusal)
        yield


def backup_of(config: Config) -> Any:
    """Return the place of a study in `train.checkpoint.directory`; None where there is none."""
    directory = config.train.checkpoint.directory
    if not directory:
        return None
    return epath.Path(directory if "://" in directory else Path(directory).absolute())


def _hold_backup(stack: ExitStack, backup: Any, part: str) -> None:
    """Hold a place in `train.checkpoint.directory` until the stack ends.

    Raises:
        InputError: it cannot be written.
        InUse: another command writes there.
    """
    try:
        stack.enter_context(locks.hold(backup, part))
    except InUse:
        raise
    except Exception as e:  # of many kinds: the system's, fsspec's, the cloud's
        reason = str(e) if isinstance(e, InputError) else f"{type(e).__name__}: {e}"[:200]
        raise InputError(
            f"train.checkpoint.directory: {backup} cannot be used ({reason}), expected a place to "
            "write to"
        ) from None
