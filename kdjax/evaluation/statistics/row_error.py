"""The error of a finite test set: an interval over seeds and rows, crossed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kdjax.errors import InputError
from kdjax.evaluation.statistics.verdict_rule import check_settings

Array = NDArray[np.float64]


def crossed_interval(differences: Array, confidence: float) -> tuple[float, float, float]:
    """Compute the interval of a mean difference for other seeds and other rows, both at once.

    Every seed is scored on the same rows, so rows and seeds are crossed. With S seeds, R rows and
    the mean squares of a two-way analysis of variance without replication,

        variance of the mean = (MS_seeds + MS_rows - MS_rest) / (S R),

    with degrees of freedom by Satterthwaite (1946, doi 10.2307/3002019; Searle, Casella and
    McCulloch 1992, "Variance components", chapter 4). It is no smaller than the variance over seeds
    alone, or over rows alone, and no less certain than S - 1 degrees of freedom.

    Args:
        differences: `[seeds, rows]`, at least two of each: for instance 1 where only the first arm
            is right, -1 where only the second is, and else 0.
        confidence: nominal coverage, between 0 and 1.

    Returns:
        mean, low, high.

    Raises:
        InputError: fewer than two seeds or rows, or a confidence outside (0, 1).
    """
    seeds, rows = differences.shape
    if seeds < 2 or rows < 2:
        raise InputError(
            f"interval: found {seeds} seed(s) and {rows} row(s), expected at least 2 of each"
        )
    check_settings(confidence, 0.0)
    mean = float(differences.mean())
    of_seeds = differences.mean(axis=1, keepdims=True) - mean
    of_rows = differences.mean(axis=0, keepdims=True) - mean
    rest = differences - mean - of_seeds - of_rows

    # Mean squares, and their degrees of freedom.
    seeds_df = seeds - 1
    rows_df = rows - 1
    rest_df = seeds_df * rows_df
    seeds_square = rows * float((of_seeds**2).sum()) / seeds_df
    rows_square = seeds * float((of_rows**2).sum()) / rows_df
    rest_square = float((rest**2).sum()) / rest_df

    total = seeds_square + rows_square - rest_square
    spread = seeds_square**2 / seeds_df + rows_square**2 / rows_df + rest_square**2 / rest_df
    df = float(seeds_df)
    if spread > 0:
        df = max(df, total**2 / spread)
    variance = max(total, seeds_square, rows_square) / (seeds * rows)
    half_width = float(stats.t.ppf((1 + confidence) / 2, df)) * math.sqrt(variance)
    return mean, mean - half_width, mean + half_width
