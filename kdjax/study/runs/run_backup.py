"""A run's files in `train.checkpoint.directory`, where they outlive the machine, and back again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from etils import epath

from kdjax.budget import journal
from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.parallel import hosts
from kdjax.storage.files import write_json
from kdjax.storage.paths import expand_path
from kdjax.storage.typed_json import check_fields, from_plain, read_typed
from kdjax.training.records import metrics_log

MANIFEST = "manifest.json"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
TRUNK = "trunk"
FINETUNING = "finetuning"
"""Folder of a run in which its fine-tuning is kept, a folder a protocol and in it one a task."""
FINISHED = ("params.safetensors", journal.NAME, metrics_log.NAME, RESULT)
"""The files of a finished run besides its manifest; the last is written last."""


def subdirectory(config: Config, name: str) -> Config:
    """Return a recipe whose checkpoints are backed up in a subdirectory of its own.

    Without a directory for backups the recipe is returned as it is.

    Args:
        config: recipe, with `train.checkpoint.directory`.
        name: name of the subdirectory: that of one of several studies.
    """
    checkpoint = config.train.checkpoint
    if not checkpoint.directory:
        return config
    directory = f"{checkpoint.directory.rstrip('/')}/{name}"
    checkpoint = replace(checkpoint, directory=directory)
    return replace(config, train=replace(config.train, checkpoint=checkpoint))


def run_name(arm: str, seed: int) -> str:
    """Return the name of a run's directory below `runs/`."""
    return f"{arm}-seed{seed}"


class RunBackup:
    """The place where one run's files lie besides its own directory; without one, all stay there.

    While the run goes on its records travel in its checkpoints; the files come here when it is
    finished.

    Attributes:
        directory: the place; None: there is none.
        checkpoints: directory of the run's checkpoints.
        trunk: directory of the state that runs of larger budgets go on from; it stays.
        manifest_path: the run's manifest in its own directory.
    """

    def __init__(
        self,
        root: str,
        run_dir: Path,
        kind: str = "runs",
        finished: Sequence[str] = FINISHED,
    ):
        """Name the directories; nothing is read or written yet.

        Args:
            root: `train.checkpoint.directory`; empty: there is no backup.
            run_dir: the run's own directory.
            kind: the folder of `root` in which runs of its kind lie.
            finished: the files of a finished run of its kind; the last is written last.

        Raises:
            InputError: the backup would lie in the run's own directory.
        """
        self.manifest_path = run_dir / MANIFEST
        self._run_dir = epath.Path(run_dir.absolute())
        self._kind = kind
        self._finished = finished
        self.directory = None
        if root:
            # Orbax wants absolute paths; a bucket's are.
            base = expand_path(root, "train.checkpoint.directory", bucket=True)
            base = epath.Path(base if "://" in base else Path(base).absolute())
            self.directory = base / kind / run_dir.name
        if self.directory == self._run_dir:
            raise InputError(
                f"train.checkpoint.directory is {root}, which is --out; expected another place, or "
                "''"
            )
        lasting = self.directory or hosts.shared_dir(self._run_dir)
        self.checkpoints = lasting / CHECKPOINTS
        self.trunk = lasting / TRUNK

    def local_manifest(self) -> Any:
        """Read the manifest in the run's own directory; None: there is none.

        Raises:
            InputError: it is not whole, or no JSON object.
        """
        if not self.manifest_path.exists():
            return None
        return read_typed(dict[str, Any], self.manifest_path)

    def stored_manifest(self) -> Any:
        """Read the manifest in the backup; None: there is none.

        Raises:
            InputError: the backup cannot be read.
        """
        with self._reachable() as directory:
            if directory is None or not (directory / MANIFEST).exists():
                return None
            text = (directory / MANIFEST).read_text(encoding="utf-8")
        try:
            manifest = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise InputError(f"{directory / MANIFEST}: expected a JSON file, found {e}") from None
        return from_plain(dict[str, Any], manifest, f"{directory / MANIFEST}:")

    def register(self, manifest: Mapping[str, Any]) -> None:
        """Write a run's manifest to its directory and its backup, where they have none.

        Args:
            manifest: manifest of the run.

        Raises:
            InputError: one cannot be written, or the run's checkpoints are where the recipe said
                before.
        """
        if not self.manifest_path.exists():
            write_json(self.manifest_path, manifest)
        # A run's checkpoints go nowhere by themselves: a recipe that names another directory than
        # before would find none and begin anew.
        settings: Any = manifest
        place = f"{self.manifest_path}:"
        for name in ("config", "train", "checkpoint"):
            settings = check_fields(settings, {name: dict[str, Any]}, place)[name]
        former_root = settings.get("directory", "")
        former = RunBackup(former_root, Path(self._run_dir), self._kind).checkpoints
        if not hosts.is_main_process():
            return  # the backup is common to all processes, and one writes it
        with self._reachable() as directory:
            if former != self.checkpoints and former.exists() and any(former.iterdir()):
                raise InputError(
                    f"train.checkpoint.directory was {former_root!r} and this run's checkpoints "
                    f"are in {former}, expected the same directory, or the checkpoints moved to "
                    f"{self.checkpoints}"
                )
            if directory is not None and not (directory / MANIFEST).exists():
                directory.mkdir(parents=True, exist_ok=True)
                _copy(self._run_dir / MANIFEST, directory / MANIFEST)

    def download(self) -> None:
        """Copy a finished run's files into its directory, where they are missing.

        Raises:
            InputError: the backup cannot be read.
        """
        with self._reachable() as directory:
            if directory is not None:
                copy_missing(directory, self._run_dir, RESULT, self._finished)

    def download_folder(self, name: str, last: str) -> None:
        """Copy one of the run's folders into its directory, where it is missing.

        Args:
            name: name of the folder in the run's directory.
            last: file of the folder that is written last, so that its presence shows the rest.

        Raises:
            InputError: the backup cannot be read.
        """
        with self._reachable() as directory:
            if directory is not None:
                copy_missing(directory / name, self._run_dir / name, last)

    def download_folders(self, parent: str, last: str) -> None:
        """Copy each folder of one of the run's folders into its directory, where it is missing.

        Args:
            parent: name of the folder that holds them.
            last: file of each that is written last, so that its presence shows the rest.

        Raises:
            InputError: the backup cannot be read.
        """
        with self._reachable() as directory:
            if directory is not None and (directory / parent).exists():
                for folder in (directory / parent).iterdir():
                    copy_missing(folder, self._run_dir / parent / folder.name, last)

    def upload_folder(self, name: str, last: str) -> None:
        """Copy one of the run's folders into the backup, where it is missing.

        Args:
            name: name of the folder in the run's directory.
            last: file of the folder that is written last, so that its presence shows the rest.

        Raises:
            InputError: the backup cannot be written.
        """
        with self._reachable() as directory:
            if directory is not None and hosts.is_main_process():
                copy_missing(self._run_dir / name, directory / name, last)

    def download_records(self, name: str) -> None:
        """Copy the records (.json files) of one of the run's folders that it lacks.

        Args:
            name: name of the folder in the run's directory.

        Raises:
            InputError: the backup cannot be read.
        """
        with self._reachable() as directory:
            if directory is not None:
                _copy_records(directory / name, self._run_dir / name)

    def upload_records(self, name: str) -> None:
        """Copy the records of one of the run's folders that the backup lacks into it.

        Args:
            name: name of the folder in the run's directory.

        Raises:
            InputError: the backup cannot be written.
        """
        with self._reachable() as directory:
            if directory is not None and hosts.is_main_process():
                _copy_records(self._run_dir / name, directory / name)

    def upload_and_prune(self) -> None:
        """Copy a finished run's files into the backup, and delete its checkpoints.

        Raises:
            InputError: the backup cannot be written.
        """
        # From here on no process needs the checkpoints any more.
        if not hosts.all_processes(True) or not hosts.is_main_process():
            return
        with self._reachable() as directory:
            if directory is not None:
                copy_missing(self._run_dir, directory, RESULT, self._finished)
            if self.checkpoints.exists():
                self.checkpoints.rmtree()

    @contextmanager
    def _reachable(self) -> Iterator[Any]:
        """Yield the backup's directory; whatever goes wrong with it is one line."""
        try:
            yield self.directory
        except InputError:
            raise
        except ImportError:
            raise InputError(
                f"train.checkpoint.directory: {self.directory} needs packages that are not "
                "installed, expected them from `pip install 'kdjax[gcs]'`"
            ) from None
        except Exception as e:  # of many kinds: the system's, fsspec's, the cloud's
            reason = f"{type(e).__name__}: {e}"[:200]
            if isinstance(e, OSError) and e.errno:
                reason = os.strerror(e.errno)
            raise InputError(
                f"train.checkpoint.directory: {self.directory} cannot be used ({reason}), expected "
                "a place to write to"
            ) from None


def copy_missing(source: Any, target: Any, last: str, names: Sequence[str] = ()) -> None:
    """Copy a directory's files, unless the target has them all or the source has not.

    Args:
        source: the directory to copy from.
        target: the directory to copy to, made where there is none.
        last: the file that is written last: a directory that has it has all.
        names: names of the files; none: all in `source`.
    """
    if (target / last).exists() or not (source / last).exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    names = names or sorted(path.name for path in source.iterdir())
    for name in (*(name for name in names if name != last), last):
        _copy(source / name, target / name)


def _copy_records(source: Any, target: Any) -> None:
    """Copy the .json files anywhere below a directory, those that the target does not have."""
    if not source.exists():
        return
    # One look at each folder: a bucket answers a question about a single file as slowly.
    present = set()
    if target.exists():
        present = {entry.name for entry in target.iterdir()}
    for entry in source.iterdir():
        if entry.is_dir():
            _copy_records(entry, target / entry.name)
        elif entry.name.endswith(".json") and entry.name not in present:
            target.mkdir(parents=True, exist_ok=True)
            _copy(entry, target / entry.name)


def _copy(source: Any, target: Any) -> None:
    """Copy a file, whole or not at all.

    A bucket has an object only once all of it is there; elsewhere the file is renamed.
    """
    content = source.read_bytes()
    if "://" in str(target):
        target.write_bytes(content)
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    beside.write_bytes(content)
    beside.replace(target)
