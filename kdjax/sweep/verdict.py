"""What a sweep says, in plain sentences made from its intervals alone.

`found` is the content of sweep.json throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.report import numbers
from kdjax.report.phrases import say
from kdjax.report.sentences import measures
from kdjax.results import schema

Sweep = Mapping[str, Any]
Group = Mapping[str, Any]
Endpoint = Mapping[str, Any]
Pair = Mapping[str, Any]

_VERDICTS = ("BEATS", "LOSES", "TIES", "INCONCLUSIVE")
"""In the order in which sentences have them."""
_OTHER_WAY = {"BEATS": "LOSES", "LOSES": "BEATS"}
_FEW = 4
"""So many endpoints, over all combinations of the other settings, have a sentence each in the
headline."""


def yardstick(found: Sweep) -> str:
    """The arm the others are held against: the first one without a teacher, or the first where all
    have one."""
    arms: list[str] = list(found["arms"])
    return next((arm for arm in arms if not _taught(found, arm)), arms[0])


def _taught(found: Sweep, arm: str) -> bool:
    """Whether an arm asks a teacher or starts from one."""
    parts = ("teacher_forward", "teacher_cache", "teacher_training")
    asked = any(row["spent"][part] for row in found["rows"] if row["arm"] == arm for part in parts)
    return asked or starts_from_teacher(found["config"], arm)


def starts_from_teacher(config: Mapping[str, Any], arm: str) -> bool:
    """Whether an arm's own settings let its student start from the teacher."""
    start = config["arms"][arm]["start"]
    return bool(start and start["source"] == "teacher")


def as_endpoint(endpoint: Endpoint) -> schema.Endpoint:
    """Return an endpoint of sweep.json or plan.json."""
    return schema.Endpoint(**{**endpoint, "arms": tuple(endpoint["arms"])})


def losses_of(group: Group) -> schema.CountedLosses | None:
    """Return the cross-entropies of a group's text."""
    losses = group.get("reference_losses")
    return None if losses is None else schema.CountedLosses(**losses)


def rows_of(found: Sweep, group: Group) -> list[Mapping[str, Any]]:
    """The runs of a combination of the settings other than the budget."""
    return [row for row in found["rows"] if group["settings"].items() <= row["settings"].items()]


def against(group: Group, endpoint: Endpoint, other: str) -> dict[str, Pair]:
    """Arm -> its pair with `other` on an endpoint, read from the arm's side."""
    pairs = [
        pair
        for pair in group["pairs"]
        if pair["endpoint"] == endpoint["name"] and other in (pair["a"], pair["b"])
    ]
    sided = [pair if pair["b"] == other else _turned(pair) for pair in pairs]
    return {pair["a"]: pair for pair in sided}


def _turned(pair: Pair) -> Pair:
    """The same pair, read from the other arm's side."""
    points = [
        {
            **point,
            "difference": _minus(point["difference"]),
            "low": _minus(point["high"]),
            "high": _minus(point["low"]),
            "verdict": _OTHER_WAY.get(point["verdict"], point["verdict"]),
        }
        for point in pair["points"]
    ]
    crossings = [{**crossing, "rising": not crossing["rising"]} for crossing in pair["crossings"]]
    return {**pair, "a": pair["b"], "b": pair["a"], "points": points, "crossings": crossings}


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def intervals(found: Sweep) -> int:
    """How many intervals of differences were looked at."""
    points = [
        point for group in found["groups"] for pair in group["pairs"] for point in pair["points"]
    ]
    return sum(point["low"] is not None for point in points)


def headline(found: Sweep) -> str:
    """Say which arms are ahead of the baseline arm at which budgets, and where they cross."""
    other = yardstick(found)
    compared = []
    points: list[Mapping[str, Any]] = []
    arms: dict[str, None] = {}
    for group in found["groups"]:
        for endpoint in found["endpoints"]:
            pairs = against(group, endpoint, other)
            if pairs:
                compared.append((group, endpoint, pairs))
            for arm, pair in pairs.items():
                arms[arm] = None
                points += pair["points"]
    if not points:
        return say("sweep_nothing", other=other)
    if all(point["n"] < 2 for point in points):
        return say("sweep_no_interval")
    if all(point["verdict"] == "INCONCLUSIVE" for point in points):
        return say("sweep_undecided", arms=numbers.listed(list(arms)), other=other)
    if len(compared) > _FEW:
        return _counted(list(arms), [pairs for *_, pairs in compared], other)
    return " ".join(_on(found, group, endpoint, pairs) for group, endpoint, pairs in compared)


def _on(found: Sweep, group: Group, endpoint: Endpoint, pairs: Mapping[str, Pair]) -> str:
    """Say what one endpoint shows; arms of which the same holds share a clause."""
    alike: dict[str, list[str]] = {}
    for arm, pair in pairs.items():
        told_apart = [c for c in pair["crossings"] if None not in (c["low"], c["high"])]
        statement = _standing(pair, found["kind"], brief=True) + _crossed(
            pair, told_apart, found["kind"]
        )
        alike.setdefault(statement, []).append(arm)
    clauses = [
        say("sweep_arms", arms=numbers.listed(arms), standing=text) for text, arms in alike.items()
    ]
    where = filter(None, [measures([as_endpoint(endpoint)]), numbers.settings(group["settings"])])
    other = yardstick(found)
    return say("sweep_endpoint", other=other, where=", ".join(where), clauses="; ".join(clauses))


def _counted(arms: Sequence[str], compared: Sequence[Mapping[str, Pair]], other: str) -> str:
    """Count how often each arm is where, when that is too much for a sentence each."""
    clauses = []
    for arm in arms:
        verdicts: list[str] = []
        for pairs in compared:
            if arm in pairs:
                verdicts += [point["verdict"] for point in pairs[arm]["points"]]
        counts = [
            say("sweep_count", outcome=say(f"sweep_{verdict}"), count=verdicts.count(verdict))
            for verdict in _VERDICTS
            if verdict in verdicts
        ]
        clauses.append(say("sweep_counts", arm=arm, counts=", ".join(counts), total=len(verdicts)))
    return say("sweep_counted", other=other, clauses="; ".join(clauses))


def sentences(found: Sweep, group: Group, endpoint: Endpoint) -> list[str]:
    """Say for each pair of arms who is ahead at which budgets, and where their means cross.

    Pairs with the baseline arm come first and are read from the other arm's side.
    """
    other = yardstick(found)
    pairs = list(against(group, endpoint, other).values())
    for pair in group["pairs"]:
        if pair["endpoint"] == endpoint["name"] and other not in (pair["a"], pair["b"]):
            pairs.append(pair)
    texts = []
    for pair in pairs:
        crossed = _crossed(pair, pair["crossings"], found["kind"])
        standing = _standing(pair, found["kind"]) + crossed
        texts.append(say("sweep_pair", a=pair["a"], b=pair["b"], standing=standing))
    return texts


def _standing(pair: Pair, kind: str, *, brief: bool = False) -> str:
    """Write where a pair is told apart: `ahead up to 7.00e11 FLOPs, undecided at 1.70e12 FLOPs`.

    Args:
        pair: a pair of arms, read from the first arm's side.
        kind: kind of budget.
        brief: whether budgets without a decision are not named where others have one.
    """
    every = [point["budget"] for point in pair["points"]]
    clauses: list[str] = []
    for verdict in _VERDICTS:
        budgets = [point["budget"] for point in pair["points"] if point["verdict"] == verdict]
        if budgets and clauses and brief and verdict == "INCONCLUSIVE":
            clauses.append(say("sweep_otherwise"))
        elif budgets:
            clauses.append(f"{say(f'sweep_{verdict}')} {where(budgets, every, kind)}")
    return ", ".join(clauses)


def _crossed(pair: Pair, crossings: Sequence[Mapping[str, Any]], kind: str) -> str:
    """Say where a pair's means cross; empty where they do not."""
    if not crossings:
        return ""
    ends = (pair["points"][0]["budget"], pair["points"][-1]["budget"])
    texts = []
    for crossing in crossings:
        interval = bracket(crossing["low"], crossing["high"], ends, kind)
        texts.append(f"{amounts([crossing['at']], kind)} {interval}")
    return say("crossed", crossings=numbers.listed(texts))


def bracket(
    low: float | None,
    high: float | None,
    ends: tuple[float, float],
    kind: str,
    above: str = "above",
) -> str:
    """Write a crossing's interval.

    Args:
        low, high: ends of the interval; None where it is open.
        ends: smallest and largest budget looked at, beyond which an open end lies.
        kind: kind of budget.
        above: phrase for an open upper end.
    """
    if low is None and high is None:
        return say("open_ends")
    lower = say("below", amount=_amount(ends[0], kind)) if low is None else _amount(low, kind)
    upper = say(above, amount=_amount(ends[1], kind)) if high is None else _amount(high, kind)
    return f"[{lower}, {upper}]"


def where(budgets: Sequence[float], every: Sequence[float], kind: str) -> str:
    """Write some of the budgets: `at every budget`, `from 1.70e12 FLOPs up`, `at 3.00e11 FLOPs`."""
    count = len(budgets)
    if count > 1 and list(budgets) == list(every):
        return say("at_every")
    if count > 1 and list(budgets) == list(every[-count:]):
        return say("from_up", amounts=amounts(budgets[:1], kind))
    if count > 1 and list(budgets) == list(every[:count]):
        return say("up_to", amounts=amounts(budgets[-1:], kind))
    return say("at", amounts=amounts(budgets, kind))


def amounts(values: Sequence[float], kind: str) -> str:
    """Budgets with their unit: `3.00e11 and 7.00e11 FLOPs`."""
    unit = {"flops": " FLOPs", "tokens": " tokens", "hours": ""}[kind]
    return numbers.listed([_amount(value, kind) for value in values]) + unit


def _amount(value: float, kind: str) -> str:
    """A budget without its unit where that is one and the same."""
    if kind == "hours":
        return numbers.time(3600 * value)
    return numbers.flops(value) if kind == "flops" else numbers.tokens(value)
