"""Who is ahead where, read from a plan's pairwise contests.

`found` is the content of plan.json throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kdjax.sweep.verdict import starts_from_teacher

Plan = Mapping[str, Any]
Contest = Mapping[str, Any]
Point = Mapping[str, Any]

_SAME = 1e-9
"""Budgets closer than this share are one."""


@dataclass(frozen=True)
class Standing:
    """What contests say at a budget.

    Attributes:
        kind: `wins`: one arm is told ahead of every other. `ties`: the best ones tie. `open`:
            neither.
        arms: those that may be the best, in the plan's order: not beaten by any arm that is itself
            unbeaten.
    """

    kind: Literal["wins", "ties", "open"]
    arms: tuple[str, ...]


@dataclass(frozen=True)
class PhaseSpan:
    """Neighbouring budgets with one standing, from `low` to `high` FLOPs."""

    standing: Standing
    low: float
    high: float


def yardstick(found: Plan) -> str:
    """The arm the others are held against: the first one without a teacher, or the first where all
    have one."""
    arms: list[str] = list(found["arms"])
    law = found["prior"]["arms"]
    alone = (
        a
        for a in arms
        if law[a]["law"] == "supervised" and not starts_from_teacher(found["config"], a)
    )
    return next(alone, arms[0])


def reach(found: Plan) -> float:
    """The pilot's largest budget: beyond it, forecasts extrapolate."""
    return float(max(found["pilot"]["budgets"]))


def contests(found: Plan, case: str | None = None) -> list[Contest]:
    """Pairs of arms where `case` is what is paid for the teacher (by default, what the budget
    enforces)."""
    return list(found["contests"].get(case or found["case"], []))


def sided(contest: Contest, arm: str) -> Contest:
    """A contest read from one arm's side: `a` is the arm."""
    if contest["a"] == arm:
        return contest
    other_way = {"a wins": "b wins", "b wins": "a wins"}
    points = [
        {
            "flops": p["flops"],
            "mean": -p["mean"],
            "low": -p["high"],
            "high": -p["low"],
            "verdict": other_way.get(p["verdict"], p["verdict"]),
        }
        for p in contest["points"]
    ]
    ranges = [
        {**one, "verdict": other_way.get(one["verdict"], one["verdict"])}
        for one in contest["ranges"]
    ]
    return {**contest, "a": contest["b"], "b": contest["a"], "points": points, "ranges": ranges}


def at(contest: Contest, flops: float) -> Point | None:
    """A contest at a budget: interpolated between the two it was asked at beside it; None outside
    those asked.

    Returns:
        `mean`, `low`, `high`, and the `verdict`: the one on both sides, or `cannot tell` where
            those differ.
    """
    points = contest["points"]
    if not points[0]["flops"] * (1 - _SAME) <= flops <= points[-1]["flops"] * (1 + _SAME):
        return None
    left = max((p for p in points if p["flops"] <= flops * (1 + _SAME)), key=lambda p: p["flops"])
    right = min((p for p in points if p["flops"] >= flops * (1 - _SAME)), key=lambda p: p["flops"])
    gap = math.log(right["flops"] / left["flops"])
    share = math.log(flops / left["flops"]) / gap if gap > 0 else 0.0
    told = left["verdict"] if left["verdict"] == right["verdict"] else "cannot tell"
    numbers = {
        name: left[name] + share * (right[name] - left[name]) for name in ("mean", "low", "high")
    }
    return {"flops": flops, **numbers, "verdict": told}


def standing(found: Plan, flops: float, case: str | None = None) -> Standing | None:
    """Who is ahead at a budget; None where nothing was compared there."""
    verdicts = {(one["a"], one["b"]): at(one, flops) for one in contests(found, case)}
    told = {pair: point["verdict"] for pair, point in verdicts.items() if point is not None}
    return _standing(told, list(found["arms"])) if told else None


def spans(found: Plan, case: str | None = None) -> list[PhaseSpan]:
    """Who is ahead over all budgets asked, small ones first; neighbours at which the lead is open
    are one stretch."""
    order: list[str] = list(found["arms"])
    made: list[PhaseSpan] = []
    pairs = contests(found, case)
    if not pairs:
        return made
    for n, point in enumerate(pairs[0]["points"]):
        told = {(one["a"], one["b"]): one["points"][n]["verdict"] for one in pairs}
        now = _standing(told, order)
        flops = point["flops"]
        before = made[-1].standing if made else None
        if before and before.kind == now.kind == "open":
            both = tuple(arm for arm in order if arm in (*before.arms, *now.arms))
            made[-1] = PhaseSpan(Standing("open", both), made[-1].low, flops)
        elif before == now:
            made[-1] = PhaseSpan(now, made[-1].low, flops)
        else:
            made.append(PhaseSpan(now, flops, flops))
    return made


def _standing(told: Mapping[tuple[str, str], str], order: Sequence[str]) -> Standing:
    wins = {
        (a, b) if verdict == "a wins" else (b, a)
        for (a, b), verdict in told.items()
        if verdict.endswith("wins")
    }
    arms = [arm for arm in order if any(arm in pair for pair in told)]
    unbeaten = [arm for arm in arms if not any(loser == arm for _, loser in wins)]
    best = tuple(arm for arm in arms if not any((winner, arm) in wins for winner in unbeaten))
    if len(best) == 1:
        return Standing("wins", best)
    tied = all(verdict == "ties" for (a, b), verdict in told.items() if a in best and b in best)
    return Standing("ties" if tied else "open", best)
