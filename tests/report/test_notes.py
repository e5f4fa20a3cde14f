"""What a report says besides its numbers: what the budget holds, how much text there was, what arms
share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kdjax.config import BudgetConfig, Config, EvaluationConfig
from kdjax.report import notes
from kdjax.results.runs import Divergence
from kdjax.results.teacher_facts import PretrainingFacts, TeacherFacts
from kdjax.results.text import CountedLosses
from kdjax.study.judgement import differences
from tests.report.results import study

TEACHER = TeacherFacts("a-teacher", 0, 2_000_000_000_000, mlm_loss=None, mlm_accuracy=None)


@pytest.mark.parametrize(
    ("budget", "teacher", "present", "absent"),
    [
        (
            {"flops": 1e12},
            TEACHER,
            "forward passes or a share of its stored outputs. Not in the budget: evaluation",
            "hours",
        ),
        (
            {"flops": 1e12},
            TEACHER,
            "the fitting of the teacher's MLM head, 2.00e12 FLOPs",
            "tokens",
        ),
        (
            {"flops": 1e12, "teacher": "nothing"},
            TEACHER,
            "the teacher and what it says come free",
            "forward passes",
        ),
        (
            {"flops": 1e12, "teacher": "training"},
            TEACHER,
            "a share of the teacher's training",
            "the fitting",
        ),
        (
            {"flops": 1e12, "teacher": "both"},
            TEACHER,
            "and a share of its training",
            "the fitting",
        ),
        ({"flops": 1e12}, None, "Not in the budget: evaluation.", "teacher"),
        (
            {"tokens": 1e6},
            TEACHER,
            "counts the tokens that the student sees, padding included",
            "XLA",
        ),
        (
            {"hours": 24, "clock": ("compute", "compile")},
            TEACHER,
            "wall-clock: compute and compile",
            "XLA",
        ),
    ],
)
def test_budget_note_names_what_is_paid_and_what_is_not(
    budget: dict[str, Any], teacher: TeacherFacts | None, present: str, absent: str
) -> None:
    text = " ".join(notes.general(Config(budget=BudgetConfig(**budget)), teacher)[1:])
    assert present in text
    assert absent not in text


TUNED = replace(TEACHER, head_flops=0, tuning_flops=3_000_000_000_000)


def test_unpaid_encoder_tuning_is_named() -> None:
    text = " ".join(notes.general(Config(budget=BudgetConfig(flops=1e12)), TUNED))
    assert "the tuning of the teacher's encoder, 3.00e12 FLOPs" in text
    assert "MLM head" not in text


def trained(seed: int, at: float) -> TeacherFacts:
    """Make the facts of a teacher that a study trained."""
    pretraining = PretrainingFacts(seed, at, budget=6_000_000_000_000, tokens=2_000_000)
    return replace(TEACHER, head_flops=0, training_flops=1_500_000_000_000, pretraining=pretraining)


TWO_TEACHERS = replace(trained(4, 1.0), teachers=(trained(4, 1.0), trained(5, 1.0)))


@pytest.mark.parametrize(
    ("teacher", "present", "absent"),
    [
        (trained(4, 1.0), "1; seeds 4; FLOPs of each 1.50e12, tokens 2.00e6.", "on its way down"),
        (trained(4, 0.25), "at 25% of its budget of 6.00e12 FLOPs", "as far as"),
        (
            trained(4, 1.0),
            "do not cover the choice of test rows, corpus, teacher or hyperparameters",
            "as far as",
        ),
        (
            TWO_TEACHERS,
            "as far as 2 teachers can show it, the variation of the teacher's training",
            "corpus, teacher or",
        ),
        (
            TWO_TEACHERS,
            "2; seeds 4 and 5; FLOPs of each 1.50e12",
            "teacher or hyperparameters",
        ),
    ],
)
def test_pretrained_teacher_is_described(
    teacher: TeacherFacts | None, present: str, absent: str
) -> None:
    text = " ".join(notes.general(Config(budget=BudgetConfig(flops=1e12)), teacher))
    assert present in text
    assert absent not in text


@pytest.mark.parametrize(
    ("changes", "regime", "masks"),
    [
        (
            {},
            "all there is: 906,112 unique tokens in 15,810 sequences, more than any run read",
            "new ones in every",
        ),
        (
            {"regime": "unlimited", "views": 1},
            "unlimited: 906,112 unique tokens",
            "fixed: 1 view of a sequence",
        ),
        (
            {"regime": "limited", "views": 4, "tokens": {"train": 50_000, "validation": 9}},
            "limited: 50,000 unique tokens in 15,810 sequences, a seeded subset of 906,112 tokens",
            "fixed: 4 views of a sequence",
        ),
    ],
)
def test_regime_and_masks_are_described(changes: dict[str, Any], regime: str, masks: str) -> None:
    results = study(seeds=1)
    changed = replace(results, corpus=replace(results.corpus, **changes))
    assert notes.regime(changed).startswith(regime)
    assert notes.masks(changed).startswith(masks)


def test_repeated_text_is_described() -> None:
    results = study(seeds=1)
    scratch = replace(results.arms["scratch"], epochs=1.5)
    results = replace(results, arms={**results.arms, "scratch": scratch})
    assert (
        notes.regime(results) == "all there is: 906,112 unique tokens in 15,810 sequences, repeated"
    )


def test_shared_settings_follow_kind_of_budget() -> None:
    def shared(**budget: Any) -> str:
        return " ".join(differences.shared(Config(budget=BudgetConfig(**budget)), {}))

    assert "in steps follows from the budget" in shared(tokens=1e6)
    assert "follows the clock" in shared(hours=1)
    assert "none of it charged" in shared(hours=1)
    assert "none of it charged" not in shared(hours=1, clock=("compute", "evaluation"))


def test_seeds_side_by_side_are_noted() -> None:
    alone = study(seeds=1).runs[0]
    of_three = replace(alone, hardware=replace(alone.hardware, side_by_side=3))
    assert notes.side_by_side_note([alone, alone]) == []
    (note,) = notes.side_by_side_note([alone, of_three])
    assert note.startswith("Up to 3 seeds of an arm trained side by side")


def test_arms_that_no_seed_brings_below_unigram_are_named() -> None:
    results = study()
    (endpoint,) = [e for e in results.endpoints if e.name == "mlm_loss"]
    losses = CountedLosses(
        unigram=5.0,
        left_neighbor=4.0,
        both_neighbors=3.0,
        tokens=1,
        fitted_tokens=1,
        held_out_tokens=1,
        unknown={},
    )
    values = {"scratch": 5.0, "logit": 6.0}
    runs = []
    for run in results.runs:
        # One seed of logit is better than counting.
        loss = 4.9 if (run.arm, run.seed) == ("logit", 1) else values.get(run.arm, 4.0)
        runs.append(replace(run, metrics={"mlm_loss": loss}))
    (note,) = notes.unigram_notes([endpoint], runs, losses)
    assert "not below the unigram cross-entropy (5.000 nats) under any seed: scratch." in note
    assert notes.unigram_notes([endpoint], runs, None) == []


def test_endpoints_on_which_the_same_arms_only_guess_share_a_note() -> None:
    results = study()
    chosen = [e for e in results.endpoints if e.name.partition(".")[2]]
    baselines = {endpoint.name: endpoint.baseline or 0.0 for endpoint in chosen}
    runs = []
    for run in results.runs:
        # Of 912 rows at 0.268 the error is 0.0147: one above it is not above 1.645 of them.
        above = {"minilm": 0.0, "logit": 0.0147}.get(run.arm, 0.1)
        metrics = {name: value + above for name, value in baselines.items()}
        if run.arm == "logit":
            metrics["probe.topic"] += 0.0147
        runs.append(replace(run, metrics=metrics))
    first, second = notes.unlearnt_notes(chosen, runs)
    assert first.startswith("topic, linear probe, best layer: not shown to be better than the best")
    assert "fine-tuning failed: minilm." in first
    others = "sentiment, linear probe, best layer; topic, fine-tuned; sentiment, fine-tuned: not"
    assert second.startswith(others)
    assert "fine-tuning failed: logit and minilm." in second


def test_arm_with_a_diverged_run_does_not_only_guess() -> None:
    results = study()
    (endpoint,) = [e for e in results.endpoints if e.name == "probe.topic"]
    runs = [replace(run, metrics={"probe.topic": 0.0}) for run in results.runs]
    runs[0] = replace(runs[0], metrics={}, diverged=Divergence(3, "loss is nan"))
    (note,) = notes.unlearnt_notes([endpoint], runs)
    assert "failed: logit, tinybert and minilm." in note


@pytest.mark.parametrize(
    ("seeds", "planned", "looks", "said"),
    [
        ((0, 1, 2), 0, (), ["6 comparisons", "With 3 seeds an interval leans"]),
        (
            (0, 1, 2),
            5,
            (),
            ["6 comparisons", "With 3 seeds", "5 seeds are planned and 3 are there"],
        ),
        ((0, 1, 2, 3, 4), 5, (), ["6 comparisons"]),
        ((0, 1, 2, 3, 4), 5, (2, 3), ["6 comparisons", "looked at before, with 2 and 3 seeds"]),
        ((0,), 0, (), ["6 comparisons", "With one seed there is no interval"]),
    ],
)
def test_notes_say_how_many_seeds_there_are_and_were_planned(
    seeds: tuple[int, ...], planned: int, looks: tuple[int, ...], said: list[str]
) -> None:
    config = Config(seeds=seeds, evaluation=EvaluationConfig(planned_seeds=planned))
    sentences = notes.verdict_notes(config, 6, looks)
    assert len(sentences) == len(said)
    for sentence, expected in zip(sentences, said, strict=True):
        assert expected in sentence
    assert "at most 5% of such studies" in sentences[0]
