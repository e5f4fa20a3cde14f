"""What a report says besides its numbers: what the budget holds, how much text there was, what arms
share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdjax.config import BudgetConfig, Config
from kdjax.report import notes
from kdjax.results.schema import PretrainingFacts, TeacherFacts
from kdjax.study import differences
from tests.report.results import study

TEACHER = TeacherFacts("a-teacher", 0, 2_000_000_000_000, mlm_loss=None, mlm_accuracy=None)


@pytest.mark.parametrize(
    ("budget", "teacher", "said", "unsaid"),
    [
        (
            {"flops": 1e12},
            TEACHER,
            "forward passes or a share of its stored outputs. Evaluation is not in it",
            "hours",
        ),
        (
            {"flops": 1e12},
            TEACHER,
            "Nor is the fitting of the teacher's MLM head, 2.00e12 FLOPs",
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
            "Nor is the fitting",
        ),
        (
            {"flops": 1e12, "teacher": "both"},
            TEACHER,
            "and a share of its training",
            "Nor is the fitting",
        ),
        ({"flops": 1e12}, None, "Evaluation is not in the budget", "teacher"),
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
def test_what_the_budget_holds(budget, teacher, said, unsaid):
    told = " ".join(notes.general(Config(budget=BudgetConfig(**budget)), 25, 1.25, teacher)[2:])
    assert said in told
    assert unsaid not in told


TUNED = replace(TEACHER, head_flops=0, tuning_flops=3_000_000_000_000)


def test_the_tuning_of_an_encoder_that_nobody_pays_for_is_said() -> None:
    told = " ".join(notes.general(Config(budget=BudgetConfig(flops=1e12)), 25, 1.25, TUNED))
    assert (
        "Nor is the tuning of the teacher's encoder, 3.00e12 FLOPs" in told
        and "MLM head" not in told
    )


def trained(seed: int, at: float) -> TeacherFacts:
    """The facts of a teacher that a study trained."""
    pretraining = PretrainingFacts(seed, at, budget=6_000_000_000_000, tokens=2_000_000)
    return replace(TEACHER, head_flops=0, training_flops=1_500_000_000_000, pretraining=pretraining)


TWO_TEACHERS = replace(trained(4, 1.0), teachers=(trained(4, 1.0), trained(5, 1.0)))


@pytest.mark.parametrize(
    ("teacher", "said", "unsaid"),
    [
        (trained(4, 1.0), "(seed 4), 1.50e12 FLOPs, 2.00e6 tokens.", "on its way down"),
        (trained(4, 0.25), "as it was at 25% of its budget of 6.00e12 FLOPs", "as far as"),
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
            "2 teachers were pretrained from scratch by masked language modelling (seeds 4 and "
            "5), 1.50e12 FLOPs each",
            "The teacher was",
        ),
    ],
)
def test_how_a_teacher_was_made_and_how_far_intervals_cover_it_is_said(
    teacher, said, unsaid
) -> None:
    told = " ".join(notes.general(Config(budget=BudgetConfig(flops=1e12)), 25, 1.25, teacher))
    assert said in told
    assert unsaid not in told


def test_one_seed_is_said_to_give_no_verdict():
    assert "With one seed" in notes.general(Config(seeds=(0,)), 0, 0.0, None)[-1]
    assert "With one seed" not in " ".join(notes.general(Config(), 0, 0.0, None))


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
def test_how_much_unique_text_there_was_and_whether_masks_were_new(changes, regime, masks):
    results = study(seeds=1)
    given = replace(results, corpus=replace(results.corpus, **changes))
    assert notes.regime(given).startswith(regime)
    assert notes.masks(given).startswith(masks)


def test_text_that_was_seen_again_is_said_to_be_repeated():
    results = study(seeds=1)
    scratch = replace(results.arms["scratch"], epochs=1.5)
    results = replace(results, arms={**results.arms, "scratch": scratch})
    assert (
        notes.regime(results) == "all there is: 906,112 unique tokens in 15,810 sequences, repeated"
    )


def test_what_arms_share_follows_the_kind_of_budget():
    def shared(**budget):
        return " ".join(differences.shared(Config(budget=BudgetConfig(**budget)), {}))

    assert "in steps follows from the budget" in shared(tokens=1e6)
    assert "follows the clock" in shared(hours=1)
    assert "none of it charged" in shared(hours=1)
    assert "none of it charged" not in shared(hours=1, clock=("compute", "evaluation"))


def test_time_that_seeds_share_is_said() -> None:
    alone = study(seeds=1).runs[0]
    of_three = replace(alone, hardware=replace(alone.hardware, side_by_side=3))
    assert notes.side_by_side([alone, alone]) == []
    (told,) = notes.side_by_side([alone, of_three])
    assert told.startswith("Up to 3 seeds of an arm trained side by side")
