"""A finished run as its directory records it: recipe, arm, result, parameters, tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.arms.recipe_arms import arms_of, finetuning_of
from kdjax.config import Config, FinetuneConfig, plain
from kdjax.data.corpus import Corpus
from kdjax.errors import InputError, nearest
from kdjax.recipes import from_dict
from kdjax.results.runs import RunResult
from kdjax.results.store import result_of
from kdjax.storage.files import read_json
from kdjax.storage.paths import local_path
from kdjax.storage.typed_json import read_typed
from kdjax.study.artifacts.artifact_dirs import artifact_dirs
from kdjax.study.artifacts.corpus import tokenizer_of, trains_tokenizer
from kdjax.study.runs.run_backup import MANIFEST, RESULT
from kdjax.study.runs.run_manifest import RunManifest
from kdjax.study.runs.snapshots import FACTS, FOLDER, Snapshot
from kdjax.training.arm import Arm
from kdjax.training.checksum import sha256
from kdjax.training.params_file import load_params

PARAMS = "params.safetensors"


@dataclass(frozen=True)
class RecordedRun:
    """A finished run.

    Attributes:
        directory: the run's directory, `runs/ARM-seedN` of a study.
        config: recipe that the run was made by.
        arm: the run's arm.
        result: content of its result.json.
        manifest: content of its manifest.json.
    """

    directory: Path
    config: Config
    arm: Arm
    result: RunResult
    manifest: RunManifest

    @property
    def study(self) -> Path:
        """Return the directory of the run's study."""
        return self.directory.absolute().parent.parent

    @property
    def finetuning(self) -> FinetuneConfig:
        """Return the settings by which the run's student was fine-tuned."""
        return finetuning_of(self.config, self.arm)

    def params(self) -> dict[str, Any]:
        """Read the student's parameters.

        Raises:
            InputError: they are missing or damaged, or not those that the result names.
        """
        return _params_of(self.directory / PARAMS, self.result.params_sha256, RESULT)

    def params_at(self, snapshot: Snapshot) -> dict[str, Any]:
        """Read the student's parameters as they were at one of the run's snapshots.

        Raises:
            InputError: they are missing or damaged, or not those that the snapshot names.
        """
        path = self.directory / FOLDER / snapshot.name / PARAMS
        return _params_of(path, snapshot.params_sha256, FACTS)

    def tokenizer(self) -> Path:
        """Return the tokenizer that the run's text was split by.

        Raises:
            InputError: it is not there any more.
        """
        corpus = Corpus.open(self._text_directory()) if trains_tokenizer(self.config) else None
        return tokenizer_of(self.config, corpus)

    def _text_directory(self) -> Path:
        """Return the directory of the study's prepared text."""
        if self.config.data.prepared:
            return local_path(self.config.data.prepared, "data.prepared")
        study = self.study
        # The studies of a sweep share their text.
        shared = study.parent.parent / "shared" if study.parent.name == "cells" else None
        return artifact_dirs(self.config, study, shared)["data"]


def _params_of(path: Path, expected_sha256: str | None, named_in: str) -> dict[str, Any]:
    """Read parameters, and hold them against the SHA-256 that a file beside them names.

    Raises:
        InputError: they are missing or damaged, or others.
    """
    params = load_params(path)
    params_sha256 = sha256(params)
    if params_sha256 != expected_sha256:
        raise InputError(
            f"{path}: the parameters' SHA-256 is {params_sha256}, expected that of {named_in}, "
            f"{expected_sha256}"
        )
    return params


def recorded_run(directory: Path) -> RecordedRun:
    """Read a finished run.

    Args:
        directory: the run's directory, `runs/ARM-seedN` of a study.

    Raises:
        InputError: it is no run's, or the run is unfinished or diverged.
    """
    # Its recipe, by the manifest
    path = directory / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{directory}: has no {MANIFEST}, expected the directory of a run: runs/ARM-seedN of a "
            f"study{_run_within(directory)}"
        )
    manifest = read_typed(RunManifest, path)
    try:
        config = from_dict(plain(manifest.config))
        arms = arms_of(config)
    except InputError as e:
        raise InputError(f"{path}: its recipe cannot be used: {e}") from None
    if manifest.arm not in arms:
        raise InputError(
            f"{path}: the arm is {manifest.arm!r}, expected one of its recipe's"
            f"{nearest(manifest.arm, arms)}"
        )

    # What it came to: it has to have ended well.
    result_path = directory / RESULT
    if not result_path.is_file():
        raise InputError(
            f"{directory}: has no {RESULT}, expected a finished run; the command that began it "
            "goes on with it"
        )
    result = result_of(read_json(result_path), result_path, manifest.arm, manifest.seed)
    if result.diverged is not None:
        raise InputError(
            f"{directory}: the run diverged at step {result.diverged.step}, expected one that did "
            "not"
        )
    return RecordedRun(directory, config, arms[manifest.arm], result, manifest)


def _run_within(directory: Path) -> str:
    """Return a hint where a directory is a study's, and has runs."""
    runs = sorted(path.parent for path in directory.glob(f"runs/*/{RESULT}"))
    if not runs:
        return ""
    return f", such as {runs[0]}"
