"""Who wins where: verdicts, their ranges, crossings, and what a study of equal arms says."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.forecast import PairwiseComparison, compare_arms, fit
from tests.forecast import pilots

BUDGETS = np.geomspace(1e13, 1e17, 81)
# Twins differ by nothing; `logit` of LAW below leads up to a budget near 1e15, beyond the pilots,
# and falls behind.
CROSSING = {"scratch": (2.0, 60.0, 0.25), "logit": (2.3, 156.0, 0.35)}
TWINS = {"scratch": (2.0, 60.0, 0.25), "logit": (2.0, 60.0 * (6 / 9) ** 0.25, 0.25)}


def true_crossing() -> float:
    """Return the budget where the laws of CROSSING change places."""
    fine = np.geomspace(1e13, 1e17, 200_001)
    gap = pilots.loss("scratch", fine, CROSSING) - pilots.loss("logit", fine, CROSSING)
    (at,) = np.flatnonzero(np.diff(np.sign(gap)))
    return float(fine[at])


def compare(
    rng: np.random.Generator,
    law: pilots.Law,
    draws: int = 300,
    confidence: float = 0.9,
    margin: float = 0.0,
    **options: float,
) -> PairwiseComparison:
    """Fit a drawn study of two arms and compare them."""
    fits = fit(
        pilots.study(rng, law=law, **options),
        draws=draws,
        confidence=confidence,
        seed=int(rng.integers(1 << 30)),
    )
    (comparison,) = compare_arms(fits, BUDGETS, pilots.spend, margin=margin)
    return comparison


def test_crossing_separates_the_two_winners() -> None:
    comparison = compare(np.random.default_rng(0), CROSSING, noise=0.001, shift=0.001)
    assert (comparison.a, comparison.b) == ("scratch", "logit")
    where = true_crossing()
    assert 1e14 < where < 1e16
    assert comparison.crossing.value == pytest.approx(where, rel=0.3)
    assert comparison.crossing.low < where < comparison.crossing.high
    assert comparison.crossing.later == "scratch"
    assert comparison.crossing.within > 0.95
    assert [span.verdict for span in comparison.ranges] == ["LOSES", "INCONCLUSIVE", "BEATS"]
    # Ranges are the verdicts merged, without gaps.
    assert comparison.ranges[0].low == BUDGETS[0]
    assert comparison.ranges[-1].high == BUDGETS[-1]
    ends = [(span.low, span.high) for span in comparison.ranges]
    for (_, high), (low, _) in itertools.pairwise(ends):
        assert list(BUDGETS).index(low) == list(BUDGETS).index(high) + 1
    sure = np.array([verdict == "BEATS" for verdict in comparison.verdicts])
    assert (comparison.high[sure] < 0).all()
    np.testing.assert_array_equal(np.array(comparison.verdicts) == "LOSES", comparison.low > 0)


@pytest.mark.parametrize(
    ("studies", "least"),
    # One standard error is 3.9 points of 60 studies, and 2.5 of 150.
    [(60, 0.80), pytest.param(150, 0.84, marks=pytest.mark.exhaustive)],
)
def test_crossing_is_covered_at_nominal_rate(studies: int, least: float) -> None:
    where = true_crossing()
    inside = []
    for study in range(studies):
        comparison = compare(
            np.random.default_rng(1000 + study), CROSSING, draws=200, noise=0.006
        ).crossing
        inside.append(comparison.low <= where <= comparison.high)
    assert least <= np.mean(inside) <= 0.99


@pytest.mark.parametrize(
    ("studies", "most"),
    # Nominal is 10%, one standard error 3.9 points of 60 studies, and 2.5 of 150.
    [(60, 0.19), pytest.param(150, 0.16, marks=pytest.mark.exhaustive)],
)
def test_equal_arms_win_anywhere_no_more_often_than_nominal(studies: int, most: float) -> None:
    wrong = []
    for study in range(studies):
        comparison = compare(np.random.default_rng(2000 + study), TWINS, draws=200)
        wrong.append(bool({"BEATS", "LOSES"} & set(comparison.verdicts)))
    assert np.mean(wrong) <= most


def test_equal_arms_tie_within_wide_margin() -> None:
    comparison = compare(np.random.default_rng(3), TWINS, noise=0.002, shift=0.002, margin=0.05)
    assert comparison.verdicts[0] == "TIES"
    tied = np.array([verdict == "TIES" for verdict in comparison.verdicts])
    np.testing.assert_array_equal(tied, (comparison.low >= -0.05) & (comparison.high <= 0.05))


def test_laws_that_never_cross_have_unbounded_end() -> None:
    law = {"scratch": (2.0, 60.0, 0.25), "logit": (2.5, 60.0, 0.25)}
    comparison = compare(np.random.default_rng(4), law, noise=0.002, shift=0.002)
    assert comparison.crossing.value is None
    assert comparison.crossing.within < 0.05
    assert comparison.crossing.low == 0
    assert comparison.crossing.later == "scratch"
    assert [span.verdict for span in comparison.ranges] == ["BEATS"]


def test_crossing_in_large_noise_has_unbounded_end() -> None:
    comparison = compare(np.random.default_rng(5), CROSSING, noise=0.05, shift=0.05, draws=500)
    assert comparison.crossing.high == math.inf or comparison.crossing.low == 0
    assert "INCONCLUSIVE" in comparison.verdicts


def test_scores_give_same_verdicts_with_opposite_sign() -> None:
    runs = pilots.study(np.random.default_rng(6), law=CROSSING, noise=0.001, shift=0.001)
    turned = [dataclasses.replace(run, value=-run.value) for run in runs]
    (losses,) = compare_arms(fit(runs, draws=200), BUDGETS, pilots.spend)
    (scores,) = compare_arms(
        fit(turned, better="higher", best=0.0, draws=200), BUDGETS, pilots.spend
    )
    assert scores.verdicts == losses.verdicts
    assert scores.crossing.value == pytest.approx(losses.crossing.value, rel=1e-6)
    assert scores.crossing.later == losses.crossing.later
    np.testing.assert_allclose(scores.mean, -losses.mean, atol=1e-9)


def test_arm_that_gets_worse_with_tokens_wins_nothing() -> None:
    runs = pilots.study(np.random.default_rng(7))
    straight = [run for run in runs if run.arm == "scratch"]
    turned = [dataclasses.replace(run, value=9 - run.value) for run in runs if run.arm == "logit"]
    (comparison,) = compare_arms(fit([*straight, *turned], draws=200), BUDGETS, pilots.spend)
    assert {span.verdict for span in comparison.ranges} == {"INCONCLUSIVE"}


def test_three_arms_give_three_comparisons() -> None:
    rng = np.random.default_rng(8)
    runs = pilots.study(rng)
    third = pilots.study(rng, arms=("scratch",))
    runs += [dataclasses.replace(run, arm="minilm") for run in third]
    comparisons = compare_arms(
        fit(runs, draws=100), BUDGETS, lambda arm, c: pilots.spend("scratch", c)
    )
    assert [(comparison.a, comparison.b) for comparison in comparisons] == [
        ("scratch", "logit"),
        ("scratch", "minilm"),
        ("logit", "minilm"),
    ]


@pytest.mark.parametrize("budgets", [[1e13], [1e14, 1e13], [0.0, 1e13]])
def test_budgets_not_rising_are_refused(budgets: list[float]) -> None:
    fits = fit(pilots.study(np.random.default_rng(9)), draws=100)
    with pytest.raises(InputError, match="expected at least two, above 0 and rising"):
        compare_arms(fits, budgets, pilots.spend)


def test_negative_margin_is_refused() -> None:
    fits = fit(pilots.study(np.random.default_rng(9)), draws=100)
    with pytest.raises(InputError, match="margin is -1"):
        compare_arms(fits, BUDGETS, pilots.spend, margin=-1)


def test_widened_interval_gives_fewer_verdicts() -> None:
    fits = fit(
        pilots.study(np.random.default_rng(0), law=CROSSING, noise=0.001, shift=0.001), draws=300
    )
    (plain,) = compare_arms(fits, BUDGETS, pilots.spend)
    (wide,) = compare_arms(fits, BUDGETS, pilots.spend, widen={("scratch", "logit"): 3.0})
    np.testing.assert_allclose(wide.mean, plain.mean)
    np.testing.assert_allclose(wide.high - wide.mean, 3 * (plain.high - plain.mean))
    np.testing.assert_allclose(wide.mean - wide.low, 3 * (plain.mean - plain.low))
    assert wide.verdicts.count("INCONCLUSIVE") > plain.verdicts.count("INCONCLUSIVE")
    assert wide.crossing.low <= plain.crossing.low
    assert wide.crossing.high >= plain.crossing.high
