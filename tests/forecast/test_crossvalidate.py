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
    validation = hold_out(runs, draws=200, seed=4)
    rest = fit([run for run in runs if run.flops < largest], draws=200, seed=4)
    assert validation.budgets == 1
    assert [arm.name for arm in validation.arms] == ["scratch", "logit"]
    for arm in validation.arms:
        values = [run.value for run in runs if run.arm == arm.name and run.flops == largest]
        assert arm.flops == largest
        assert arm.observed == pytest.approx(sum(values) / 3)
        assert arm.predicted == pytest.approx(
            float(rest.arms[arm.name].predict(1e6, largest / pilots.PRICE[arm.name]).mean[0])
        )
        assert arm.error == pytest.approx(arm.predicted - arm.observed)
        assert arm.noise == pytest.approx(np.std(values, ddof=1))
        assert arm.relative == pytest.approx(abs(arm.error) / arm.noise)
        assert arm.covered == (arm.low <= arm.observed <= arm.high)
    (gap,) = validation.differences
    assert gap.name == "scratch - logit"
    assert gap.error == pytest.approx(validation.arms[0].error - validation.arms[1].error)
    by_run = {(run.arm, run.seed): run.value for run in runs if run.flops == largest}
    pairs = [by_run["scratch", seed] - by_run["logit", seed] for seed in range(3)]
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
    (arm,) = hold_out(moved, draws=200).arms
    # Noise-free smaller budgets predict the curve itself; the largest lies 0.06 above it on
    # average.
    assert arm.error == pytest.approx(-0.06, abs=1e-4)
    assert arm.noise == pytest.approx(np.std([0.04, 0.05, 0.09], ddof=1), abs=1e-6)
    assert arm.relative == pytest.approx(0.06 / arm.noise, rel=1e-2)
    assert not arm.covered
    # So many times wider, and the interval's end lies on what was observed.
    assert arm.predicted + arm.widening * (arm.high - arm.predicted) == pytest.approx(arm.observed)
    assert dataclasses.replace(arm, covered=True).widening == 1.0


def test_two_of_five_budgets_are_held_out() -> None:
    flops = np.geomspace(1e13, 3e14, 5)
    validation = hold_out(pilots.study(np.random.default_rng(2), flops=flops), budgets=2, draws=200)
    assert [arm.flops for arm in validation.arms] == [flops[3], flops[3], flops[4], flops[4]]
    assert len(validation.differences) == 2
    widths = [arm.high - arm.low for arm in validation.arms if arm.name == "scratch"]
    assert widths[0] < widths[1]


def test_law_that_bends_later_is_not_covered() -> None:
    runs = pilots.study(np.random.default_rng(3), noise=0.002, arms=("scratch",))
    bent = [
        dataclasses.replace(run, value=run.value + 0.3 * (run.flops == pilots.FLOPS[-1]))
        for run in runs
    ]
    (arm,) = hold_out(bent, draws=200).arms
    assert not arm.covered
    assert arm.relative > 20


def test_one_seed_has_no_noise() -> None:
    (arm,) = hold_out(
        pilots.study(
            np.random.default_rng(4), seeds=1, flops=np.geomspace(1e13, 3e14, 5), arms=("scratch",)
        )
    ).arms
    assert arm.noise is None
    assert arm.relative is None


@pytest.mark.parametrize("budgets", [0, 2])
def test_fewer_than_three_budgets_left_are_refused(budgets: int) -> None:
    with pytest.raises(InputError, match="at least 3 left"):
        hold_out(pilots.study(np.random.default_rng(5)), budgets=budgets)
