"""What sentences may be made of which verdicts."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.arms.baseline import first_without_teacher
from kdjax.budget.accounting import Budget
from kdjax.evaluation.statistics import Verdict
from kdjax.report import sentences as verdict
from kdjax.results.study import Results
from kdjax.results.verdicts import MeasuredEndpoint, PairVerdict
from tests.report.results import study

BUDGET = Budget("flops", 1_500_000_000_000)
UNITS = {
    "mlm": ("nats", "lower"),
    "probe": ("accuracy", "higher"),
    "fixed": ("accuracy", "higher"),
}
ENDPOINTS = ("probe.topic", "probe.mood", "fixed.topic", "fixed.mood", "mlm_loss")


VERDICTS: dict[str, Verdict] = {">": "BEATS", "=": "TIES", "?": "INCONCLUSIVE"}
INTERVALS = {">": (0.02, 0.05, 0.08), "=": (-0.002, 0.001, 0.004), "?": (-0.03, 0.01, 0.05)}
"""Between the arms of a verdict -> low end, mean and high end of their difference."""


@functools.cache
def whole_study() -> Results:
    """Return results of which only arms, endpoints and verdicts are replaced."""
    return study()


def results(
    verdicts: Sequence[str],
    arms: Sequence[str] = ("scratch", "logit", "minilm"),
    endpoints: Sequence[str] = ENDPOINTS,
    n: int = 3,
    without_teacher: str = "scratch",
) -> Results:
    """Return the results of a study with certain verdicts.

    Args:
        verdicts: each `endpoint: a > b` (beats), `a = b` or `a ? b`.
        arms: in their order.
        endpoints: by name.
        n: seeds that two arms share.
        without_teacher: the only arm that needs no teacher.
    """
    rows = []
    for text in verdicts:
        endpoint, pair = text.split(": ")
        a, sign, b = pair.split(" ")
        low, mean, high = INTERVALS[sign]
        # A lower loss is better, so its difference has the other sign.
        sense = -1 if endpoint == "mlm_loss" else 1
        # A single seed has no interval.
        ends = sorted((sense * low, sense * high)) if n > 1 else [None, None]
        rows.append(PairVerdict(endpoint, a, b, sense * mean, *ends, n, VERDICTS[sign]))
    measured = []
    for name in endpoints:
        kind = name.split(".")[0].removesuffix("_loss")
        unit, better = UNITS[kind]
        measured.append(MeasuredEndpoint(name, name, unit, better, kind, tuple(arms), 100, None))
    base = whole_study()
    kinds = {arm: "scratch" if arm == without_teacher else "logit" for arm in arms}
    return replace(
        base,
        budget=BUDGET,
        arms={arm: base.arms[kind] for arm, kind in kinds.items()},
        baseline_arm=first_without_teacher({arm: arm != without_teacher for arm in arms}),
        endpoints=tuple(measured),
        verdicts=tuple(rows),
    )


def test_headline_names_separated_kinds_before_undecided_ones() -> None:
    study_results = results(
        [
            "fixed.topic: scratch ? minilm",
            "fixed.mood: scratch = minilm",
            "fixed.mood: scratch ? logit",
            "probe.topic: minilm > scratch",
            "probe.mood: minilm > scratch",
        ]
    )
    statement, undecided = verdict.headline(study_results).split(". ")
    assert statement.endswith("linear probes (topic, mood): minilm BEATS scratch")
    assert undecided.startswith("Fine-tuning (topic, mood): no arm BEATS another")
    assert "1 of 3" in undecided


@pytest.mark.parametrize(
    ("kind", "amount", "sentence"),
    [
        ("flops", 2_500_000_000, "At 2.50e9 FLOPs, "),
        ("tokens", 3_200_000, "With 3.20e6 tokens, "),
        ("tokens", 64_000, "With 64,000 tokens, "),
        ("hours", 24.0, "In 24 hours, "),
        ("hours", 1.0, "In 1 hour, "),
        ("hours", 1 / 3, "In 20 minutes, "),
        ("hours", 0.01, "In 36 seconds, "),
    ],
)
def test_headline_names_budget_in_its_unit(kind: str, amount: float, sentence: str) -> None:
    winner = "probe.topic: scratch > minilm"
    tie = "probe.topic: scratch = minilm"
    open_pair = "probe.topic: scratch ? minilm"
    # The sentence begins the same way, whatever it goes on to say.
    for verdicts, n in (
        ([winner], 3),
        ([tie], 3),
        ([open_pair], 3),
        ([tie, open_pair], 3),
        ([open_pair], 1),
        ([], 3),
    ):
        judged = replace(results(verdicts, n=n), budget=Budget(kind, amount))
        assert verdict.headline(judged).startswith(sentence)


def test_tasks_that_disagree_have_statements_of_their_own() -> None:
    study_results = results(["probe.topic: minilm > scratch", "probe.mood: scratch > minilm"])
    head = verdict.headline(study_results)
    assert "linear probes (topic): minilm BEATS scratch" in head
    assert "Linear probes (mood): scratch BEATS minilm" in head
    study_results = results(["fixed.topic: minilm > scratch", "fixed.mood: scratch ? minilm"])
    head = verdict.headline(study_results)
    assert "fine-tuning (topic): minilm BEATS scratch" in head
    assert "Fine-tuning (mood): no arm BEATS another" in head


def test_win_on_one_task_only_is_claimed_for_that_task() -> None:
    study_results = results(
        [
            "probe.topic: minilm > scratch",
            "probe.topic: logit > scratch",
            "probe.mood: minilm > scratch",
        ]
    )
    # The kind's two tasks have other winners, and a sentence each.
    topic, mood = verdict.headline(study_results).split(". ")
    assert topic.endswith("linear probes (topic): logit BEATS scratch; minilm BEATS scratch")
    assert mood == "Linear probes (mood): minilm BEATS scratch."


def test_best_arm_comes_first_in_a_ranking() -> None:
    above = ["logit > scratch", "minilm > logit", "minilm > scratch"]
    study_results = results([f"probe.topic: {pair}" for pair in above], endpoints=("probe.topic",))
    # The arm that most others lose to comes first.
    relations = verdict.headline(study_results).partition("(topic): ")[2]
    assert relations == "minilm BEATS scratch and logit; logit BEATS scratch."


def test_no_pair_is_claimed_that_is_open() -> None:
    # a > b and c > d, with a > d and c > b unknown.
    study_results = results(
        ["mlm_loss: a > b", "mlm_loss: c > d", "mlm_loss: a ? d"], arms=("a", "b", "c", "d")
    )
    assert verdict.headline(study_results).endswith("held-out MLM loss: a BEATS b; c BEATS d.")


@pytest.mark.parametrize(
    ("verdicts", "counts"),
    [
        ([], "nothing was compared"),
        (
            ["probe.topic: scratch = minilm", "mlm_loss: scratch = logit"],
            "every pair of arms TIES on every endpoint",
        ),
        (
            ["probe.topic: scratch ? minilm", "mlm_loss: scratch ? logit"],
            "better: INCONCLUSIVE in all 2 comparisons.",
        ),
        (
            ["probe.topic: scratch ? minilm", "mlm_loss: scratch = logit"],
            "TIES in 1 of 2 comparisons, INCONCLUSIVE in 1",
        ),
    ],
)
def test_headline_without_winner_names_none(verdicts: list[str], counts: str) -> None:
    sentence = verdict.headline(results(verdicts))
    assert counts in sentence
    assert "BEATS" not in sentence


def test_headline_of_one_seed_cannot_tell() -> None:
    sentence = verdict.headline(results(["probe.topic: scratch ? minilm"], n=1))
    assert "cannot tell the arms apart" in sentence
    assert "two seeds" in sentence


@pytest.mark.parametrize(("sign", "outcome"), [("?", "INCONCLUSIVE"), ("=", "TIES")])
def test_kind_without_winner_counts_outcomes(sign: str, outcome: str) -> None:
    study_results = results(["probe.topic: minilm > scratch", f"mlm_loss: scratch {sign} logit"])
    undecided = verdict.headline(study_results).split(". ")[1]
    assert undecided == (
        f"Held-out MLM loss: no arm BEATS another, {outcome} in the only comparison."
    )


def test_counts_of_outcomes_leave_out_those_of_none() -> None:
    counts: dict[Verdict, int] = {"TIES": 0, "INCONCLUSIVE": 2, "NOT LEARNT": 1}
    expected = "INCONCLUSIVE in 2 of 3 comparisons, NOT LEARNT in 1"
    assert verdict.counted_outcomes(counts) == expected


def test_answers_have_every_outcome_with_interval() -> None:
    study_results = results(
        [
            "probe.topic: minilm > scratch",
            "probe.mood: scratch > minilm",
            "fixed.topic: scratch ? minilm",
            "fixed.mood: scratch = minilm",
            "mlm_loss: logit > scratch",
        ]
    )
    answers = {
        arm: text.replace("\N{NO-BREAK SPACE}", " ")
        for arm, text in verdict.answers(study_results).items()
    }
    arms, _, outcomes = answers["minilm"].partition(": ")
    assert arms == "minilm against scratch"
    assert outcomes.rstrip(".").split("; ") == [
        "BEATS on linear probes (topic +0.050 [+0.020, +0.080])",
        "LOSES on linear probes (mood −0.050 [−0.080, −0.020])",
        "TIES on fine-tuning (mood −0.001 [−0.004, +0.002])",
        "INCONCLUSIVE on fine-tuning (topic −0.010 [−0.050, +0.030])",
    ]
    assert "BEATS on held-out MLM loss (−0.050 [−0.080, −0.020])" in answers["logit"].replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_answers_are_against_the_arm_without_a_teacher() -> None:
    judged = results(
        ["probe.topic: minilm > plain"], arms=("minilm", "plain"), without_teacher="plain"
    )
    assert judged.baseline_arm == "plain"
    assert list(verdict.answers(judged)) == ["minilm"]
    assert verdict.answers(judged)["minilm"].startswith("minilm against plain: BEATS on")


def test_baseline_arm_is_the_first_without_a_teacher_or_the_first() -> None:
    assert first_without_teacher({"warm": True, "scratch": False, "other": False}) == "scratch"
    assert first_without_teacher({"logit": True, "minilm": True}) == "logit"


ARMS = ("scratch", "logit", "tinybert", "minilm")
PAIRS = list(itertools.combinations(ARMS, 2))


@given(
    st.lists(
        st.sampled_from(["{0} > {1}", "{1} > {0}", "{0} = {1}", "{0} ? {1}"]),
        min_size=6,
        max_size=6,
    )
)
def test_headline_claims_exactly_the_separated_pairs(signs: list[str]) -> None:
    claims = [sign.format(*pair) for sign, pair in zip(signs, PAIRS, strict=True)]
    sentence = verdict.headline(results([f"mlm_loss: {text}" for text in claims], arms=ARMS))
    expected = {tuple(text.split(" > ")) for text in claims if ">" in text}
    claimed = set()
    for clause in sentence.rstrip(".").partition("loss: ")[2].split("; "):
        winners, _, losers = clause.replace(" and ", ", ").partition(" BEATS ")
        if losers:
            claimed |= set(itertools.product(winners.split(", "), losers.split(", ")))
    assert claimed == expected
