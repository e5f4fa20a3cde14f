"""The saved state of trials under way and of tuned encoders, and what trials follow from."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from kdjax.config import FinetuneConfig, to_dict
from kdjax.data.tasks.task import Split, Task
from kdjax.errors import InputError
from kdjax.evaluation.finetuning.step import StepKey
from kdjax.runtime.process_logging import warn
from kdjax.storage.files import digest
from kdjax.training.checksum import sha256
from kdjax.training.params_file import write_tensors

SAVE_SECONDS = 180.0
"""Seconds between two saved states: what a kill loses, and compiling anew."""
CHECKSUM = "sha256"
"""In a file's metadata: the SHA-256 of its arrays."""


@dataclass
class RunningState:
    """The saved state of a group of trials that are trained side by side.

    Attributes:
        directory: directory of the task and the protocol.
        name: the group's name.
        key: digest of all that the group follows from; a state with another one is not read.
    """

    directory: Path
    name: str
    key: str
    _last: float = field(default_factory=time.monotonic)

    def is_due(self) -> bool:
        """Return whether the last state is `SAVE_SECONDS` old."""
        return time.monotonic() - self._last >= SAVE_SECONDS

    def save(self, state: Any, step: int) -> None:
        """Write the state of a step, whole, and remove older ones.

        Args:
            state: a tree of arrays.
            step: steps done.

        Raises:
            InputError: it cannot be written.
        """
        older = self._paths()
        path = self.directory / f"{self.name}.step{step}.safetensors"
        tensors = {}
        for place, leaf in jax.tree_util.tree_leaves_with_path(state):
            tensors[jax.tree_util.keystr(place)] = np.asarray(leaf, order="C")
        write_tensors(path, tensors, {"key": self.key, CHECKSUM: sha256(tensors)})
        for old in older:
            if old != path:
                old.unlink(missing_ok=True)
        self._last = time.monotonic()

    def restore(self, like: Any) -> Any | None:
        """Read the newest state that is whole and this group's; None: there is none.

        Args:
            like: a tree of arrays or shapes of the state's structure.

        Returns:
            The state as NumPy arrays.
        """
        for path in reversed(self._paths()):
            state = self._read(path, like)
            if state is not None:
                return state
        return None

    def remove(self) -> None:
        """Delete the group's states: its trials are finished."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        """Return the group's saved states, the oldest first."""
        pattern = re.compile(re.escape(self.name) + r"\.step(\d+)\.safetensors")
        steps = {}
        if self.directory.is_dir():
            for path in self.directory.iterdir():
                match = pattern.fullmatch(path.name)
                if match:
                    steps[int(match[1])] = path
        return [steps[step] for step in sorted(steps)]

    def _read(self, path: Path, like: Any) -> Any | None:
        """Read a state; None where it is of other trials, or damaged, which a line says."""
        try:
            metadata, tensors = _read_tensors(path)
        except InputError as error:
            warn(f"{error}; passed over, and trained again")
            return None
        # Files of earlier versions have no checksum to hold them against.
        if metadata.get("key") != self.key or CHECKSUM not in metadata:
            return None

        def pick(place: tuple[Any, ...], _: Any) -> Any:
            return tensors[jax.tree_util.keystr(place)]

        return jax.tree_util.tree_map_with_path(pick, like)


def check_state(path: Path) -> None:
    """Check that a saved state is as it was written.

    Args:
        path: file of the state.

    Raises:
        InputError: it cannot be read, or its arrays do not have the checksum in it.
    """
    _read_tensors(path)


def _read_tensors(path: Path) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Read the metadata and the arrays of a file, and hold these against their checksum.

    Raises:
        InputError: it cannot be read, or its arrays do not have the checksum in it.
    """
    expected = "expected the state as kdjax saved it"
    try:
        with safe_open(path, "numpy") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as e:
        raise InputError(f"{path}: cannot be read ({e}), {expected}") from None
    if metadata.get(CHECKSUM, sha256(tensors)) != sha256(tensors):
        raise InputError(f"{path}: its arrays do not have its checksum, {expected}")
    return metadata, tensors


def content_key(
    step_key: StepKey, settings: FinetuneConfig, encoder: Mapping[str, Any], task: Task
) -> str:
    """Compute the digest of all that trials follow from, besides their settings and seeds.

    Args:
        step_key: what their compiled step depends on; its devices do not count.
        settings: settings of fine-tuning.
        encoder: parameters that they start from.
        task: rows that they are trained on and measured on.
    """
    followed = {
        "model": to_dict(step_key.model),
        "optimizer": [step_key.weight_decay, step_key.eps, step_key.clip, settings.warmup],
        "pool": step_key.pool,
        "dtype": step_key.dtype,
        "few_shot": settings.few_shot.examples,
        "encoder": sha256(encoder),
        "task": task_digest(task),
    }
    return digest(followed)


def task_digest(task: Task) -> str:
    """Compute the SHA-256 of a task's rows: those trained on, chosen by and reported."""
    hashed = hashlib.sha256(repr((task.name, task.classes, task.metrics)).encode())
    splits = {"train": task.train, "selection": task.selection, **task.reported}
    for name, split in splits.items():
        hashed.update(name.encode())
        _add(hashed, split)
    return hashed.hexdigest()


def split_digest(split: Split) -> str:
    """Compute the SHA-256 of a split's rows."""
    hashed = hashlib.sha256()
    _add(hashed, split)
    return hashed.hexdigest()


def _add(hashed: Any, split: Split) -> None:
    """Add a split's arrays to a hash."""
    for array in (split.tokens, split.offsets, split.second, split.labels):
        if array is None:
            hashed.update(b"none")
        else:
            hashed.update(f"{array.dtype} {array.shape}".encode())
            hashed.update(np.ascontiguousarray(array).tobytes())
