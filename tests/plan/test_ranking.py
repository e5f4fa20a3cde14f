"""Properties of a plan's rankings: what they may not depend on, and whom they may leave out."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.errors import InputError
from kdjax.evaluation.statistics import ArmVerdict
from kdjax.plan.ranking import Verdicts, _ranking, comparison_at, seen_from
from kdjax.plan.schema import ComparedAt, CrossingForecast, ForecastComparison, ForecastRange
from kdjax.storage.typed_json import from_plain, to_plain

ARMS = ("w", "x", "y", "z")
PAIRS = tuple(combinations(ARMS, 2))
TURNED: dict[ArmVerdict, ArmVerdict] = {
    "BEATS": "LOSES",
    "LOSES": "BEATS",
    "TIES": "TIES",
    "INCONCLUSIVE": "INCONCLUSIVE",
}
VERDICTS = st.lists(st.sampled_from(sorted(TURNED)), min_size=len(PAIRS), max_size=len(PAIRS)).map(
    lambda drawn: dict(zip(PAIRS, drawn, strict=True))
)


def winners(verdicts: Verdicts) -> set[tuple[str, str]]:
    """Return (winner, loser) of every pair that has a winner."""
    won = set()
    for (a, b), verdict in verdicts.items():
        if verdict == "BEATS":
            won.add((a, b))
        elif verdict == "LOSES":
            won.add((b, a))
    return won


@given(VERDICTS, st.permutations(PAIRS), st.sets(st.sampled_from(PAIRS)))
def test_ranking_does_not_depend_on_order_or_side_of_pairs(
    verdicts: Verdicts, order: list[tuple[str, str]], turned: set[tuple[str, str]]
) -> None:
    written: dict[tuple[str, str], ArmVerdict] = {}
    for a, b in order:
        if (a, b) in turned:
            written[b, a] = TURNED[verdicts[a, b]]
        else:
            written[a, b] = verdicts[a, b]
    assert _ranking(written, ARMS) == _ranking(verdicts, ARMS)


@given(VERDICTS)
def test_arm_that_nobody_beats_is_among_the_best(verdicts: Verdicts) -> None:
    losers = {loser for _, loser in winners(verdicts)}
    assert set(ARMS) - losers <= set(_ranking(verdicts, ARMS).arms)


@given(VERDICTS)
def test_single_winner_is_beaten_by_no_arm_that_nobody_beats(verdicts: Verdicts) -> None:
    ranked = _ranking(verdicts, ARMS)
    won = winners(verdicts)
    unbeaten = set(ARMS) - {loser for _, loser in won}
    for best in ranked.arms:
        assert not {winner for winner, loser in won if loser == best} & unbeaten


@given(VERDICTS)
def test_arms_that_tie_have_no_winner_among_them(verdicts: Verdicts) -> None:
    ranked = _ranking(verdicts, ARMS)
    if ranked.kind == "ties":
        among = {pair: verdicts[pair] for pair in combinations(ranked.arms, 2)}
        assert set(among.values()) == {"TIES"}


MEANS = st.lists(st.floats(-5, 5), min_size=2, max_size=5)


def comparison(means: list[float]) -> ForecastComparison:
    """Compare x with y at budgets 1, 10, 100, …"""
    points = []
    for n, mean in enumerate(means):
        verdict: ArmVerdict = "BEATS" if mean < 0 else "LOSES"
        points.append(ComparedAt(10.0**n, mean, mean - 1, mean + 2, verdict))
    never = CrossingForecast(None, None, None, 0.0, "x")
    return ForecastComparison("x", "y", tuple(points), (), never)


@given(MEANS)
def test_comparison_turned_twice_is_the_same(means: list[float]) -> None:
    compared = comparison(means)
    assert seen_from(seen_from(compared, "y"), "x") == compared


@given(MEANS, st.floats(0, 1))
def test_comparison_between_two_budgets_lies_between_their_values(
    means: list[float], share: float
) -> None:
    compared = comparison(means)
    between = comparison_at(compared, 10.0**share)
    assert between is not None
    ends = sorted(means[:2])
    assert ends[0] - 1e-9 <= between.mean <= ends[1] + 1e-9
    assert between.low <= between.mean <= between.high


@given(MEANS, st.floats(1.01, 10))
def test_nothing_is_said_beyond_the_budgets_compared(means: list[float], factor: float) -> None:
    compared = comparison(means)
    assert comparison_at(compared, compared.points[-1].flops * factor) is None
    assert comparison_at(compared, compared.points[0].flops / factor) is None


def test_verdicts_of_plan_json_keep_the_words_that_files_have() -> None:
    words = {"BEATS": "a wins", "LOSES": "b wins", "TIES": "ties", "INCONCLUSIVE": "cannot tell"}
    for verdict, word in words.items():
        stretch = ForecastRange(verdict, 1.0, 2.0)
        stored = to_plain(stretch)
        assert stored == {"verdict": word, "low": 1.0, "high": 2.0}
        assert from_plain(ForecastRange, stored, "plan.json: ranges[0]") == stretch
    with pytest.raises(InputError, match="verdict is 'BEATS', expected a wins, b wins"):
        from_plain(ForecastRange, {"verdict": "BEATS", "low": 1.0, "high": 2.0}, "plan.json:")
