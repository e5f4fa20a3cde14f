"""Two families of tests that together name a false winner in at most one study in twenty.

Confirmatory: what the study was made for, every arm against the baseline arm on the primary
endpoint, and claims written down before the run. Secondary: every other pair and endpoint.

Let alpha be 1 - confidence. The confirmatory family is tested by Holm's method at 4/5 of alpha; the
secondary one by Holm's method at 1/5 of alpha, or at all of alpha once every confirmatory null has
been rejected. Whichever nulls are true, the chance of any false rejection is at most alpha:

- If a confirmatory null is true: either one is rejected there, which Holm allows in 4/5 of alpha,
  or none is; then the secondary family was tested at 1/5 of alpha, and errs in as much at most.
- If none is true: only the secondary family can err, and it is tested at alpha at most.

Holm's method asks nothing of how the tests depend on one another, and neither does this.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Family = Literal["confirmatory", "secondary"]
Array = NDArray[np.float64]

CONFIRMATORY_SHARE = 0.8
"""Share of alpha at which the confirmatory family is tested; the secondary one has the rest."""


def holm(p_values: ArrayLike) -> Array:
    """Adjust the p-values of a family of tests by Holm's step-down method.

    Rejecting every hypothesis whose adjusted p-value is at most alpha keeps the probability of any
    false rejection in the family at alpha or below.

    The k-th smallest of m is multiplied by m - k + 1, made at least as large as the one before it,
    and cut at 1 (Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6). It holds however the tests depend on one another.

    Args:
        p_values: `[..., m]`: p-values of the tests of one family.

    Returns:
        `[..., m]`: the adjusted p-values, in the order of `p_values`.
    """
    values = np.asarray(p_values, np.float64)
    count = values.shape[-1]
    order = np.argsort(values, axis=-1, kind="stable")
    scaled = np.take_along_axis(values, order, -1) * (count - np.arange(count))
    rising = np.minimum(np.maximum.accumulate(scaled, axis=-1), 1.0)
    adjusted = np.empty_like(values)
    np.put_along_axis(adjusted, order, rising, -1)
    return adjusted


def adjust_families(confirmatory: ArrayLike, secondary: ArrayLike) -> tuple[Array, Array]:
    """Adjust the p-values of both families; see the head of this file for the procedure.

    A family that has no tests leaves its share of alpha to the other one.

    Args:
        confirmatory: `[..., k]`: p-values of the confirmatory tests.
        secondary: `[..., m]`: p-values of the secondary tests.

    Returns:
        `[..., k]` and `[..., m]`: adjusted p-values. A null is rejected where its adjusted p-value
        is at most alpha, whatever alpha is.
    """
    confirmatory_share, secondary_share = alpha_shares(
        np.shape(confirmatory)[-1], np.shape(secondary)[-1]
    )
    first = np.minimum(holm(confirmatory) / confirmatory_share, 1.0)
    second = holm(secondary)
    # At its own share; or at all of alpha, which takes that every confirmatory null is rejected.
    alone = np.minimum(second / secondary_share, 1.0)
    largest = first.max(axis=-1, keepdims=True, initial=0.0)
    return first, np.minimum(alone, np.maximum(second, largest))


def alpha_shares(confirmatory: int, secondary: int) -> tuple[float, float]:
    """Return the shares of alpha at which the two families are tested.

    Args:
        confirmatory: number of confirmatory tests.
        secondary: number of secondary tests.
    """
    # A family without tests cannot err, and needs no share.
    if not confirmatory or not secondary:
        return 1.0, 1.0
    return CONFIRMATORY_SHARE, 1.0 - CONFIRMATORY_SHARE


def level_of_open_test(rejected: int, count: int, family_level: float) -> float:
    """Return the level that a test which did not reject had to reach, the others being as they are.

    By Holm's method it is one of those that are left when all others that rejected are gone.

    Args:
        rejected: number of tests of its family that rejected.
        count: number of tests of its family.
        family_level: level of the family.
    """
    return family_level / (count - rejected)
