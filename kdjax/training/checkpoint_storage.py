"""Checkpoints of a run: state, ledger and records, together or not at all. The only file that knows
Orbax."""

from __future__ import annotations

import gc
import inspect
import logging
import os
import re
import sys
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import CoroutineType, TracebackType
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp
from safetensors import SafetensorError
from safetensors.numpy import save_file

from kdjax.budget.ledger import Ledger
from kdjax.errors import InputError
from kdjax.files import digest
from kdjax.parallel import hosts
from kdjax.training.checksum import checksums, differing

# Orbax narrates every save, and each failure in each thread
logging.getLogger("absl").setLevel(logging.CRITICAL)

KEEP = 2
"""Checkpoints kept: the newest and the one before."""
DAMAGED = ".damaged"
"""Ends the name of a checkpoint that could not be read and was moved aside."""


class Unsaved(Exception):
    """A checkpoint that could not be written; those before it are as they were."""


@dataclass(frozen=True)
class Restored:
    """What a checkpoint held.

    Attributes:
        state: as it was saved.
        ledger: the account at that step.
        records: what the run had written down by then, by file name.
        damaged: newer checkpoints that could not be read: what is wrong with each, and where it
            lies now.
    """

    state: Any
    ledger: Ledger
    records: dict[str, str]
    damaged: list[str] = field(default_factory=list)


class CheckpointStorage:
    """The checkpoints of one run in one directory. A context manager: leaving it waits for the save
    in progress.

    A checkpoint is written in the background, under a temporary name until it is whole; a kill or a
    full disk leaves those before it. The newest `keep` stay.
    """

    def __init__(self, directory: Path | str, keep: int = KEEP):
        """Opens the directory, made where there is none.

        Args:
            directory: a path or gs://bucket/path.
            keep: how many stay.
        """
        self._directory = epath.Path(directory)
        self._keep = keep
        if "://" not in str(directory):
            self._directory = epath.Path(Path(directory).absolute())
        self._orbax: Any = None
        self._saving: tuple[int, Any] | None = None  # the step being saved, and Orbax's promise
        self._failed = False  # whether Orbax ever did

    def __enter__(self) -> CheckpointStorage:
        self._quiet = _quietly()
        self._quiet.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not hosts.peer_lost(error):  # else Orbax would wait for the other process
            with suppress(Unsaved):  # whoever wants to know has waited
                self.wait()
            self._close()
        if self._failed:
            gc.collect()  # asyncio speaks of a task that failed when the task goes
        self._quiet.__exit__(None, None, None)

    def save(self, state: Any, ledger: Ledger, records: Mapping[str, str] | None = None) -> None:
        """Begins a checkpoint under the ledger's step; the state may be used up once this returns.

        Args:
            state: arrays.
            ledger: the account.
            records: what else has to be found again, by file name.

        Raises:
            Unsaved: the one before, or already this one, could not be written.
        """
        self.wait()
        facts = {
            "ledger": ledger.to_json(),
            "checksums": checksums(state),
            "records": dict(records or {}),
        }
        try:
            if self._orbax is None:
                self._open()
            saving = self._orbax.save_checkpointables_async(
                ledger.steps,
                {"state": state},
                custom_metadata={**facts, "sha256": digest(facts)},
                force=True,
            )
        # Orbax and TensorStore raise many kinds; to the user all mean the same
        except Exception as e:
            if hosts.peer_lost(e):
                raise
            self._close()
            raise Unsaved(
                f"{self._directory / str(ledger.steps)} could not be written ({self._why(e)})"
            ) from None
        self._saving = ledger.steps, saving

    def wait(self) -> bool:
        """Waits until the save in progress is done; whether there was one.

        Raises:
            Unsaved: it could not be written.
        """
        if self._saving is None:
            return False
        (step, saving), self._saving = self._saving, None
        try:
            saving.result()
        except Exception as e:
            if hosts.peer_lost(e):
                raise
            self._close()  # opened again, it clears away what is half-written
            raise Unsaved(
                f"{self._directory / str(step)} could not be written ({self._why(e)})"
            ) from None
        return True

    def restore(self, like: Any) -> Restored | None:
        """The newest checkpoint that is whole; newer ones are moved aside. None: there is no
        checkpoint.

        Args:
            like: a state of `jax.ShapeDtypeStruct` with the shardings to restore to, whatever they
                were before.

        Raises:
            InputError: there are checkpoints, but every one is truncated, altered, or of another
                model.
        """
        wrong: dict[int, str] = {}
        for step in hosts.broadcast_from_main(self._steps()):
            state, ledger, records, why = self._read(step, like)
            if why is None:
                return Restored(
                    state,
                    ledger,
                    records,
                    [self._move_aside(n, other) for n, other in wrong.items()],
                )
            wrong[step] = why
        if not wrong:
            return None
        each = "; ".join(f"{step}: {why}" for step, why in wrong.items())
        raise InputError(
            f"{self._directory}: expected a whole checkpoint, found damaged ones alone ({each}); "
            "move the directory "
            "away to start this run from its beginning"
        )

    def _steps(self) -> list[int]:
        """Steps of the checkpoints that were finished, the newest first."""
        if not self._directory.exists():
            return []
        found = ocp.path.step.standard_name_format().find_all(self._directory)
        return sorted((one.step for one in found), reverse=True)

    def _read(self, step: int, like: Any) -> tuple[Any, Any, dict[str, str], str | None]:
        """A checkpoint's state, ledger and records, and what is wrong with it: on one process is on
        all."""
        path = self._directory / str(step)
        why = ""
        state = None
        facts = {}
        try:
            facts = dict(ocp.checkpointables_metadata(path).custom_metadata or {})
            if facts.pop("sha256", None) != digest(facts):
                raise _Damaged("its account does not match its SHA-256")
            state = ocp.load_checkpointables(path, {"state": like})["state"]
        except Exception as e:  # of many kinds
            why = self._why(e)
            _close_abandoned_reads()
        if not hosts.all_processes(not why):
            return None, None, {}, why or "on another process"
        if names := differing(state, facts["checksums"]):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return None, None, {}, f"the content of {names[0]}{more} does not match its checksum"
        return state, Ledger.from_json(facts["ledger"]), facts["records"], None

    def _move_aside(self, step: int, why: str) -> str:
        """Gives a damaged checkpoint another name, so that its step can be saved again; returns
        what to say of it."""
        path = self._directory / str(step)
        aside = self._directory / f"{step}{DAMAGED}"
        if hosts.is_main_process():
            if aside.exists():
                aside.rmtree()
            path.rename(aside)
        return f"{path} is damaged ({why}); it is now {aside.name}"

    def _why(self, error: Exception) -> str:
        self._failed = True
        return _reason(error, self._directory)

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._orbax = ocp.training.Checkpointer(
            self._directory,
            preservation_policy=ocp.training.preservation_policies.LatestN(self._keep),
            cleanup_tmp_directories=True,
        )

    def _close(self) -> None:
        if self._orbax is None:
            return
        orbax = self._orbax
        self._orbax = None
        with suppress(Exception):  # of a save that failed, once more
            orbax.close()


class _Damaged(Exception):
    """What is wrong with a checkpoint, in words for the user."""


def abandoned_reads() -> list[Coroutine[Any, Any, Any]]:
    """Return the coroutines of Orbax that were not started, or not ended, in the order in which
    they were made."""
    waiting = (inspect.CORO_CREATED, inspect.CORO_SUSPENDED)
    return [
        found
        for found in gc.get_objects()
        if type(found)
        is CoroutineType  # `isinstance` would ask objects that load a module when asked
        and "orbax" in Path(found.cr_code.co_filename).parts
        and inspect.getcoroutinestate(found) in waiting
    ]


def _close_abandoned_reads() -> None:
    """Close what Orbax left of a load of which another part had failed; else Python warns of it
    when it is collected.

    Nothing else of Orbax's is under way: a run reads its checkpoints before it writes any.
    """
    for coroutine in abandoned_reads():
        with suppress(Exception):  # Orbax takes the closing for an error in reading
            coroutine.close()


def _reason(error: Exception, within: Any = None) -> str:
    """Why something failed, in a few words: the system's, or those that name a file or an array."""
    root: BaseException = error
    while cause := root.__cause__ or (None if root.__suppress_context__ else root.__context__):
        root = cause
    if isinstance(root, OSError) and root.errno:
        return os.strerror(root.errno)
    text = " ".join(str(root).split())
    if code := re.search(r"os[ _]error(?:_code=')? ?(\d+)", text):
        return os.strerror(int(code[1]))
    text = re.sub(r" \[tensorstore_spec.*", "", text).replace(f"{within}/", "")
    return (text if isinstance(root, _Damaged) else f"{type(root).__name__}: {text}")[:400]


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep Orbax's and TensorStore's threads from printing what goes wrong in them; the exception
    says it too."""
    log = logging.getLogger("asyncio")
    level = log.level
    log.setLevel(logging.CRITICAL)
    _pass_over_closed_loops()
    try:
        yield
    finally:
        log.setLevel(level)


def _pass_over_closed_loops() -> None:
    """Have Python say nothing of a thread of Orbax that ends after the failed call that it was for.

    This holds to the end of the process: such a thread may end long after the checkpoints are left.
    """
    report = sys.unraisablehook
    if getattr(report, "passes_over_closed_loops", False):
        return

    def unraisable(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            report(found)

    unraisable.passes_over_closed_loops = True  # type: ignore[attr-defined]
    sys.unraisablehook = unraisable


def save_params(path: Path, params: Any) -> None:
    """Writes parameters as safetensors, whole or not at all; a tensor's name is its path, joined by
    dots.

    Raises:
        InputError: it cannot be written.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    tensors = {
        ".".join(str(key.key) for key in keys): np.ascontiguousarray(leaf) for keys, leaf in leaves
    }
    beside = path.with_name(f".{path.name}.tmp")
    try:
        save_file(tensors, beside)
        beside.replace(path)
    except (OSError, SafetensorError) as e:
        beside.unlink(missing_ok=True)
        raise InputError(
            f"{path}: cannot be written ({_reason(e)}), expected room for it; then run it again"
        ) from None
