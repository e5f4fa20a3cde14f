"""What a sweep says, in plain sentences made from its intervals alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kdjax.report import numbers
from kdjax.report.sentences import measures
from kdjax.results.schema import Endpoint
from kdjax.sweep.schema import ArmPair, Group, PairPoint, SweepResults, Verdict

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
_OTHER_WAY: dict[Verdict, Verdict] = {
    "BEATS": "LOSES",
    "LOSES": "BEATS",
    "TIES": "TIES",
    "INCONCLUSIVE": "INCONCLUSIVE",
}
_FEW = 4
"""So many endpoints, over all combinations of the other settings, have a sentence each in the
headline."""


@dataclass(frozen=True)
class _Compared:
    """An endpoint in a combination of the other settings, and arms against the baseline arm."""

    group: Group
    endpoint: Endpoint
    pairs: Mapping[str, ArmPair]


def against(group: Group, endpoint: Endpoint, baseline: str) -> dict[str, ArmPair]:
    """Return arm -> its pair with the baseline arm on an endpoint, read from the arm's side.

    Args:
        group: studies that differ in their budget only.
        endpoint: which.
        baseline: the baseline arm.
    """
    pairs = {}
    for pair in group.pairs:
        if pair.endpoint == endpoint.name and baseline in (pair.a, pair.b):
            from_arm = pair if pair.b == baseline else _turned(pair)
            pairs[from_arm.a] = from_arm
    return pairs


def _turned(pair: ArmPair) -> ArmPair:
    """Return the same pair, read from the other arm's side."""
    crossings = tuple(replace(crossing, rising=not crossing.rising) for crossing in pair.crossings)
    points = tuple(_turned_point(point) for point in pair.points)
    return replace(pair, a=pair.b, b=pair.a, points=points, crossings=crossings)


def _turned_point(point: PairPoint) -> PairPoint:
    """Return the same difference, read from the other arm's side."""
    verdict = _OTHER_WAY[point.verdict]
    if point.difference is None:
        return replace(point, verdict=verdict)
    if point.low is None or point.high is None:
        return replace(point, difference=-point.difference, verdict=verdict)
    return replace(
        point, difference=-point.difference, low=-point.high, high=-point.low, verdict=verdict
    )


def points_of(sweep: SweepResults) -> Iterator[PairPoint]:
    """Yield every difference of two arms at a budget."""
    for group in sweep.groups:
        for pair in group.pairs:
            yield from pair.points


def headline(sweep: SweepResults) -> str:
    """Say in a few sentences who is ahead of the baseline arm at which budgets, and where they
    cross."""
    baseline = sweep.baseline_arm
    compared = _compared(sweep)
    points: list[PairPoint] = []
    arms: dict[str, None] = {}  # in their order, each once
    for one in compared:
        for arm, pair in one.pairs.items():
            points += pair.points
            arms[arm] = None

    # Where nothing can be told, one sentence says so.
    if not points:
        return (
            f"Nothing was compared with {baseline}: a difference needs two arms with an endpoint "
            "in common."
        )
    if all(point.n < 2 for point in points):
        return (
            "This sweep cannot tell the arms apart: an interval needs at least two seeds that "
            "both arms share, and no pair has them."
        )
    if all(point.verdict == "INCONCLUSIVE" for point in points):
        names = numbers.listed(list(arms))
        return f"This sweep cannot tell {names} from {baseline} at any of its budgets."
    if len(compared) > _FEW:
        return _counted(compared, baseline)
    return " ".join(_on(one, sweep.kind, baseline) for one in compared)


def _compared(sweep: SweepResults) -> list[_Compared]:
    """Return where arms are compared with the baseline arm."""
    compared = []
    for group in sweep.groups:
        for endpoint in sweep.endpoints:
            pairs = against(group, endpoint, sweep.baseline_arm)
            if pairs:
                compared.append(_Compared(group, endpoint, pairs))
    return compared


def _on(compared: _Compared, kind: str, baseline: str) -> str:
    """Return a sentence on one endpoint; arms of which the same is said share a clause."""
    alike: dict[tuple[str, str], list[str]] = {}
    for arm, pair in compared.pairs.items():
        crossed = _crossed(pair, kind)
        of_one = _briefly(pair, kind, baseline, several=False) + crossed
        of_several = _briefly(pair, kind, baseline, several=True) + crossed
        alike.setdefault((of_one, of_several), []).append(arm)
    clauses = []
    for (of_one, of_several), arms in alike.items():
        clauses.append(f"{numbers.listed(arms)} {of_several if len(arms) > 1 else of_one}")
    settings = numbers.settings(compared.group.settings)
    place = ", ".join(filter(None, [measures([compared.endpoint]), settings]))
    return f"On {place}, {'; '.join(clauses)}."


def _counted(compared: Sequence[_Compared], baseline: str) -> str:
    """Return how often each arm is where: a sentence each would be too much."""
    verdicts: dict[str, list[str]] = {}
    for one in compared:
        for arm, pair in one.pairs.items():
            verdicts.setdefault(arm, []).extend(point.verdict for point in pair.points)
    clauses = []
    for arm, every in verdicts.items():
        counts = [f"{word} {every.count(v)}" for v, word in _COUNTED.items() if v in every]
        clauses.append(f"{arm} {', '.join(counts)} of {len(every)}")
    return f"Against {baseline}, over all budgets, settings and endpoints: {'; '.join(clauses)}."


def sentences(sweep: SweepResults, group: Group, endpoint: Endpoint) -> list[str]:
    """Say of each pair of arms who is ahead at which budgets, and where their means cross.

    Pairs with the baseline arm come first and are read from the other arm's side.

    Args:
        sweep: the sweep.
        group: studies that differ in their budget only.
        endpoint: which.
    """
    baseline = sweep.baseline_arm
    pairs = list(against(group, endpoint, baseline).values())
    for pair in group.pairs:
        if pair.endpoint == endpoint.name and baseline not in (pair.a, pair.b):
            pairs.append(pair)
    told = []
    for pair in pairs:
        crossed = _crossed(pair, sweep.kind, every=True)
        told.append(f"{pair.a} {_by_budget(pair, sweep.kind, pair.b)}{crossed}.")
    return told


def _briefly(pair: ArmPair, kind: str, baseline: str, several: bool) -> str:
    """Return what is told of a pair, briefly: `is ahead of scratch up to 7.00e11 FLOPs and
    otherwise undecided`."""
    verdicts = {point.verdict for point in pair.points}
    if verdicts == {"INCONCLUSIVE"} or "INCONCLUSIVE" not in verdicts:
        return _by_budget(pair, kind, baseline, several)
    decided = [point for point in pair.points if point.verdict != "INCONCLUSIVE"]
    return f"{_by_budget(pair, kind, baseline, several, decided)} and otherwise undecided"


def _by_budget(
    pair: ArmPair,
    kind: str,
    baseline: str,
    several: bool = False,
    points: Sequence[PairPoint] | None = None,
) -> str:
    """Return `is ahead of scratch up to 7.00e11 FLOPs and cannot be told from it at 1.70e12 FLOPs`.

    Args:
        pair: read from the arm's side.
        kind: of budget.
        baseline: the other arm.
        several: whether the same is said of several arms.
        points: those of which it is said; None: all.
    """
    every = [point.budget for point in pair.points]
    budgets: dict[str, list[float]] = {}
    for point in points or pair.points:
        budgets.setdefault(point.verdict, []).append(point.budget)
    clauses: list[str] = []
    for verdict, phrases in _PHRASES.items():
        if verdict not in budgets:
            continue
        place = where(budgets[verdict], every, kind)
        if verdict == "INCONCLUSIVE":
            place = place.replace("at every", "at any")
        phrase = phrases[int(several)].format("it" if clauses else baseline)
        clauses.append(f"{phrase} {place}")
    return numbers.listed(clauses)


def _crossed(pair: ArmPair, kind: str, every: bool = False) -> str:
    """Return where means cross; unless `every`, only where the arms are told apart on both
    sides."""
    ends = (pair.points[0].budget, pair.points[-1].budget)
    texts = []
    for crossing in pair.crossings:
        is_closed = crossing.low is not None and crossing.high is not None
        if every or is_closed:
            interval = bracket(crossing.low, crossing.high, ends, kind)
            texts.append(f"{amounts([crossing.at], kind)} {interval}")
    return f"; the means cross at {numbers.listed(texts)}" if texts else ""


def bracket(low: float | None, high: float | None, ends: tuple[float, float], kind: str) -> str:
    """Return a crossing's interval in words.

    Args:
        low, high: its ends; None where it is open and goes on beyond the budgets looked at.
        ends: the smallest and the largest of these.
        kind: of budget.
    """
    if low is None and high is None:
        return "[open at both ends]"
    below = f"below {_amount(ends[0], kind)}" if low is None else _amount(low, kind)
    above = f"above {_amount(ends[1], kind)}" if high is None else _amount(high, kind)
    return f"[{below}, {above}]"


def where(budgets: Sequence[float], every: Sequence[float], kind: str) -> str:
    """Return some of the budgets in words: `at every budget`, `from 1.70e12 FLOPs up`, `at 3.00e11
    and 4.00e12 FLOPs`.

    Args:
        budgets: those meant, ascending.
        every: all there are, ascending.
        kind: of budget.
    """
    some = list(budgets)
    count = len(some)
    if count > 1 and some == list(every):
        return "at every budget"
    if count > 1 and some == list(every[-count:]):
        return f"from {amounts(some[:1], kind)} up"
    if count > 1 and some == list(every[:count]):
        return f"up to {amounts(some[-1:], kind)}"
    return f"at {amounts(some, kind)}"


def amounts(values: Sequence[float], kind: str) -> str:
    """Return budgets with their unit: `3.00e11 and 7.00e11 FLOPs`."""
    unit = {"flops": " FLOPs", "tokens": " tokens", "hours": ""}[kind]
    return numbers.listed([_amount(value, kind) for value in values]) + unit


def _amount(value: float, kind: str) -> str:
    """Return a budget without its unit where that is one and the same."""
    if kind == "hours":
        return numbers.time(3600 * value)
    return numbers.flops(value) if kind == "flops" else numbers.tokens(value)
