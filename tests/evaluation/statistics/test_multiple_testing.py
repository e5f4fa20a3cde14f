"""Holm's method, the two families, and how often studies of equal arms name a winner."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.verdicts import EQUAL_MEANS, SAME, Scenario, coverage, false_winners, found
from kdjax.evaluation.statistics import PairedTest, adjust_families, holm, judge_tests

STUDIES = 1_000


def test_holm_gives_the_textbook_example() -> None:
    # 0.01 * 4, 0.02 * 3, max(0.06, 0.03 * 2), max(0.06, 0.04 * 1); in the order given.
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_secondary_family_has_a_fifth_until_every_confirmatory_null_is_rejected() -> None:
    first, second = adjust_families([0.01, 0.03], [0.009, 0.4])
    # 2 * 0.01 and 0.03, over 4/5; 2 * 0.009, at 1/5 of alpha or once 0.0375 is rejected.
    np.testing.assert_allclose(first, [0.025, 0.0375])
    np.testing.assert_allclose(second, [0.0375, 0.4])
    # A confirmatory null that stands leaves the secondary family its fifth.
    _, second = adjust_families([0.01, 0.3], [0.009, 0.4])
    np.testing.assert_allclose(second, [0.09, 0.4])


def test_family_alone_is_tested_at_all_of_alpha() -> None:
    np.testing.assert_allclose(adjust_families([0.02, 0.03], [])[0], [0.04, 0.04])
    np.testing.assert_allclose(adjust_families([], [0.02, 0.03])[1], [0.04, 0.04])


def test_families_of_many_studies_equal_those_of_each() -> None:
    rng = np.random.default_rng(0)
    confirmatory = rng.uniform(0, 0.1, (5, 3))
    secondary = rng.uniform(0, 0.1, (5, 4))
    together = adjust_families(confirmatory, secondary)
    for number in range(5):
        alone = adjust_families(confirmatory[number], secondary[number])
        for family, adjusted in zip(together, alone, strict=True):
            np.testing.assert_array_equal(family[number], adjusted)


def test_test_that_cannot_be_made_counts_as_one() -> None:
    clear = PairedTest((1.0, 1.1, 0.9), "higher", 0.0)
    (alone,) = judge_tests([clear], 0.95)
    single_seed = PairedTest((1.0,), "higher", 0.0)
    unlearnt = PairedTest((1.0, 1.1, 0.9), "higher", 5.0, learnt=False)
    tested, untested, not_learnt = judge_tests([clear, single_seed, unlearnt], 0.95)
    assert alone.p_value is not None
    assert alone.p_adjusted == pytest.approx(alone.p_value)
    assert tested.p_adjusted == pytest.approx(3 * alone.p_value)
    assert (untested.difference, untested.low, untested.verdict) == (1.0, None, "INCONCLUSIVE")
    # Within the margin, and yet no tie; its interval is shown.
    assert (not_learnt.verdict, not_learnt.p_value) == ("NOT LEARNT", None)
    assert not_learnt.low is not None


@pytest.mark.parametrize("scenario", SAME, ids=lambda scenario: scenario.name)
def test_equal_arms_name_a_winner_anywhere_in_at_most_one_study_in_twenty(
    scenario: Scenario,
) -> None:
    rates = false_winners(scenario, STUDIES, seeds=5)
    # Three standard deviations of the rate in so many studies, were it 5%.
    bound = 0.05 + 3 * math.sqrt(0.05 * 0.95 / STUDIES)
    assert rates["families"] <= bound
    assert rates["confirmatory"] <= rates["families"] <= rates["unadjusted"]


def test_unadjusted_intervals_name_one_in_most_studies() -> None:
    # The simulation can see false winners: 30 comparisons at 5% each.
    assert false_winners(SAME[0], STUDIES, seeds=5)["unadjusted"] > 0.5


def test_intervals_cover_at_their_rate_where_differences_are_normal() -> None:
    bound = 3 * math.sqrt(0.05 * 0.95 / STUDIES)
    assert abs(coverage(SAME[0], STUDIES, seeds=3) - 0.95) < bound
    # Arms of unequal spreads leave paired differences normal.
    assert abs(coverage(EQUAL_MEANS[0], STUDIES, seeds=3) - 0.95) < bound


def test_planted_effect_is_found_more_often_than_in_one_large_family() -> None:
    by_families, by_one, by_primary = found(2.0, STUDIES, seeds=5)
    assert by_one < 0.4 < by_families <= by_primary
