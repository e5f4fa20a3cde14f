"""The learning rate of a step, from the shares of the budget spent before and after it."""

from __future__ import annotations

import math

from kdjax.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, before: float, after: float, used: float = 0.0) -> float:
    """Compute a step's learning rate: a linear warm-up to the peak, then the schedule's way down.

    Step i (from 0) of n equal steps with a warm-up of w steps has peak * min((i + 1) / w, f), where
    f falls from 1 to `min_lr_ratio`, which the step after the last one would have: with `linear` on
    the line (n - i) / (n - w), with `cosine` on (1 + cos(pi t)) / 2 with t = (i - w) / (n - w)
    (Loshchilov & Hutter 2017, arXiv 1608.03983). `wsd` has f = 1 until the last d steps, and there
    t = (i - (n - d)) / d and f = 1 - t, 1 - sqrt(t) (Hägele et al. 2024, arXiv 2405.18392), the
    cosine's, or min_lr_ratio^t, the exponential of Hu et al. 2024 (arXiv 2404.06395).

    Args:
        config: the peak, the warm-up and the schedule.
        before: share of the budget spent before the step.
        after: share of it spent after the step.
        used: amount of it spent after the step, in its unit, which the warm-up goes by where
            `config.warmup_budget` is set.
    """
    factor = falling_factor(config, before)
    # Where the line that rises is lower, the step warms up.
    if config.warmup and config.warmup_budget:
        # The amount itself, not its share: runs of several budgets have the same, to the last bit.
        factor = min(used / (config.warmup * config.warmup_budget), factor)
    elif config.warmup:
        factor = min(after / config.warmup, factor)
    return config.learning_rate * max(0.0, factor)


def has_left_peak(config: OptimizerConfig, budget_fraction: float) -> bool:
    """Return whether a step that begins at a share of the budget has left the schedule's peak.

    Of `wsd` the steps before depend on the warm-up alone: they are the trunk, which runs of all
    larger budgets share.
    """
    return (1 - budget_fraction) / _way_down(config) < 1


def _way_down(config: OptimizerConfig) -> float:
    """Return the share of the budget over which the learning rate falls, above 0."""
    if config.schedule == "wsd":
        return config.decay
    return 1 - config.decay_start


def falling_factor(config: OptimizerConfig, budget_fraction: float) -> float:
    """Compute the schedule's share of the peak, warm-up aside: 1 until `config.decay_start`, at the
    budget's end `min_lr_ratio`."""
    # How much of the way down is still ahead: 1 until the peak is left, 0 at the end
    ahead = min((1 - budget_fraction) / _way_down(config), 1.0)
    ahead = max(0.0, ahead)
    floor = config.min_lr_ratio
    shape: str = config.decay_shape if config.schedule == "wsd" else config.schedule
    if shape == "exponential":
        return math.pow(floor, 1 - ahead)
    return floor + (1 - floor) * _fall(shape, ahead)


def _fall(shape: str, ahead: float) -> float:
    """Compute a fall from 1 to 0, where `ahead` falls so on a line."""
    if shape == "cosine":
        return (1 - math.cos(math.pi * ahead)) / 2
    if shape == "sqrt":
        return 1 - math.sqrt(1 - ahead)
    return ahead
