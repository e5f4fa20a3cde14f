"""The figure a task is scored by: accuracy for classes, Pearson's r for numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def score(predicted: NDArray[np.generic], truth: NDArray[np.generic], *, regression: bool) -> float:
    """Score predictions by accuracy, or by Pearson's r.

    Args:
        predicted: `[N]`: predicted class indices, or numbers.
        truth: `[N]`: the right class indices, or numbers.
        regression: whether labels are numbers.

    Returns:
        The share of equal classes; for numbers, Pearson's correlation r. Numbers that are all alike
        have no correlation; they score 0, what a constant is worth.
    """
    if not regression:
        return float(np.mean(predicted == truth))
    x = predicted.astype(np.float64)
    y = truth.astype(np.float64)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    x = x - x.mean()
    y = y - y.mean()
    size = np.sqrt(np.sum(x * x) * np.sum(y * y))
    # Spreads so small that their product is 0 in floating point count as none.
    if size == 0:
        return 0.0
    return float(np.sum(x * y) / size)
