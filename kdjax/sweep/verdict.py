"""What a sweep says, in plain sentences made from its intervals alone.

`found` is the content of sweep.json throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.report import numbers
from kdjax.report.sentences import places
from kdjax.results import schema

Sweep = Mapping[str, Any]
Group = Mapping[str, Any]
Endpoint = Mapping[str, Any]
Pair = Mapping[str, Any]

_PHRASES = {
    "BEATS": ("is ahead of {}", "are ahead of {}"),
    "LOSES": ("is behind {}", "are behind {}"),
    "TIES": ("ties with {}", "tie with {}"),
    "INCONCLUSIVE": ("cannot be told from {}", "cannot be told from {}"),
}
"""What is said of one arm, and of several."""
_COUNTED = {
    "BEATS": "is ahead in",
    "LOSES": "is behind in",
    "TIES": "ties in",
    "INCONCLUSIVE": "cannot be told from it in",
}
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
    """The sweep in a few sentences: who is ahead of the yardstick at which budgets, and where they
    cross."""
    other = yardstick(found)
    compared = [
        (group, endpoint, pairs)
        for group in found["groups"]
        for endpoint in found["endpoints"]
        if (pairs := against(group, endpoint, other))
    ]
    points = [
        point for *_, pairs in compared for pair in pairs.values() for point in pair["points"]
    ]
    if not points:
        return (
            f"Nothing was compared with {other}: a difference needs two arms with an endpoint in "
            "common."
        )
    if all(point["n"] < 2 for point in points):
        return (
            "This sweep cannot tell the arms apart: an interval needs at least two seeds that "
            "both arms share, and no "
            "pair has them."
        )
    if all(point["verdict"] == "INCONCLUSIVE" for point in points):
        arms = list(dict.fromkeys(arm for *_, pairs in compared for arm in pairs))
        return f"This sweep cannot tell {numbers.listed(arms)} from {other} at any of its budgets."
    if len(compared) > _FEW:
        return _counted(compared, other)
    told = [_on(found, group, endpoint, pairs, other) for group, endpoint, pairs in compared]
    return " ".join(told)


def _on(
    found: Sweep, group: Group, endpoint: Endpoint, pairs: Mapping[str, Pair], other: str
) -> str:
    """A sentence on one endpoint; arms of which the same is said share a clause."""
    alike: dict[tuple[str, str], list[str]] = {}
    for arm, pair in pairs.items():
        one, many = (
            _told(pair, found["kind"], other, n) + _crossed(pair, found["kind"]) for n in (0, 1)
        )
        alike.setdefault((one, many), []).append(arm)
    clauses = [f"{numbers.listed(arms)} {said[len(arms) > 1]}" for said, arms in alike.items()]
    where = numbers.settings(group["settings"])
    measured = places([as_endpoint(endpoint)])
    return f"On {measured}{f', {where}' if where else ''}, {'; '.join(clauses)}."


def _counted(compared: Sequence[tuple[Group, Endpoint, Mapping[str, Pair]]], other: str) -> str:
    """Too much for a sentence each: how often each arm is where."""
    verdicts: dict[str, list[str]] = {}
    for *_, pairs in compared:
        for arm, pair in pairs.items():
            verdicts.setdefault(arm, []).extend(point["verdict"] for point in pair["points"])
    clauses = []
    for arm, found in verdicts.items():
        counts = [f"{word} {found.count(v)}" for v, word in _COUNTED.items() if v in found]
        clauses.append(f"{arm} {', '.join(counts)} of {len(found)}")
    return f"Against {other}, over all budgets, settings and endpoints: {'; '.join(clauses)}."


def sentences(found: Sweep, group: Group, endpoint: Endpoint) -> list[str]:
    """For each pair of arms on an endpoint: who is ahead at which budgets, and where their means
    cross.

    Pairs with the yardstick come first and are read from the other arm's side.
    """
    other = yardstick(found)
    pairs = list(against(group, endpoint, other).values())
    pairs += [
        p
        for p in group["pairs"]
        if p["endpoint"] == endpoint["name"] and other not in (p["a"], p["b"])
    ]
    return [
        f"{pair['a']} "
        f"{_standing(pair, found['kind'], pair['b'])}{_crossed(pair, found['kind'], every=True)}."
        for pair in pairs
    ]


def _told(pair: Pair, kind: str, other: str, several: int) -> str:
    """What is told of a pair, briefly: `is ahead of scratch up to 7.00e11 FLOPs, else
    undecided`."""
    told = {point["verdict"] for point in pair["points"]}
    if told == {"INCONCLUSIVE"} or "INCONCLUSIVE" not in told:
        return _standing(pair, kind, other, several)
    return (
        f"{_standing(pair, kind, other, several, leave_out=('INCONCLUSIVE',))} and otherwise "
        "undecided"
    )


def _standing(
    pair: Pair, kind: str, other: str, several: int = 0, leave_out: Sequence[str] = ()
) -> str:
    """`is ahead of scratch up to 7.00e11 FLOPs and cannot be told from it at 1.70e12 FLOPs`."""
    every = [point["budget"] for point in pair["points"]]
    told: dict[str, list[float]] = {}
    for point in pair["points"]:
        told.setdefault(point["verdict"], []).append(point["budget"])
    clauses: list[str] = []
    for verdict, phrases in _PHRASES.items():
        if verdict in told and verdict not in leave_out:
            place = where(told[verdict], every, kind)
            if verdict == "INCONCLUSIVE":
                place = place.replace("at every", "at any")
            clauses.append(f"{phrases[several].format('it' if clauses else other)} {place}")
    return numbers.listed(clauses)


def _crossed(pair: Pair, kind: str, every: bool = False) -> str:
    """Where means cross; unless `every`, only where the arms are told apart on both sides."""
    ends = pair["points"][0]["budget"], pair["points"][-1]["budget"]
    found = [
        c for c in pair["crossings"] if every or (c["low"] is not None and c["high"] is not None)
    ]
    texts = [
        f"{amounts([c['at']], kind)} {bracket(c['low'], c['high'], ends, kind)}" for c in found
    ]
    return f"; the means cross at {numbers.listed(texts)}" if texts else ""


def bracket(low: float | None, high: float | None, ends: tuple[float, float], kind: str) -> str:
    """A crossing's interval; where it is open, it goes on beyond the budgets looked at, which end
    at `ends`."""
    if low is None and high is None:
        return "[open at both ends]"
    texts = [
        f"below {_amount(ends[0], kind)}" if low is None else _amount(low, kind),
        f"above {_amount(ends[1], kind)}" if high is None else _amount(high, kind),
    ]
    return f"[{', '.join(texts)}]"


def where(budgets: Sequence[float], every: Sequence[float], kind: str) -> str:
    """Some of the budgets, in words: `at every budget`, `from 1.70e12 FLOPs up`, `at 3.00e11 and
    4.00e12 FLOPs`."""
    some = list(budgets)
    count = len(budgets)
    if some == list(every) and count > 1:
        return "at every budget"
    if count > 1 and some == list(every[-count:]):
        return f"from {amounts(some[:1], kind)} up"
    if count > 1 and some == list(every[:count]):
        return f"up to {amounts(some[-1:], kind)}"
    return f"at {amounts(some, kind)}"


def amounts(values: Sequence[float], kind: str) -> str:
    """Budgets with their unit: `3.00e11 and 7.00e11 FLOPs`."""
    unit = {"flops": " FLOPs", "tokens": " tokens", "hours": ""}[kind]
    return numbers.listed([_amount(value, kind) for value in values]) + unit


def _amount(value: float, kind: str) -> str:
    """A budget without its unit where that is one and the same."""
    if kind == "hours":
        return numbers.time(3600 * value)
    return numbers.flops(value) if kind == "flops" else numbers.tokens(value)
