"""The paired interval and the verdict it gives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kdjax.errors import InputError
from kdjax.evaluation.statistics import (
    Better,
    Comparison,
    against_baseline,
    compare_all,
    decide_verdict,
    expected_false,
    holm,
    interval,
    paired,
    paired_p_value,
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
    comparison = paired(
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


def test_expected_false_equals_rate_of_equal_arms() -> None:
    studies = 5_000
    arms = 4
    seeds = 3
    values = np.random.default_rng(0).normal(size=(studies, arms, seeds))
    # All pairs of four equal arms, each of which wins falsely one time in ten.
    pairs = list(itertools.combinations(range(arms), 2))
    d = np.stack([values[:, i] - values[:, j] for i, j in pairs], 1)
    _, low, high = interval(d, 0.9)
    false_per_study = np.mean(np.sum((low > 0) | (high < 0), axis=1))
    assert expected_false(len(pairs), 0.9) == pytest.approx(0.6)
    assert false_per_study == pytest.approx(0.6, abs=0.06)


def test_verdict_follows_interval_and_margin() -> None:
    # The other arm is 0 throughout, so that its differences are the values.
    def verdict(differences: list[float], margin: float) -> str:
        return paired(
            by_seed(differences), by_seed([0.0] * len(differences)), confidence=0.95, margin=margin
        ).verdict

    assert verdict([0.05, 0.06, 0.055], 0.01) == "BEATS"
    assert verdict([0.001, -0.001, 0.0], 0.01) == "TIES"
    assert verdict([0.05, -0.06, 0.02], 0.01) == "INCONCLUSIVE"
    # Partly beyond the margin and not clear of 0.
    assert verdict([0.009, 0.011, 0.001], 0.01) == "INCONCLUSIVE"


def test_significant_difference_within_margin_ties() -> None:
    a = by_seed([0.5010, 0.5011, 0.5012])
    b = by_seed([0.5, 0.5, 0.5])
    # It is significant, and too small to matter, unless no difference is.
    assert paired(a, b, confidence=0.95, margin=0.01).low > 0
    assert paired(a, b, confidence=0.95, margin=0.01).verdict == "TIES"
    assert paired(a, b, confidence=0.95, margin=0.0).verdict == "BEATS"


def test_difference_of_exactly_the_margin_ties_however_it_is_rounded() -> None:
    # 0.31 - 0.3 is more than 0.01 in floating point, and 0.81 - 0.8 too.
    a = by_seed([0.31, 0.81])
    b = by_seed([0.3, 0.8])
    assert a[0] - b[0] > 0.01
    assert paired(a, b, confidence=0.95, margin=0.01).verdict == "TIES"
    # Tested against a baseline arm they tie as well.
    (tested,) = against_baseline({"a": a, "b": b}, "b", confidence=0.95, margin=0.01)
    assert tested.verdict == "TIES"
    # What is larger by more than rounding does not.
    a = by_seed([0.31 + 1e-12, 0.81 + 1e-12])
    assert paired(a, b, confidence=0.95, margin=0.01).verdict == "BEATS"
    (tested,) = against_baseline({"a": a, "b": b}, "b", confidence=0.95, margin=0.01)
    assert tested.verdict == "BEATS"


def test_winner_is_stored_first_for_either_direction() -> None:
    low_loss = by_seed([2.0, 2.1, 2.0])
    high_loss = by_seed([3.0, 3.1, 3.1])
    # A low loss wins where lower is better, and loses where higher is.
    comparison = paired(
        high_loss,
        low_loss,
        names=("scratch", "logit"),
        confidence=0.95,
        margin=0.01,
        better="lower",
    )
    assert (comparison.a, comparison.b, comparison.verdict) == ("logit", "scratch", "BEATS")
    assert comparison.low < comparison.difference < comparison.high < 0
    comparison = paired(
        high_loss,
        low_loss,
        names=("scratch", "logit"),
        confidence=0.95,
        margin=0.01,
        better="higher",
    )
    assert (comparison.a, comparison.b, comparison.verdict) == ("scratch", "logit", "BEATS")
    assert 0 < comparison.low < comparison.difference < comparison.high


values_by_seed = st.dictionaries(st.integers(0, 5), st.floats(-10, 10), max_size=6)


@given(values_by_seed, values_by_seed, st.sampled_from(["higher", "lower"]))
def test_swapped_arms_give_same_verdict(
    a: dict[int, float], b: dict[int, float], better: Better
) -> None:
    options = dict(confidence=0.95, margin=0.5, better=better)
    forward = paired(a, b, names=("x", "y"), **options)
    swapped = paired(b, a, names=("y", "x"), **options)
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
        return paired(a, b, confidence=0.9, margin=1.0)

    # A shift of its own for each seed, and none.
    assert compare([shift * i for i in range(len(pairs))]) == compare([0] * len(pairs))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6), st.sampled_from([0.0, 0.01]))
def test_identical_values_tie_without_width(values: list[float], margin: float) -> None:
    comparison = paired(by_seed(values), by_seed(values), confidence=0.95, margin=margin)
    assert (comparison.difference, comparison.low, comparison.high, comparison.verdict) == (
        0,
        0,
        0,
        "TIES",
    )


@given(st.floats(-1e3, 1e3), st.integers(2, 7))
def test_equal_differences_give_no_width_despite_rounding(difference: float, n: int) -> None:
    _, low, high = interval([difference] * n, 0.95)
    assert low == high == pytest.approx(difference)


def test_seeds_of_one_arm_only_change_nothing() -> None:
    a = {0: 1.0, 1: 1.1, 2: 1.2, 7: 100.0}
    b = {2: 0.1, 1: 0.2, 0: 0.3, 9: -100.0}
    shared = [0, 1, 2]
    assert paired(a, b, confidence=0.95, margin=0.01) == paired(
        {s: a[s] for s in shared}, {s: b[s] for s in shared}, confidence=0.95, margin=0.01
    )


def test_fewer_than_two_shared_seeds_are_inconclusive() -> None:
    comparison = paired({0: 0.9, 1: 0.9}, {1: 0.1}, confidence=0.95, margin=0.01)
    assert comparison.n == 1
    assert comparison.difference == pytest.approx(0.8)
    assert comparison.low is None
    assert comparison.high is None
    assert comparison.verdict == "INCONCLUSIVE"
    # No shared seed at all gives no difference either.
    none = paired({0: 0.9}, {1: 0.1}, confidence=0.95, margin=0.01)
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
        paired(
            {0: 1.0, 1: 1.0},
            {0: 1.0, 4: bad},
            names=("scratch", "minilm"),
            confidence=0.95,
            margin=0.01,
        )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (dict(confidence=1.0, margin=0.1), "confidence is 1.0"),
        (dict(confidence=95.0, margin=0.1), "confidence is 95.0"),
        (dict(confidence=math.nan, margin=0.1), "confidence is nan"),
        (dict(confidence=0.95, margin=-0.1), "margin is -0.1"),
        (dict(confidence=0.95, margin=math.inf), "margin is inf"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}, **settings)


def test_holm_gives_the_textbook_example() -> None:
    # 0.01 * 4, 0.02 * 3, max(0.06, 0.03 * 2), max(0.06, 0.04 * 1); in the order given.
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_paired_p_value_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=5)
    b = a + rng.normal(0.5, 0.3, 5)
    assert paired_p_value(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert paired_p_value([0.0, 0.0]) == 1.0
    assert paired_p_value([0.1, 0.1]) == 0.0


def test_equal_arms_name_a_winner_in_at_most_one_study_in_twenty() -> None:
    studies = 1_000
    seeds = 4
    rng = np.random.default_rng(0)
    false_winners = 0
    for _ in range(studies):
        values = {
            arm: by_seed(rng.normal(size=seeds))
            for arm in ("scratch", "logit", "tinybert", "minilm")
        }
        comparisons = against_baseline(values, "scratch", confidence=0.95)
        false_winners += any(comparison.verdict != "INCONCLUSIVE" for comparison in comparisons)
    assert false_winners / studies < 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
    assert false_winners > 0


def test_baseline_comparison_reads_from_the_arms_side() -> None:
    values = {
        "logit": by_seed([3.8, 3.9, 3.7]),
        "scratch": by_seed([4.2, 4.4, 4.0]),
        "alone": {9: 1.0},
    }
    better, alone = against_baseline(values, "scratch", confidence=0.9, better="lower")
    assert (better.arm, better.baseline, better.verdict, better.n) == (
        "logit",
        "scratch",
        "BEATS",
        3,
    )
    assert better.difference == pytest.approx(-0.4)
    assert better.low < better.difference < better.high
    # Two tests in the family, though one of them cannot be made.
    assert better.p_adjusted == pytest.approx(2 * better.p_value)
    assert (alone.n, alone.p_value, alone.verdict) == (0, None, "INCONCLUSIVE")
    (worse,) = against_baseline(
        {"scratch": values["logit"], "logit": values["scratch"]},
        "scratch",
        confidence=0.95,
        better="lower",
    )
    assert worse.verdict == "LOSES"
    (within,) = against_baseline(
        {"scratch": values["scratch"], "logit": values["logit"]},
        "scratch",
        confidence=0.9,
        margin=1.0,
        better="lower",
    )
    assert within.verdict == "TIES"
    assert within.p_value == better.p_value
    with pytest.raises(InputError, match=r"arm 'logit', seed 1: value is nan"):
        against_baseline({"scratch": {1: 0.0}, "logit": {1: math.nan}}, "scratch", confidence=0.95)


def test_untestable_arm_is_inconclusive_and_counts_as_a_test() -> None:
    values = {
        "scratch": {0: 0.5, 1: 0.5, 2: 0.5},
        "constant": {0: 0.7, 1: 0.7, 2: 0.7},
        "kd": {0: 0.69, 1: 0.70, 2: 0.72},
    }
    constant, kd = against_baseline(values, "scratch", confidence=0.95, untestable={"constant"})
    assert constant.verdict == "INCONCLUSIVE"
    assert constant.difference == pytest.approx(0.2)
    assert (constant.p_value, constant.p_adjusted) == (None, None)
    # Two hypotheses: the smaller p-value is doubled, though the other has none.
    assert kd.verdict == "BEATS"
    assert kd.p_value is not None
    assert kd.p_adjusted == pytest.approx(2 * kd.p_value)


@pytest.mark.parametrize(
    ("ends", "differ", "better", "verdict"),
    [
        ((-0.1, 0.1), False, "higher", "TIES"),
        ((0.05, 0.1), True, "higher", "TIES"),
        ((0.1, 0.5), True, "higher", "BEATS"),
        ((0.1, 0.5), True, "lower", "LOSES"),
        ((-0.5, -0.1), True, "lower", "BEATS"),
        ((-0.5, -0.1), True, "higher", "LOSES"),
        ((-0.1, 0.5), False, "higher", "INCONCLUSIVE"),
        ((0.1, 0.5), False, "higher", "INCONCLUSIVE"),
    ],
)
def test_verdict_follows_table_of_margin_difference_and_direction(
    ends: tuple[float, float], differ: bool, better: Better, verdict: str
) -> None:
    low, high = ends
    mean = (low + high) / 2
    decided = decide_verdict(
        mean, low, high, differ=differ, margin=0.1, better=better, values=[1.0]
    )
    assert decided == verdict
