"""Checkpoints of a run: its state and its ledger, together or not at all. The only file that knows Orbax."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp
from safetensors.numpy import save_file

from kdjax.budget.ledger import Ledger
from kdjax.errors import InputError

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every save

KEEP = 2
"""Checkpoints kept: the newest and the one before."""


def sha256(tree: Any) -> str:
    """SHA-256 over the paths, types, shapes and bytes of a tree's arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints of one run in one directory. A context manager: leaving it waits for the save in progress."""

    def __init__(self, directory: Path):
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._orbax = ocp.training.Checkpointer(
            directory.absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(KEEP),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._orbax.close()

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint."""
        newest = self._orbax.latest
        return None if newest is None else newest.step

    def save(self, state: Any, ledger: Ledger) -> None:
        """Writes state and ledger under the ledger's step, in the background; a kill leaves the one before intact."""
        facts = {"ledger": ledger.to_json(), "sha256": sha256(state)}
        self._orbax.save_checkpointables_async(ledger.steps, {"state": state}, custom_metadata=facts, force=True)

    def restore(self, like: Any) -> tuple[Any, Ledger]:
        """The newest state and its ledger.

        Args:
            like: a state of `jax.ShapeDtypeStruct` with the shardings to restore to.

        Raises:
            InputError: the checkpoint is truncated, altered, or of another model.
        """
        step = self.latest
        try:
            state = self._orbax.load_checkpointables(step, {"state": like})["state"]
            facts = self._orbax.metadata(step).custom_metadata or {}
            ledger = Ledger.from_json(facts["ledger"])
        except Exception as e:  # Orbax and TensorStore raise many kinds; to the user all mean the same
            reason = f"{type(e).__name__}: {e}"[:200]
            raise InputError(self._unreadable(step, reason)) from None
        if sha256(state) != facts.get("sha256"):
            raise InputError(self._unreadable(step, "its content does not match its SHA-256"))
        return state, ledger

    def _unreadable(self, step: int | None, reason: str) -> str:
        where = self._directory / str(step)
        hint = "delete it to go on from the one before"
        return f"{where}: expected a whole checkpoint, found a damaged one ({reason}); {hint}"


def save_params(path: Path, params: Any) -> None:
    """Writes parameters as safetensors, whole or not at all; a tensor's name is its path, joined by dots."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    tensors = {".".join(str(key.key) for key in keys): np.ascontiguousarray(leaf) for keys, leaf in leaves}
    beside = path.with_name(f".{path.name}.tmp")
    save_file(tensors, beside)
    beside.replace(path)
