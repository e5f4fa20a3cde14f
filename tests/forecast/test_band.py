"""The simultaneous band of joint draws."""

from __future__ import annotations

import numpy as np
import pytest

from kdjax.forecast.band import simultaneous_band


def test_band_of_one_point_is_the_percentile_interval() -> None:
    draws = np.random.default_rng(0).normal(size=(999, 1))
    low, high = simultaneous_band(draws, 0.9)
    ordered = np.sort(draws[:, 0])
    # 5% of 999 draws beyond each end.
    assert (low[0], high[0]) == pytest.approx((ordered[49], ordered[-50]), abs=0.02)


def test_band_holds_the_stated_share_of_whole_draws() -> None:
    rng = np.random.default_rng(1)
    # Neighbours move together, as points of a curve do; scales differ.
    draws = rng.normal(size=(2000, 30)).cumsum(1) * np.geomspace(1, 100, 30)
    low, high = simultaneous_band(draws, 0.95)
    inside = ((draws >= low) & (draws <= high)).all(1).mean()
    assert inside == pytest.approx(0.95, abs=0.01)
    pointwise = np.quantile(draws, [0.025, 0.975], axis=0)
    assert ((draws >= pointwise[0]) & (draws <= pointwise[1])).all(1).mean() < 0.9
    assert (low < pointwise[0]).all()


def test_band_of_the_same_point_twice_is_no_wider() -> None:
    draws = np.random.default_rng(2).normal(size=(500, 1))
    once = simultaneous_band(draws, 0.9)
    twice = simultaneous_band(np.repeat(draws, 2, axis=1), 0.9)
    np.testing.assert_array_equal(np.repeat(once, 2, axis=1), twice)
