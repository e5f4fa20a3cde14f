"""Verdicts under each way to pay for the teacher, against costs worked out by hand."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from kdjax.budget.price import Price
from kdjax.evaluation.statistics import Verdict
from kdjax.report import teacher_accounting
from kdjax.results.study import Results
from kdjax.results.teacher_facts import TeacherFacts
from kdjax.results.verdicts import Case, MeasuredEndpoint, PairVerdict, SharedCaseVerdict
from kdjax.study.judgement.cases import cases
from tests.report import results as made_up

Judgement = tuple[str, Verdict, str]
"""An arm, what it does to another, and that one."""

# A step of `scratch` costs 30, one of `kd` 30 for the student and 30 for the teacher. A budget of
# 3,000 with the teacher's forward passes buys 100 steps of the one and 50 of the other. Training
# the teacher cost 10,000.
STUDENT = {"student_forward": 10, "student_backward": 18, "objective": 1, "optimizer": 1}
PRICES = {"scratch": {**STUDENT, "teacher_forward": 0}, "kd": {**STUDENT, "teacher_forward": 30}}
STEPS = {"scratch": 100, "kd": 50}
MODELS = {"scratch": "scratch", "kd": "logit"}
"""Arm -> the arm of `whole_study` that it is made from."""
TRAINING = 10_000
COSTS = {
    "nothing": {"scratch": 3_000, "kd": 1_500},
    "inference": {"scratch": 3_000, "kd": 3_000},
    "training": {"scratch": 3_000, "kd": 11_500},
    "both": {"scratch": 3_000, "kd": 13_000},
}
KD_WINS: Judgement = ("kd", "BEATS", "scratch")
SCRATCH_WINS: Judgement = ("scratch", "BEATS", "kd")
TIE: Judgement = ("scratch", "TIES", "kd")
UNDECIDED: Judgement = ("scratch", "INCONCLUSIVE", "kd")


@functools.cache
def whole_study() -> Results:
    """Return a whole study; tests replace in it what costs and verdicts depend on."""
    return made_up.study()


def judged(*verdicts: Judgement, **settings: Any) -> dict[str, Case]:
    """Return the cases of a study with these verdicts, by name."""
    return {case.case: case for case in study(*verdicts, **settings).cases}


def study(
    *verdicts: Judgement,
    training: int = TRAINING,
    students: int = 1,
    steps: Mapping[str, int] = STEPS,
    enforced: str | None = "inference",
) -> Results:
    """Return a study of two runs an arm.

    Args:
        verdicts: verdicts, each on a task of its own.
        training: FLOPs of training the teacher; 0: not known.
        students: number of students that share the teacher's training.
        steps: arm -> steps of its mean run.
        enforced: the case that the budget is held against.
    """
    base = whole_study()
    arms = {}
    runs = []
    for arm, parts in PRICES.items():
        total = sum(parts.values())
        price = Price(total=total, **parts, jaxpr_matmul=total, jaxpr_elementwise=0)
        described = base.arms[MODELS[arm]]
        arms[arm] = replace(described, phases=(replace(described.phases[0], price=price),))
        upfront = -(-training // students) if arm == "kd" else 0
        for more in (-1, 1):  # their mean counts
            spent = {part: flops * (steps[arm] + more) for part, flops in parts.items()}
            spent |= {"teacher_cache": 0, "teacher_training": upfront}
            runs.append(replace(base.runs[0], arm=arm, spent=spent))
    rows = []
    endpoints = []
    for n, (a, verdict, b) in enumerate(verdicts):
        name = f"probe.t{n}"
        rows.append(PairVerdict(name, a, b, 0.0, 0.0, 0.0, 2, verdict))
        endpoints.append(
            MeasuredEndpoint(name, name, "accuracy", "higher", "probe", ("scratch", "kd"), 9, 0.5)
        )
    teacher = TeacherFacts("a-teacher", training, 0, mlm_loss=None, mlm_accuracy=None)
    return replace(
        base,
        arms=arms,
        runs=tuple(runs),
        verdicts=tuple(rows),
        teacher=teacher,
        endpoints=tuple(endpoints),
        config={"budget": {"students": students}},
        cases=cases(arms, runs, rows, teacher, enforced, students),
    )


def verdict_of(case: Case) -> str:
    """Return `a verdict b` of a case with one verdict."""
    (row,) = case.verdicts
    return f"{row.a} {row.verdict} {row.b}"


def test_costs_of_each_case_are_as_worked_out_by_hand() -> None:
    by_case = judged(TIE)
    assert {name: case.costs for name, case in by_case.items()} == COSTS
    assert [name for name, case in by_case.items() if case.enforced] == ["inference"]


def test_budget_of_tokens_or_hours_enforces_no_case() -> None:
    assert not any(case.enforced for case in judged(TIE, enforced=None).values())


@pytest.mark.parametrize("verdict", [KD_WINS, SCRATCH_WINS, TIE, UNDECIDED])
def test_enforced_case_keeps_every_verdict(verdict: Judgement) -> None:
    (row,) = judged(verdict)["inference"].verdicts
    assert (row.a, row.verdict, row.b) == verdict
    assert row.ratio == 1


def test_winner_that_costs_less_still_wins() -> None:
    assert verdict_of(judged(KD_WINS)["nothing"]) == "kd BEATS scratch"
    for case in ("training", "both"):
        assert verdict_of(judged(SCRATCH_WINS)[case]) == "scratch BEATS kd"


def test_winner_that_costs_more_is_open() -> None:
    (row,) = judged(SCRATCH_WINS)["nothing"].verdicts
    assert (row.a, row.verdict, row.b) == ("scratch", "OPEN", "kd")
    assert row.ratio == 2.0
    assert not isinstance(row, SharedCaseVerdict)  # scratch pays for no teacher


@pytest.mark.parametrize("shared_by", [1, 4])
def test_students_needed_do_not_depend_on_how_many_share_now(shared_by: int) -> None:
    by_case = judged(KD_WINS, students=shared_by)
    # Training: 3,000 + a step of 30 - 1,500 of its own leave 1,530; 10,000 / 6 is more, 10,000 / 7
    # is not.
    (row,) = by_case["training"].verdicts
    assert (row.verdict, row.students) == ("OPEN", 7)
    assert row.ratio == pytest.approx((1_500 + 10_000 / shared_by) / 3_000)
    # Both: 3,000 + a step of 60 - 3,000 leave 60; 10,000 / 166 is more, 10,000 / 167 is not.
    (row,) = by_case["both"].verdicts
    assert (row.verdict, row.students) == ("OPEN", 167)


def test_winner_wins_from_the_students_needed_on() -> None:
    assert verdict_of(judged(KD_WINS, students=6)["training"]) == "kd OPEN scratch"
    assert verdict_of(judged(KD_WINS, students=7)["training"]) == "kd BEATS scratch"


def test_arm_that_costs_more_without_its_teacher_needs_no_number_of_students() -> None:
    # 110 steps of the student alone are 3,300, more than the 3,000 of scratch and a step.
    (row,) = judged(KD_WINS, steps={"scratch": 100, "kd": 110})["training"].verdicts
    assert (row.verdict, row.students) == ("OPEN", None)


def test_cheaper_side_of_a_tie_at_least_ties() -> None:
    by_case = judged(TIE)
    assert verdict_of(by_case["nothing"]) == "kd AT LEAST TIES scratch"
    assert by_case["nothing"].verdicts[0].ratio == 0.5
    assert verdict_of(by_case["both"]) == "scratch AT LEAST TIES kd"
    assert by_case["both"].verdicts[0].ratio == pytest.approx(3 / 13)


def test_inconclusive_verdict_stays_so_in_every_case() -> None:
    assert {verdict_of(case) for case in judged(UNDECIDED).values()} == {"scratch INCONCLUSIVE kd"}


def test_unknown_training_cost_leaves_open_what_it_could_turn() -> None:
    by_case = judged(KD_WINS, SCRATCH_WINS, TIE, training=0)
    assert [case.unknown for case in by_case.values()] == [(), (), ("kd",), ("kd",)]
    # kd costs 1,500 or more here, so any order of costs is possible.
    assert [row.verdict for row in by_case["training"].verdicts] == ["OPEN", "OPEN", "OPEN"]
    # Here it costs 3,000 or more: scratch costs no more for sure.
    verdicts = [row.verdict for row in by_case["both"].verdicts]
    assert verdicts == ["OPEN", "BEATS", "AT LEAST TIES"]
    rows = itertools.chain.from_iterable(case.verdicts for case in by_case.values())
    assert not any(isinstance(row, SharedCaseVerdict) for row in rows)


def sentence(*verdicts: Judgement, case: str, **settings: Any) -> list[str]:
    return teacher_accounting.sentences(study(*verdicts, **settings))[case]


def test_sentences_say_what_each_case_makes_of_the_verdicts() -> None:
    assert sentence(KD_WINS, case="inference") == ["Every verdict is as above."]
    assert sentence(KD_WINS, UNDECIDED, KD_WINS, TIE, case="nothing") == [
        "kd BEATS scratch on linear probes (t0, t2); "
        "kd AT LEAST TIES with scratch on linear probes (t3), for 0.50× the cost."
    ]
    assert sentence(KD_WINS, case="training") == [
        "Open, unless enough students share the teacher's training: kd BEATS scratch on linear "
        "probes (t0) "
        "with at least 7 students."
    ]
    assert sentence(SCRATCH_WINS, case="nothing") == [
        "Open: scratch does better than kd on linear probes (t0), for 2.00× the cost."
    ]
    assert sentence(KD_WINS, case="training", steps={"scratch": 100, "kd": 110}) == [
        "Open, however many students share the teacher's training: kd does better than scratch on "
        "linear probes (t0), "
        "for 4.43× the cost."
    ]
    assert sentence(KD_WINS, TIE, case="training", training=0) == [
        "Open, as costs are not known: kd does better than scratch on linear probes (t0); "
        "scratch TIES with kd on linear probes (t1)."
    ]
    assert sentence(case="both") == ["Nothing was compared."]


def test_terms_are_explained_only_where_they_are_used() -> None:
    terms = " ".join(teacher_accounting.terms(study(KD_WINS)))
    assert "Open:" in terms
    assert "At least" not in terms
    assert "inconclusive" not in terms
    assert (
        "Training the teacher cost 1.00e4 FLOPs; where it is to be paid for, that is shared by "
        "1 student" in terms
    )
    assert "shared by 4 students" in " ".join(teacher_accounting.terms(study(TIE, students=4)))
    assert "not known" in " ".join(teacher_accounting.terms(study(TIE, training=0)))


def test_unknown_costs_are_shown_as_bounds() -> None:
    table = teacher_accounting.costs(study(TIE, training=0))
    assert [column.name for column in table.columns] == ["nothing", "inference", "training", "both"]
    assert [column.note for column in table.columns] == ["", "enforced", "", ""]
    assert table.rows["kd"] == [
        ("0.50×", "1.50e3"),
        ("1.00×", "3.00e3"),
        ("≥ 0.50×", "≥ 1.50e3"),
        ("≥ 1.00×", "≥ 3.00e3"),
    ]
