"""Results of fine-tuning as JSON holds them: trials, the chosen setting, scores."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdjax.storage.typed_json import optional


@dataclass(frozen=True)
class Setting:
    """The hyperparameters of a trial, of which a protocol may try several.

    Attributes:
        learning_rate: peak learning rate.
        batch_size: rows of a step.
        epochs: times that each training row is read; None: the steps are given.
        steps: optimiser steps.
    """

    learning_rate: float
    batch_size: int
    epochs: int | None
    steps: int


@dataclass(frozen=True)
class FinetuningTrial:
    """One training on a task, and what it scores.

    Attributes:
        setting: learning rate, batch size, epochs and steps.
        seed: fine-tuning seed: the head's start, the order of rows, dropout.
        draw: number of the draw of few-shot rows; None: all rows are trained on.
        selection: mean of the task's metrics on the selection rows.
        metrics: result -> metric -> its value on the reported rows.
        failed: whether it scores no more than a constant on the selection rows, or diverged.
        diverged_step: first step, from 1, whose loss or outputs are not finite; None: none. Such a
            trial counts as one that always says the constant that is best on the training rows.
        rows: result -> each reported row's outcome in base64 (`right_rows`, `squared_errors`); None
            where it is not kept.
    """

    setting: Setting
    seed: int
    draw: int | None
    selection: float
    metrics: dict[str, dict[str, float]]
    failed: bool
    diverged_step: int | None
    rows: dict[str, str] | None = optional()

    @property
    def diverged(self) -> bool:
        """Return whether it came to numbers that are not finite."""
        return self.diverged_step is not None

    def score(self, result: str) -> float:
        """Return the mean of a result's metrics."""
        return mean(self.metrics[result])


@dataclass(frozen=True)
class FinetunedTask:
    """A model fine-tuned on a task by a protocol.

    Attributes:
        task: name of the task.
        protocol: `fixed`, `grid` or `few_shot`.
        intermediate: task that the encoder was tuned on before; empty: none.
        chosen: setting of the trials that are scored; of the grid, the one with the best mean
            selection score, of equals the first.
        selection: mean selection score of the chosen trials; optimistic where they were chosen by
            it.
        metrics: result -> metric -> mean over the chosen trials, failed ones included.
        scores: result -> mean of its metrics.
        baseline: result -> the most that one answer for all rows scores.
        trials: every trial, those that were not chosen without `rows`.
        failed: number of chosen trials that failed.
        diverged: number of those that diverged.
    """

    task: str
    protocol: str
    intermediate: str
    chosen: Setting
    selection: float
    metrics: dict[str, dict[str, float]]
    scores: dict[str, float]
    baseline: dict[str, float]
    trials: tuple[FinetuningTrial, ...]
    failed: int
    diverged: int

    @property
    def chosen_trials(self) -> tuple[FinetuningTrial, ...]:
        """Return the trials that are scored."""
        return tuple(trial for trial in self.trials if trial.setting == self.chosen)


def mean(metrics: dict[str, float]) -> float:
    """Return the mean of some metrics: a task's score."""
    return float(np.mean(list(metrics.values())))


def encode_right(predicted: NDArray[Any], truth: NDArray[Any]) -> str:
    """Encode which rows were predicted right as base64 text, one bit a row.

    The first row is the highest bit of the first byte.

    Args:
        predicted: `[N]`: predicted labels.
        truth: `[N]`: true labels.
    """
    return base64.b64encode(np.packbits(predicted == truth).tobytes()).decode("ascii")


def right_rows(encoded: str, rows: int) -> NDArray[np.bool_]:
    """Decode which of the rows were right, bool `[rows]`.

    Args:
        encoded: from `encode_right`.
        rows: number of rows.
    """
    data = np.frombuffer(base64.b64decode(encoded), np.uint8)
    return np.unpackbits(data, count=rows).astype(np.bool_)


def encode_errors(predicted: NDArray[Any], truth: NDArray[Any]) -> str:
    """Encode the squared error of each row as base64 text of little-endian float32.

    Args:
        predicted: `[N]`: predicted numbers.
        truth: `[N]`: true numbers, in the same unit.
    """
    errors = (predicted.astype(np.float64) - truth.astype(np.float64)) ** 2
    return base64.b64encode(errors.astype("<f4").tobytes()).decode("ascii")


def squared_errors(encoded: str) -> NDArray[np.float32]:
    """Decode each row's squared error, float32 `[rows]`, from `encode_errors`."""
    return np.frombuffer(base64.b64decode(encoded), "<f4").astype(np.float32)
