"""The verdicts under each way of paying for the teacher.

A study's runs spend one budget, in one case. In another case the same runs cost something else, and
arms no longer cost
the same. What can still be said then: an arm that beats another and costs no more beats it; one
that ties with another and costs less does at least as well for the same cost. That more compute
would not have made an arm worse is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.budget.accounting import CASES, charged

SAME = 0.01
"""Costs that differ by less than this share, or by less than a step, are the same."""


def cases(
    arms: Mapping[str, Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    verdicts: Sequence[Mapping[str, Any]],
    teacher: Mapping[str, Any] | None,
    enforced: str | None,
    students: int = 1,
) -> list[dict[str, Any]]:
    """Each case with what a run of each arm costs in it, and what the study's verdicts become.

    Args:
        arms: name -> an arm as results.json has it.
        runs: as results.json has them.
        verdicts: of the study, in the order of results.json.
        teacher: its facts; None where no arm needs one.
        enforced: the case the budget was held against; None under a budget of tokens or hours.
        students: how many share the teacher's training in these runs.

    Returns: For each case `case`, `enforced`, `costs` (arm -> mean FLOPs of a run), `unknown` (arms
        whose cost is at least that, because what training their teacher cost is not known) and
        `verdicts`: `endpoint`, `a`, `verdict`, `b` and `ratio` (a's cost over b's). A verdict is
        BEATS, TIES (at the same cost), AT LEAST TIES (a costs less), OPEN (a scores better and
        costs more, or may), or INCONCLUSIVE. Where a's cost depends on it, `students` is how many
        have to share the teacher's training for a to BEAT b; None: no number would do.
    """
    return [_case(case, arms, runs, verdicts, teacher, enforced, students) for case in CASES]


def _case(
    case: str,
    arms: Mapping[str, Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    verdicts: Sequence[Mapping[str, Any]],
    teacher: Mapping[str, Any] | None,
    enforced: str | None,
    students: int,
) -> dict[str, Any]:
    spent = {arm: [run["spent"] for run in runs if run["arm"] == arm] for arm in arms}
    costs = {
        arm: sum(charged(one, case) for one in found) / len(found)
        for arm, found in spent.items()
        if found
    }
    steps = {
        arm: max(charged(phase["price"], case) for phase in arms[arm]["phases"]) for arm in costs
    }
    pays = "teacher_training" in CASES[case]
    unknown = [
        arm
        for arm in costs
        if pays and arms[arm]["needs_teacher"] and not (teacher or {})["training_flops"]
    ]
    rows = [_row(v, case, costs, steps, unknown, spent, arms, students) for v in verdicts]
    return {
        "case": case,
        "enforced": case == enforced,
        "costs": costs,
        "unknown": unknown,
        "verdicts": rows,
    }


def _row(
    verdict: Mapping[str, Any],
    case: str,
    costs: Mapping[str, float],
    steps: Mapping[str, int],
    unknown: Sequence[str],
    spent: Mapping[str, Sequence[Mapping[str, int]]],
    arms: Mapping[str, Mapping[str, Any]],
    students: int,
) -> dict[str, Any]:
    a = verdict["a"]
    b = verdict["b"]
    found = verdict["verdict"]
    # The same budget leaves each arm less than one of its steps, so costs that near are the same.
    near = max(steps[a], steps[b], SAME * min(costs[a], costs[b]))
    same = abs(costs[a] - costs[b]) <= near and a not in unknown and b not in unknown
    if found == "TIES" and not same:
        if _cheaper(b, a, costs, unknown):
            a, b = b, a
        found = "AT LEAST TIES" if _cheaper(a, b, costs, unknown) else "OPEN"
    elif found == "BEATS" and not (same or _cheaper(a, b, costs, unknown)):
        found = "OPEN"
    row = {
        "endpoint": verdict["endpoint"],
        "a": a,
        "verdict": found,
        "b": b,
        "ratio": costs[a] / costs[b],
    }
    if (
        found == "OPEN"
        and "teacher_training" in CASES[case]
        and arms[a]["needs_teacher"]
        and a not in unknown
    ):
        own = {arm: _training(spent[arm]) for arm in (a, b)}
        row["students"] = _students(costs[a], costs[b], own[a], own[b], near, students)
    return row


def _cheaper(a: str, b: str, costs: Mapping[str, float], unknown: Sequence[str]) -> bool:
    """Whether a certainly costs no more than b: a cost that is not known is at least what is known
    of it."""
    return a not in unknown and costs[a] <= costs[b]


def _training(spent: Sequence[Mapping[str, int]]) -> float:
    """A run's share of what training its teacher cost."""
    return sum(one["teacher_training"] for one in spent) / len(spent)


def _students(
    a: float, b: float, training_a: float, training_b: float, near: float, shared_by: int
) -> int | None:
    """How many students have to share the teacher's training for a to cost no more than b, or as
    good as that.

    Both costs hold their share of the training as `shared_by` students have it. None: no number
    would do.
    """
    room = (b - training_b) + near - (a - training_a)
    return max(1, math.ceil((training_a - training_b) * shared_by / room)) if room > 0 else None
