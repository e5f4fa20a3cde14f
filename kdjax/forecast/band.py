"""A band that holds whole curves at once, from joint bootstrap draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def simultaneous_band(draws: Array, confidence: float) -> tuple[Array, Array]:
    """Compute a band that a share `confidence` of joint draws lies in everywhere at once.

    At every point it goes from the quantile q of the draws to the quantile 1 - q, with one q for
    all points: the largest at which so many draws leave the band nowhere. (Montiel Olea and
    Plagborg-Møller 2019, "Simultaneous confidence bands", Journal of Applied Econometrics 34,
    algorithm 2 for bootstrap draws.) At a single point it is the percentile interval.

    Args:
        draws: `[draws, points]`: row r is one joint draw of all points.
        confidence: nominal coverage of the whole band, between 0 and 1.

    Returns:
        low, high: `[points]` each.
    """
    count = len(draws)
    # How many draws lie at or beyond each one, on the side where these are fewer.
    from_below = draws.argsort(0, kind="stable").argsort(0, kind="stable")
    beyond = np.minimum(from_below, count - 1 - from_below)
    # A draw leaves a band where it lies furthest out; so many may.
    furthest = np.sort(beyond.min(1))
    leaving = int((1 - confidence) * count)
    cut = int(furthest[min(leaving, count - 1)])
    ordered = np.sort(draws, 0)
    return ordered[cut], ordered[count - 1 - cut]
