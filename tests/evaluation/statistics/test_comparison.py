"""The paired interval and the verdict it gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdjax.errors import InputError
from kdjax.evaluation.statistics import (
    ArmVerdict,
    Better,
    Comparison,
    compare_all,
    compare_pair,
    decide_verdict,
    estimate,
    interval,
    smallest_spread,
)

# Quantile .975 of Student's t by degrees of freedom, as printed in statistical tables.
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262}


def by_seed(values: Sequence[float]) -> dict[int, float]:
    return dict(enumerate(values))


@pytest.mark.parametrize("freedom", T_975)
def test_interval_equals_formula_with_tabled_quantile(freedom: int) -> None:
    n = freedom + 1
    # Differences of no pattern, so that the formula is the only way to the interval.
    d = [0.3 * i * i - 0.5 * i + 0.1 for i in range(n)]
    mean = sum(d) / n
    half = T_975[freedom] * math.sqrt(sum((x - mean) ** 2 for x in d) / freedom / n)
    actual = interval(d, 0.95)
    np.testing.assert_allclose(
        actual, (mean, mean - half, mean + half), rtol=2e-4, atol=2e-4 * half
    )


def test_paired_gives_the_worked_example() -> None:
    # Differences .02, .03, .04: mean .03, s = .01, half-width 4.3027 * .01 / sqrt(3) = .024842.
    comparison = compare_pair(
        {0: 0.72, 1: 0.73, 2: 0.74},
        {0: 0.70, 1: 0.70, 2: 0.70},
        names=("tinybert", "scratch"),
        confidence=0.95,
        margin=0.01,
    )
    assert (comparison.a, comparison.verdict, comparison.b, comparison.n) == (
        "tinybert",
        "BEATS",
        "scratch",
        3,
    )
    np.testing.assert_allclose(
        (comparison.difference, comparison.low, comparison.high),
        (0.03, 0.005158, 0.054842),
        atol=1e-6,
    )


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_interval_covers_at_nominal_rate(n: int) -> None:
    studies = 20_000
    d = np.random.default_rng(n).normal(0.37, 2.0, (studies, n))
    _, low, high = interval(d, 0.95)
    # Four standard deviations of the rate in that many studies.
    covered = np.mean((low <= 0.37) & (high >= 0.37))
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / studies)


def test_verdict_follows_interval_and_margin() -> None:
    # The other arm is 0 throughout, so that its differences are the values.
    def verdict(differences: list[float], margin: float) -> str:
        return compare_pair(
            by_seed(differences), by_seed([0.0] * len(differences)), confidence=0.95, margin=margin
        ).verdict

    assert verdict([0.05, 0.06, 0.055], 0.01) == "BEATS"
    assert verdict([0.001, -0.001, 0.0], 0.01) == "TIES"
    assert verdict([0.05, -0.06, 0.02], 0.01) == "INCONCLUSIVE"
    # Partly beyond the margin and not clear of 0.
    assert verdict([0.009, 0.011, 0.001], 0.01) == "INCONCLUSIVE"


def test_tie_takes_the_90_percent_interval_within_the_margin() -> None:
    # Mean 0, s = .005, 3 seeds: 2.920 * s / sqrt(3) = .00843 at 90%, and with 4.303 .0124 at 95%.
    a = by_seed([0.505, 0.5, 0.495])
    b = by_seed([0.5, 0.5, 0.5])
    comparison = compare_pair(a, b, confidence=0.95, margin=0.0085)
    assert comparison.verdict == "TIES"
    assert comparison.high == pytest.approx(0.01242, abs=1e-5)
    assert compare_pair(a, b, confidence=0.95, margin=0.0084).verdict == "INCONCLUSIVE"


def test_significant_difference_within_margin_ties() -> None:
    a = by_seed([0.5010, 0.5011, 0.5012])
    b = by_seed([0.5, 0.5, 0.5])
    # It is significant, and too small to matter, unless no difference is.
    assert compare_pair(a, b, confidence=0.95, margin=0.01).low > 0
    assert compare_pair(a, b, confidence=0.95, margin=0.01).verdict == "TIES"
    assert compare_pair(a, b, confidence=0.95, margin=0.0).verdict == "BEATS"


def test_winner_is_stored_first_for_either_direction() -> None:
    low_loss = by_seed([2.0, 2.1, 2.0])
    high_loss = by_seed([3.0, 3.1, 3.1])
    # A low loss wins where lower is better, and loses where higher is.
    comparison = compare_pair(
        high_loss,
        low_loss,
        names=("scratch", "logit"),
        confidence=0.95,
        margin=0.01,
        better="lower",
    )
    assert (comparison.a, comparison.b, comparison.verdict) == ("logit", "scratch", "BEATS")
    assert comparison.low < comparison.difference < comparison.high < 0
    comparison = compare_pair(
        high_loss,
        low_loss,
        names=("scratch", "logit"),
        confidence=0.95,
        margin=0.01,
        better="higher",
    )
    assert (comparison.a, comparison.b, comparison.verdict) == ("scratch", "logit", "BEATS")
    assert 0 < comparison.low < comparison.difference < comparison.high


def test_pairs_with_the_baseline_are_confirmatory_and_the_others_secondary() -> None:
    rng = np.random.default_rng(3)
    values = {arm: by_seed(rng.normal(mean, 0.1, 5)) for arm, mean in dict(a=1, b=2, c=0).items()}
    comparisons = compare_all(values, confidence=0.95, margin=0.0, baseline="b")
    assert [comparison.family for comparison in comparisons] == [
        "confirmatory",
        "secondary",
        "confirmatory",
    ]
    ab, ac, bc = (comparison.p_value or 0.0 for comparison in comparisons)
    # By Holm over two at 4/5 of alpha; the secondary one at all of it, as both of these reject.
    larger = max(ab, bc)
    smaller = 2 * min(ab, bc)
    largest = max(larger, smaller) / 0.8
    assert max(comparisons[0].p_adjusted or 0.0, comparisons[2].p_adjusted or 0.0) == (
        pytest.approx(largest)
    )
    assert comparisons[1].p_adjusted == pytest.approx(min(5 * ac, max(ac, largest)))


values_by_seed = st.dictionaries(st.integers(0, 5), st.floats(-10, 10), max_size=6)


@settings(max_examples=25)
@given(values_by_seed, values_by_seed, st.sampled_from(["higher", "lower"]))
def test_swapped_arms_give_same_verdict(
    a: dict[int, float], b: dict[int, float], better: Better
) -> None:
    options = dict(confidence=0.95, margin=0.5, better=better)
    forward = compare_pair(a, b, names=("x", "y"), **options)
    swapped = compare_pair(b, a, names=("y", "x"), **options)
    # The verdict is the pair's, whichever is named first.
    assert forward.verdict == swapped.verdict
    if forward.verdict == "BEATS":
        assert forward == swapped
    elif forward.n >= 2:
        assert (forward.a, forward.difference, forward.low, forward.high) == (
            swapped.b,
            -swapped.difference,
            -swapped.high,
            -swapped.low,
        )


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(-99, 99), st.integers(-99, 99)), min_size=2, max_size=6),
    st.integers(-50, 50),
)
def test_shift_of_both_arms_in_a_seed_changes_nothing(
    pairs: list[tuple[int, int]], shift: int
) -> None:
    # A seed shifts both arms alike, and differences do not see it.
    def compare(shifts: list[int]) -> Comparison:
        a = by_seed([x + s for (x, _), s in zip(pairs, shifts, strict=True)])
        b = by_seed([y + s for (_, y), s in zip(pairs, shifts, strict=True)])
        return compare_pair(a, b, confidence=0.9, margin=1.0, resolution=0.001)

    # A shift of its own for each seed, and none.
    assert compare([shift * i for i in range(len(pairs))]) == compare([0] * len(pairs))


@given(st.floats(-1e3, 1e3), st.integers(2, 7))
def test_equal_differences_give_no_width_despite_rounding(difference: float, n: int) -> None:
    _, low, high = interval([difference] * n, 0.95)
    assert low == high == pytest.approx(difference)


def test_equal_differences_are_judged_by_the_resolution() -> None:
    # Five seeds that are each one row of 50 better: t = sqrt(5), p = 0.0890 by tables.
    a = by_seed([0.62] * 5)
    b = by_seed([0.60] * 5)
    one_row = compare_pair(a, b, confidence=0.95, margin=0.0, resolution=1 / 50)
    assert one_row.verdict == "INCONCLUSIVE"
    assert one_row.p_value == pytest.approx(0.0890, abs=1e-4)
    # Rows that are far more are another matter, and a p-value is never 0.
    many = compare_pair(a, b, confidence=0.95, margin=0.0, resolution=1 / 5000)
    assert many.verdict == "BEATS"
    assert many.p_value is not None
    assert many.p_value > 0
    losses = compare_pair(a, b, confidence=0.95, margin=0.0)
    assert losses.p_value is not None
    assert 0 < losses.p_value < 1e-12


def test_identical_values_tie_where_the_test_set_can_show_it() -> None:
    same = by_seed([0.6] * 5)
    assert (
        compare_pair(same, same, confidence=0.95, margin=0.01, resolution=1 / 200).verdict == "TIES"
    )
    # One row of 20 is five times the margin.
    few = compare_pair(same, same, confidence=0.95, margin=0.01, resolution=1 / 20)
    assert (few.difference, few.p_value, few.verdict) == (0.0, 1.0, "INCONCLUSIVE")
    assert few.low is not None
    assert few.low < 0


def test_smallest_spread_is_a_row_or_a_step_of_float32() -> None:
    assert smallest_spread([0.5, 0.75], 1 / 200) == 0.005
    assert smallest_spread([4.0, -8.0]) == pytest.approx(8 * 2**-23)
    assert smallest_spread([]) == 0.0


def test_seeds_of_one_arm_only_change_nothing() -> None:
    a = {0: 1.0, 1: 1.1, 2: 1.2, 7: 100.0}
    b = {2: 0.1, 1: 0.2, 0: 0.3, 9: -100.0}
    shared = [0, 1, 2]
    assert compare_pair(a, b, confidence=0.95, margin=0.01) == compare_pair(
        {s: a[s] for s in shared}, {s: b[s] for s in shared}, confidence=0.95, margin=0.01
    )


def test_fewer_than_two_shared_seeds_are_inconclusive() -> None:
    comparison = compare_pair({0: 0.9, 1: 0.9}, {1: 0.1}, confidence=0.95, margin=0.01)
    assert comparison.n == 1
    assert comparison.difference == pytest.approx(0.8)
    assert comparison.low is None
    assert comparison.high is None
    assert comparison.verdict == "INCONCLUSIVE"
    # No shared seed at all gives no difference either.
    none = compare_pair({0: 0.9}, {1: 0.1}, confidence=0.95, margin=0.01)
    assert (none.n, none.difference, none.verdict) == (0, None, "INCONCLUSIVE")


def test_compare_all_has_every_pair_once() -> None:
    values = {
        name: by_seed([base, base + 0.01, base - 0.01])
        for name, base in dict(a=0.5, b=0.7, c=0.5).items()
    }
    comparisons = compare_all(values, confidence=0.95, margin=0.02)
    assert [(c.a, c.verdict, c.b) for c in comparisons] == [
        ("b", "BEATS", "a"),
        ("a", "TIES", "c"),
        ("b", "BEATS", "c"),
    ]
    # One arm makes no pair.
    assert compare_all({"a": {0: 1.0}}, confidence=0.95, margin=0.02) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_value_not_finite_is_refused_with_arm_and_seed(bad: float) -> None:
    with pytest.raises(InputError, match=r"arm 'minilm', seed 4: value is -?(nan|inf)"):
        compare_pair(
            {0: 1.0, 1: 1.0},
            {0: 1.0, 4: bad},
            names=("scratch", "minilm"),
            confidence=0.95,
            margin=0.01,
        )


@pytest.mark.parametrize(
    ("invalid", "named"),
    [
        (dict(confidence=1.0, margin=0.1), "confidence is 1.0"),
        (dict(confidence=95.0, margin=0.1), "confidence is 95.0"),
        (dict(confidence=math.nan, margin=0.1), "confidence is nan"),
        (dict(confidence=0.95, margin=-0.1), "margin is -0.1"),
        (dict(confidence=0.95, margin=math.inf), "margin is inf"),
    ],
)
def test_invalid_settings_are_refused(invalid: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        compare_pair({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}, **invalid)


def test_p_value_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=5)
    b = a + rng.normal(0.5, 0.3, 5)
    over_seeds = estimate(a - b)
    assert float(over_seeds.p_value()) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    # Many studies at once give what each gives.
    studies = rng.normal(size=(6, 4))
    expected = [stats.ttest_1samp(study, 0.0).pvalue for study in studies]
    np.testing.assert_allclose(estimate(studies).p_value(), expected)


@pytest.mark.parametrize("margin", [0.05, 0.5, 1.5])
def test_two_one_sided_tests_equal_scipy_s(margin: float) -> None:
    d = np.random.default_rng(1).normal(0.2, 0.5, 6)
    above = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(d, margin, alternative="less").pvalue
    assert bool(estimate(d).is_within(margin, 0.05)) == (max(above, below) <= 0.05)


@pytest.mark.parametrize(
    ("is_tie", "is_significant", "mean", "better", "verdict"),
    [
        (True, False, 0.1, "higher", "TIES"),
        (True, True, 0.1, "higher", "TIES"),
        (False, True, 0.3, "higher", "BEATS"),
        (False, True, 0.3, "lower", "LOSES"),
        (False, True, -0.3, "lower", "BEATS"),
        (False, True, -0.3, "higher", "LOSES"),
        (False, False, 0.3, "higher", "INCONCLUSIVE"),
    ],
)
def test_verdict_follows_table_of_tie_significance_and_direction(
    is_tie: bool, is_significant: bool, mean: float, better: Better, verdict: ArmVerdict
) -> None:
    decided = decide_verdict(mean, is_tie=is_tie, is_significant=is_significant, better=better)
    assert decided == verdict
