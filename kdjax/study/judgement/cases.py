"""The verdicts under each way of paying for the teacher.

A study's runs spend one budget, in one case. In another case the same runs cost something else, and
arms no longer cost the same. What can still be said then: an arm that beats another and costs no
more beats it; one that ties with another and costs less does at least as well for the same cost.
That more compute would not have made an arm worse is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from kdjax.budget.accounting import CASES, charged_flops
from kdjax.results.arm_results import ArmResult
from kdjax.results.runs import RunResult
from kdjax.results.teacher_facts import TeacherFacts
from kdjax.results.verdicts import Case, CaseVerdict, PairVerdict, SharedCaseVerdict

SAME = 0.01
"""Costs that differ by less than this share, or by less than a step, are the same."""


def cases(
    arms: Mapping[str, ArmResult],
    runs: Sequence[RunResult],
    verdicts: Sequence[PairVerdict],
    teacher: TeacherFacts | None,
    enforced: str | None,
    students: int = 1,
) -> tuple[Case, ...]:
    """Compute each case: the costs of every arm's runs, and the study's verdicts restated.

    Args:
        arms: name -> arm.
        runs: all runs of the study.
        verdicts: all verdicts of the study.
        teacher: facts of the teacher; None where no arm needs one.
        enforced: the case the budget was held against; None under a budget of tokens or hours.
        students: number of students that share the teacher's training in these runs.

    Returns:
        For each case its verdicts in the order of `verdicts`. A verdict is BEATS, TIES (at the same
        cost), AT LEAST TIES (a costs less), OPEN (a scores better and costs more, or may),
        INCONCLUSIVE or NOT LEARNT. `unknown` are arms whose cost is at least that, because what
        training their teacher cost is not known.
    """
    return tuple(
        _case(Costs.from_runs(case, arms, runs, teacher, students), verdicts, case == enforced)
        for case in CASES
    )


@dataclass(frozen=True)
class Costs:
    """The cost of runs in one case.

    Attributes:
        case: name of the case: what a run pays of its teacher.
        runs: arm -> mean FLOPs of a run.
        steps: arm -> FLOPs of its dearest step.
        training: arm -> mean FLOPs of a run's share of what training its teacher cost.
        unknown: arms whose cost is at least `runs`, as their teacher's training is not known.
        needs_teacher: arms with a teacher.
        students: number of students that share the teacher's training.
    """

    case: str
    runs: dict[str, float]
    steps: dict[str, int]
    training: dict[str, float]
    unknown: tuple[str, ...]
    needs_teacher: frozenset[str]
    students: int

    @staticmethod
    def from_runs(
        case: str,
        arms: Mapping[str, ArmResult],
        runs: Sequence[RunResult],
        teacher: TeacherFacts | None,
        students: int,
    ) -> Costs:
        """Compute the mean cost of each arm's runs under one way to pay for the teacher.

        Args:
            case: name of the case, a key of `CASES`.
            arms: arm -> its settings and prices.
            runs: all runs; an arm without a finished run is left out.
            teacher: what is known of the teacher; None where the study has none.
            students: number of students that share the teacher's training.
        """
        means: dict[str, float] = {}
        training: dict[str, float] = {}
        for arm in arms:
            spent = [run.spent for run in runs if run.arm == arm]
            # An arm of which no run has ended costs nothing yet.
            if spent:
                means[arm] = _mean(charged_flops(account, case) for account in spent)
                training[arm] = _mean(account["teacher_training"] for account in spent)

        # A teacher from elsewhere may not say what its training cost.
        needs_teacher = frozenset(arm for arm in means if arms[arm].needs_teacher)
        is_unknown = "teacher_training" in CASES[case] and not (teacher and teacher.training_flops)
        return Costs(
            case,
            runs=means,
            steps={arm: _dearest_step(arms[arm], case) for arm in means},
            training=training,
            unknown=tuple(arm for arm in means if is_unknown and arm in needs_teacher),
            needs_teacher=needs_teacher,
            students=students,
        )

    def tolerance(self, a: str, b: str) -> float:
        """Return the largest difference in FLOPs at which two arms count as equally dear.

        That is the dearer of the two arms' steps, since a budget leaves less than one of them, or
        `SAME` of the cheaper run where that is more.
        """
        return max(self.steps[a], self.steps[b], SAME * min(self.runs[a], self.runs[b]))

    def equal(self, a: str, b: str) -> bool:
        """Return whether two arms are known to cost the same."""
        known = a not in self.unknown and b not in self.unknown
        return known and abs(self.runs[a] - self.runs[b]) <= self.tolerance(a, b)

    def costs_at_most(self, a: str, b: str) -> bool:
        """Return whether a certainly costs no more than b."""
        # The known part of an unknown cost is a lower bound: it serves for b, not for a.
        return a not in self.unknown and self.runs[a] <= self.runs[b]

    def students_needed(self, a: str, b: str) -> int | None:
        """Return the number of students that must share the teacher's training for a to cost as b
        does.

        None where no number would do.
        """
        # Both costs hold the share of one of `students`; more students only shrink that share.
        without_training = {arm: self.runs[arm] - self.training[arm] for arm in (a, b)}
        room = without_training[b] + self.tolerance(a, b) - without_training[a]
        if room <= 0:
            return None
        extra_training = (self.training[a] - self.training[b]) * self.students
        return max(1, math.ceil(extra_training / room))


def _mean(flops: Iterable[int]) -> float:
    """Compute the mean of whole FLOPs, rounded once: they can be more than a float tells apart."""
    amounts = list(flops)
    return sum(amounts) / len(amounts)


def _dearest_step(arm: ArmResult, case: str) -> int:
    """Compute the charge of the dearest step of an arm's phases in a case."""
    return max(charged_flops(phase.price.parts(), case) for phase in arm.phases)


def _case(costs: Costs, verdicts: Sequence[PairVerdict], enforced: bool) -> Case:
    """Restate a study's verdicts for one way to pay for the teacher."""
    rows = tuple(_case_verdict(verdict, costs) for verdict in verdicts)
    return Case(costs.case, enforced, costs.runs, costs.unknown, rows)


def _case_verdict(verdict: PairVerdict, costs: Costs) -> CaseVerdict:
    """Restate a verdict for one way to pay for the teacher.

    It stands where the winner costs no more, else it is OPEN; a tie becomes AT LEAST TIES for the
    cheaper arm.
    """
    a = verdict.a
    b = verdict.b
    outcome: str = verdict.verdict
    # At the same cost it stays; else it holds only for the side that costs no more.
    if outcome == "TIES" and not costs.equal(a, b):
        # It reads from the side of the arm that costs less.
        if costs.costs_at_most(b, a):
            a = verdict.b
            b = verdict.a
        outcome = "AT LEAST TIES"
    if outcome in ("AT LEAST TIES", "BEATS") and not (
        costs.equal(a, b) or costs.costs_at_most(a, b)
    ):
        outcome = "OPEN"
    row = CaseVerdict(verdict.endpoint, a, outcome, b, costs.runs[a] / costs.runs[b])

    # With more students a dear teacher gets cheap enough, unless it is not known how dear it is.
    pays_for_training = "teacher_training" in CASES[costs.case]
    is_known = a in costs.needs_teacher and a not in costs.unknown
    if outcome == "OPEN" and pays_for_training and is_known:
        return SharedCaseVerdict(**asdict(row), students=costs.students_needed(a, b))
    return row
