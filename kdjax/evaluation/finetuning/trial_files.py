"""The file of a finished trial, held against its own digest and the ranges of its metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdjax.evaluation.finetuning.results import FinetuningTrial
from kdjax.evaluation.metric import check_mean, check_values
from kdjax.storage.sealed import read_sealed, write_sealed


@dataclass(frozen=True)
class FinishedTrial:
    """The content of a finished trial's file.

    Attributes:
        key: digest of all that the trial follows from.
        trial: the trial.
    """

    key: str
    trial: FinetuningTrial


def trial_path(directory: Path, name: str) -> Path:
    """Return the path of a trial's file.

    Args:
        directory: directory of the task and the protocol.
        name: the trial's name.
    """
    return directory / f"{name}.json"


def write_trial(directory: Path, name: str, key: str, trial: FinetuningTrial) -> None:
    """Write a finished trial, whole or not at all.

    Args:
        directory: directory of the task and the protocol.
        name: the trial's name.
        key: digest of all that the trial follows from.
        trial: the finished trial.

    Raises:
        InputError: it cannot be written.
    """
    write_sealed(trial_path(directory, name), FinishedTrial(key, trial))


def read_trial(directory: Path, name: str, key: str) -> FinetuningTrial | None:
    """Read a finished trial that follows from what is trained now.

    Args:
        directory: directory of the task and the protocol.
        name: the trial's name.
        key: digest of all that the trial follows from.

    Returns:
        The trial; None where there is none, where it follows from something else, and where its
        file has no digest to hold it against.

    Raises:
        InputError: the file is damaged, or was edited.
    """
    path = trial_path(directory, name)
    if not path.exists():
        return None
    finished, has_seal = read_finished(path)
    if finished.key != key or not has_seal:
        return None
    return finished.trial


def read_finished(path: Path) -> tuple[FinishedTrial, bool]:
    """Read a trial's file, and hold it against its digest, where it has one.

    Args:
        path: file of the trial.

    Returns:
        The content, and whether it has a digest.

    Raises:
        InputError: the file is not whole, its content has another digest than it says, or a value
            lies outside its metric's range.
    """
    finished, has_seal = read_sealed(FinishedTrial, path)
    check_trial(finished.trial, f"{path}: trial")
    return finished, has_seal


def check_trial(trial: FinetuningTrial, where: str) -> None:
    """Check that a trial's scores are values that their metrics can have.

    Args:
        trial: the trial.
        where: the file and the trial in it, for messages.

    Raises:
        InputError: one of them lies outside its metric's range, or is of no metric.
    """
    for result, values in trial.metrics.items():
        check_values(values, f"{where}.metrics.{result}")
        check_mean(trial.selection, tuple(values), f"{where}.selection")
