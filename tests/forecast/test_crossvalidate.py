"""Held-out errors: by hand, and as they should be when the law is right or wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.forecast import fit, hold_out
from tests.forecast import pilots


def test_hold_out_errors_equal_fit_to_smaller_budgets() -> None:
    runs = pilots.study(np.random.default_rng(0))
    largest = pilots.FLOPS[-1]
    found = hold_out(runs, draws=200, seed=4)
    rest = fit([run for run in runs if run.flops < largest], draws=200, seed=4)
    assert found.budgets == 1
    assert [one.name for one in found.arms] == ["scratch", "logit"]
    for one in found.arms:
        values = [run.value for run in runs if run.arm == one.name and run.flops == largest]
        assert one.flops == largest
        assert one.observed == pytest.approx(sum(values) / 3)
        assert one.predicted == pytest.approx(
            float(rest.arms[one.name].predict(1e6, largest / pilots.PRICE[one.name]).mean[0])
        )
        assert one.error == pytest.approx(one.predicted - one.observed)
        assert one.noise == pytest.approx(np.std(values, ddof=1))
        assert one.relative == pytest.approx(abs(one.error) / one.noise)
        assert one.covered == (one.low <= one.observed <= one.high)
    (gap,) = found.differences
    assert gap.name == "scratch - logit"
    assert gap.error == pytest.approx(found.arms[0].error - found.arms[1].error)
    values = {(run.arm, run.seed): run.value for run in runs if run.flops == largest}
    pairs = [values["scratch", seed] - values["logit", seed] for seed in range(3)]
    assert gap.noise == pytest.approx(np.std(pairs, ddof=1))


def test_planted_error_is_reported_exactly() -> None:
    runs = pilots.study(np.random.default_rng(1), noise=0.0, shift=0.0, arms=("scratch",))
    offsets = {0: 0.04, 1: 0.05, 2: 0.09}
    moved = [
        dataclasses.replace(
            run, value=run.value + offsets[run.seed] * (run.flops == pilots.FLOPS[-1])
        )
        for run in runs
    ]
    (one,) = hold_out(moved, draws=200).arms
    # Noise-free smaller budgets predict the curve itself; the largest lies 0.06 above it on
    # average.
    assert one.error == pytest.approx(-0.06, abs=1e-4)
    assert one.noise == pytest.approx(np.std([0.04, 0.05, 0.09], ddof=1), abs=1e-6)
    assert one.relative == pytest.approx(0.06 / one.noise, rel=1e-2)
    assert not one.covered
    # So many times wider, and the interval's end lies on what was observed.
    assert one.predicted + one.widening * (one.high - one.predicted) == pytest.approx(one.observed)
    assert dataclasses.replace(one, covered=True).widening == 1.0


def test_two_of_five_budgets_are_held_out() -> None:
    flops = np.geomspace(1e13, 3e14, 5)
    found = hold_out(pilots.study(np.random.default_rng(2), flops=flops), budgets=2, draws=200)
    assert [one.flops for one in found.arms] == [flops[3], flops[3], flops[4], flops[4]]
    assert len(found.differences) == 2
    widths = [one.high - one.low for one in found.arms if one.name == "scratch"]
    assert widths[0] < widths[1]


def test_law_that_bends_later_is_not_covered() -> None:
    runs = pilots.study(np.random.default_rng(3), noise=0.002, arms=("scratch",))
    bent = [
        dataclasses.replace(run, value=run.value + 0.3 * (run.flops == pilots.FLOPS[-1]))
        for run in runs
    ]
    (one,) = hold_out(bent, draws=200).arms
    assert not one.covered
    assert one.relative > 20


def test_one_seed_has_no_noise() -> None:
    (one,) = hold_out(
        pilots.study(
            np.random.default_rng(4), seeds=1, flops=np.geomspace(1e13, 3e14, 5), arms=("scratch",)
        )
    ).arms
    assert one.noise is None
    assert one.relative is None


@pytest.mark.parametrize("budgets", [0, 2])
def test_fewer_than_three_budgets_left_are_refused(budgets: int) -> None:
    with pytest.raises(InputError, match="at least 3 left"):
        hold_out(pilots.study(np.random.default_rng(5)), budgets=budgets)
