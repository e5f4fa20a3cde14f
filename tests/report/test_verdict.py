"""What sentences may be made of which verdicts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.budget.accounting import Budget
from kdjax.evaluation.statistics import Verdict
from kdjax.report import sentences as verdict
from kdjax.results.schema import MeasuredEndpoint, PairVerdict, Results, first_without_teacher
from tests.report.results import study

BUDGET = Budget("flops", 1_500_000_000_000)
UNITS = {
    "mlm": ("nats", "lower"),
    "probe": ("accuracy", "higher"),
    "finetune": ("accuracy", "higher"),
}
ENDPOINTS = ("probe.topic", "probe.mood", "finetune.topic", "finetune.mood", "mlm_loss")


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
        sense = -1 if endpoint == "mlm_loss" else 1
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


def test_probes_separate_and_fine_tuning_does_not():
    given = results(
        [
            "probe.topic: minilm > scratch",
            "probe.mood: minilm > scratch",
            "finetune.topic: scratch ? minilm",
            "finetune.mood: scratch ? minilm",
            "finetune.mood: scratch ? logit",
        ]
    )
    assert verdict.headline(given) == (
        "At 1.50e12 FLOPs, linear probes put minilm ahead of scratch on both tasks. Fine-tuning "
        "separates no pair."
    )


@pytest.mark.parametrize(
    ("kind", "amount", "said"),
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
def test_every_sentence_names_the_budget_in_its_own_unit(kind, amount, said):
    winner, tie, open_pair = (f"probe.topic: scratch {sign} minilm" for sign in ">=?")
    for verdicts, n in (
        ([winner], 3),
        ([tie], 3),
        ([open_pair], 3),
        ([tie, open_pair], 3),
        ([open_pair], 1),
        ([], 3),
    ):
        judged = replace(results(verdicts, n=n), budget=Budget(kind, amount))
        assert verdict.headline(judged).startswith(said)


def test_tasks_that_disagree_are_told_apart():
    given = results(["probe.topic: minilm > scratch", "probe.mood: scratch > minilm"])
    assert verdict.headline(given) == (
        "At 1.50e12 FLOPs, on topic, linear probes put minilm ahead of scratch; "
        "on mood, they put scratch ahead of minilm."
    )
    given = results(["finetune.topic: minilm > scratch", "finetune.mood: scratch ? minilm"])
    assert verdict.headline(given) == (
        "At 1.50e12 FLOPs, on topic, fine-tuning puts minilm ahead of scratch; on mood, it "
        "separates no pair."
    )


def test_what_holds_on_one_task_only_is_said_of_that_task():
    given = results(
        [
            "probe.topic: minilm > scratch",
            "probe.topic: logit > scratch",
            "probe.mood: minilm > scratch",
        ]
    )
    assert verdict.headline(given) == (
        "At 1.50e12 FLOPs, linear probes put minilm ahead of scratch on both tasks "
        "(on topic, also logit ahead of scratch)."
    )


def test_tiers():
    above = ["minilm > logit", "minilm > scratch", "logit > scratch"]
    given = results([f"probe.topic: {pair}" for pair in above], endpoints=("probe.topic",))
    assert verdict.headline(given) == (
        "At 1.50e12 FLOPs, the linear probe on topic puts minilm ahead of logit ahead of scratch."
    )


def test_no_tiers_are_claimed_where_a_pair_within_them_is_open():
    # a > b and c > d, with a > d and c > b unknown: four arms, no two tiers.
    given = results(
        ["mlm_loss: a > b", "mlm_loss: c > d", "mlm_loss: a ? d"], arms=("a", "b", "c", "d")
    )
    assert verdict.headline(given) == (
        "At 1.50e12 FLOPs, the held-out MLM loss puts a ahead of b, and c ahead of d."
    )


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ([], "nothing was compared"),
        (
            ["probe.topic: scratch = minilm", "mlm_loss: scratch = logit"],
            "every pair of arms ties on every endpoint",
        ),
        (
            ["probe.topic: scratch ? minilm", "mlm_loss: scratch ? logit"],
            "cannot tell which arm is better: no pair is",
        ),
        (["probe.topic: scratch ? minilm", "mlm_loss: scratch = logit"], "1 of 2 comparisons tie"),
    ],
)
def test_without_a_winner_none_is_named(verdicts, said):
    sentence = verdict.headline(results(verdicts))
    assert said in sentence
    assert "ahead" not in sentence


def test_one_seed_cannot_tell():
    sentence = verdict.headline(results(["probe.topic: scratch ? minilm"], n=1))
    assert "cannot tell the arms apart" in sentence and "two seeds" in sentence


def test_a_kind_with_one_pair_names_it():
    given = results(["probe.topic: minilm > scratch", "mlm_loss: scratch ? logit"])
    assert verdict.headline(given).endswith(
        "The held-out MLM loss does not separate scratch and logit."
    )
    given = results(["probe.topic: minilm > scratch", "mlm_loss: scratch = logit"])
    assert verdict.headline(given).endswith("The held-out MLM loss shows scratch and logit to tie.")


def test_answers_read_from_the_distilled_arm_and_carry_every_interval():
    given = results(
        [
            "probe.topic: minilm > scratch",
            "probe.mood: scratch > minilm",
            "finetune.topic: scratch ? minilm",
            "finetune.mood: scratch = minilm",
            "mlm_loss: logit > scratch",
        ]
    )
    minilm = verdict.answers(given)["minilm"].replace("\N{NO-BREAK SPACE}", " ")
    assert minilm == (
        "minilm beats scratch on linear probes (topic +0.050 [+0.020, +0.080]); "
        "loses to it on linear probes (mood −0.050 [−0.080, −0.020]); "
        "ties with it on fine-tuning (mood −0.001 [−0.004, +0.002]); "
        "cannot be told from it on fine-tuning (topic −0.010 [−0.050, +0.030])."
    )
    assert verdict.answers(given)["logit"].replace("\N{NO-BREAK SPACE}", " ") == (
        "logit beats scratch on held-out MLM loss (−0.050 [−0.080, −0.020])."
    )


def test_answers_are_against_the_arm_without_a_teacher() -> None:
    judged = results(
        ["probe.topic: minilm > plain"], arms=("minilm", "plain"), without_teacher="plain"
    )
    assert judged.baseline_arm == "plain"
    assert list(verdict.answers(judged)) == ["minilm"]
    assert verdict.answers(judged)["minilm"].startswith("minilm beats plain")


def test_baseline_arm_is_the_first_without_a_teacher_or_the_first() -> None:
    assert first_without_teacher({"warm": True, "scratch": False, "other": False}) == "scratch"
    assert first_without_teacher({"logit": True, "minilm": True}) == "logit"


ARMS = ("scratch", "logit", "tinybert", "minilm")
PAIRS = [(a, b) for n, a in enumerate(ARMS) for b in ARMS[n + 1 :]]


@given(
    st.lists(
        st.sampled_from(["{0} > {1}", "{1} > {0}", "{0} = {1}", "{0} ? {1}"]),
        min_size=6,
        max_size=6,
    )
)
def test_one_endpoint_says_exactly_the_pairs_that_were_separated(signs):
    said = [sign.format(*pair) for sign, pair in zip(signs, PAIRS, strict=True)]
    sentence = verdict.headline(results([f"mlm_loss: {text}" for text in said], arms=ARMS))
    expected = {tuple(text.split(" > ")) for text in said if ">" in text}
    claimed = set()
    for clause in sentence.rstrip(".").partition(" puts ")[2].split(", and "):
        tiers = [tier.replace(" and ", ", ").split(", ") for tier in clause.split(" ahead of ")]
        claimed |= {
            (a, b)
            for n, tier in enumerate(tiers)
            for lower in tiers[n + 1 :]
            for a in tier
            for b in lower
            if b
        }
    assert claimed == expected
