"""The labels of rows, and what a model's outputs are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdjax.data.tasks.task import Split, Task


@dataclass(frozen=True)
class LabelScale:
    """The mean and the spread by which a regression's labels are standardised.

    Labels of classes stay as they are: 0 and 1.

    Attributes:
        mean, spread: mean and standard deviation of the training rows' labels.
    """

    mean: float = 0.0
    spread: float = 1.0

    @staticmethod
    def from_task(task: Task) -> LabelScale:
        """Measure the labels of a task's training rows."""
        if not task.regression:
            return LabelScale()
        # Labels that are all alike have no spread to divide by.
        values = labels_of(task.train).astype(np.float64)
        return LabelScale(float(values.mean()), float(values.std()) or 1.0)


def labels_of(split: Split) -> NDArray[Any]:
    """Return a split's labels.

    Args:
        split: the split of a task.

    Raises:
        ValueError: they are hidden.
    """
    if split.labels is None:
        raise ValueError("the labels of these rows are hidden")
    return split.labels


def targets_of(split: Split, scale: LabelScale, *, regression: bool) -> NDArray[Any]:
    """Return the target of each row's output, `[N]`: int32 classes, or float32 numbers.

    Args:
        split: N rows with labels.
        scale: how labels are standardised.
        regression: whether labels are numbers.
    """
    labels = labels_of(split)
    if not regression:
        return labels.astype(np.int32)
    standardised: NDArray[Any] = (labels - scale.mean) / scale.spread
    return standardised.astype(np.float32)
