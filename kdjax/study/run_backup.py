"""A run's files in `train.checkpoint.directory` too, where they outlive the machine, and back from
there."""

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
from kdjax.training import metrics_log as log

MANIFEST = "manifest.json"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
FINISHED = ("params.safetensors", journal.NAME, log.NAME, RESULT)
"""What a finished run consists of besides its manifest; whoever finds the last finds all."""


def below(config: Config, name: str) -> Config:
    """The recipe of one of several studies: its runs have a directory of their own in the place
    they share."""
    checkpoint = config.train.checkpoint
    if not checkpoint.directory:
        return config
    own = replace(checkpoint, directory=f"{checkpoint.directory.rstrip('/')}/{name}")
    return replace(config, train=replace(config.train, checkpoint=own))


class Mirror:
    """Where one run's files lie besides its own directory; without such a place all methods do
    nothing.

    While the run goes on its records travel in its checkpoints; the files come here when it is
    finished.

    Attributes:
        place: that directory; None: there is none.
        checkpoints: where the run's checkpoints lie.
    """

    def __init__(
        self, directory: str, run: Path, kind: str = "runs", finished: Sequence[str] = FINISHED
    ):
        """Names the places; nothing is read or written yet.

        Args:
            directory: `train.checkpoint.directory`.
            run: the run's own directory.
            kind: the folder of that directory in which runs of its kind lie.
            finished: the files that a finished run of its kind consists of; whoever finds the last
                finds all.
        """
        self._run = epath.Path(run.absolute())
        self._kind = kind
        self._finished = finished
        self.place = epath.Path(directory) / kind / run.name if directory else None
        if self.place is not None and "://" not in directory:
            self.place = epath.Path(Path(self.place).absolute())
        if self.place == self._run:
            raise InputError(
                f"train.checkpoint.directory is {directory}, which is --out; expected another "
                "place, or ''"
            )
        self.checkpoints = (self.place or hosts.shared_dir(self._run)) / CHECKPOINTS

    def manifest(self) -> Any:
        """The manifest kept there; None: there is none.

        Raises:
            InputError: the place cannot be read.
        """
        with self._reached() as place:
            if place is None or not (place / MANIFEST).exists():
                return None
            return json.loads((place / MANIFEST).read_text())

    def claim(self, manifest: Mapping[str, Any]) -> None:
        """Takes the place for this run, and its checkpoints from no other.

        Args:
            manifest: of the run, as it lies in its directory.

        Raises:
            InputError: the place cannot be written, or the run's checkpoints are where the recipe
                said before.
        """
        before = manifest["config"]["train"]["checkpoint"].get("directory", "")
        old = Mirror(before, Path(self._run), self._kind).checkpoints
        if not hosts.is_main_process():
            return
        with self._reached() as place:
            if old != self.checkpoints and old.exists() and any(old.iterdir()):
                raise InputError(
                    f"train.checkpoint.directory was {before!r} and this run's checkpoints are in "
                    f"{old}, expected the "
                    f"same directory, or the checkpoints moved to {self.checkpoints}"
                )
            if place is not None and not (place / MANIFEST).exists():
                place.mkdir(parents=True, exist_ok=True)
                _copy(self._run / MANIFEST, place / MANIFEST)

    def bring(self) -> None:
        """A finished run's files into its directory, where they are missing.

        Raises:
            InputError: the place cannot be read.
        """
        with self._reached() as place:
            if (
                place is not None
                and not (self._run / RESULT).exists()
                and (place / RESULT).exists()
            ):
                for name in self._finished:
                    _copy(place / name, self._run / name)

    def bring_folder(self, name: str, last: str) -> None:
        """Bring one of the run's folders into its directory, where it is missing.

        Args:
            name: the folder's.
            last: the file that is written last; a folder that has it is whole.

        Raises:
            InputError: the place cannot be read.
        """
        with self._reached() as place:
            if (
                place is None
                or (self._run / name / last).exists()
                or not (place / name / last).exists()
            ):
                return
            _copy_folder(place / name, self._run / name, last)

    def keep_folder(self, name: str, last: str) -> None:
        """Keep one of the run's folders in its place too.

        Args:
            name: the folder's.
            last: the file that is written last.

        Raises:
            InputError: the place cannot be written.
        """
        if not hosts.is_main_process():
            return
        with self._reached() as place:
            if place is not None and not (place / name / last).exists():
                _copy_folder(self._run / name, place / name, last)

    def keep(self) -> None:
        """A finished run's files into their place, and its checkpoints away, which nobody needs any
        more.

        Raises:
            InputError: the place cannot be written.
        """
        # All have what they need of the checkpoints
        if not hosts.all_processes(True) or not hosts.is_main_process():
            return
        with self._reached() as place:
            if place is not None and not (place / RESULT).exists():
                for name in self._finished:
                    _copy(self._run / name, place / name)
            if self.checkpoints.exists():
                self.checkpoints.rmtree()

    @contextmanager
    def _reached(self) -> Iterator[Any]:
        """Whatever goes wrong with the place, in a line."""
        try:
            yield self.place
        except InputError:
            raise
        except ImportError:
            raise InputError(
                f"train.checkpoint.directory: {self.place} needs packages that are not installed, "
                "expected them from "
                "`pip install 'kdjax[gcs]'`"
            ) from None
        except Exception as e:  # of many kinds: the system's, fsspec's, the cloud's
            reason = (
                os.strerror(e.errno)
                if isinstance(e, OSError) and e.errno
                else f"{type(e).__name__}: {e}"[:200]
            )
            raise InputError(
                f"train.checkpoint.directory: {self.place} cannot be used ({reason}), expected a "
                "place to write to"
            ) from None


def _copy_folder(source: Any, target: Any, last: str) -> None:
    """Copy a folder's files, the one that says it is whole after all others."""
    target.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in source.iterdir() if path.name != last)
    for name in (*names, last):
        _copy(source / name, target / name)


def _copy(source: Any, target: Any) -> None:
    """A file, whole or not at all. A bucket has an object only once all of it is there; elsewhere
    it is renamed."""
    content = source.read_bytes()
    if "://" in str(target):
        target.write_bytes(content)
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    beside.write_bytes(content)
    beside.replace(target)
