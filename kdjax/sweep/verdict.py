"""What a sweep says, in plain sentences made from its intervals alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kdjax.evaluation.statistics import ArmVerdict
from kdjax.report import gaps, notes, numbers
from kdjax.report.phrases import listed, listed_settings
from kdjax.report.sentences import measures
from kdjax.results.verdicts import Endpoint
from kdjax.sweep.phrases import say
from kdjax.sweep.schema import ArmPair, Group, PairPoint, SweepResults

_VERDICTS: tuple[ArmVerdict, ...] = ("BEATS", "LOSES", "TIES", "NOT LEARNT", "INCONCLUSIVE")
"""Verdicts in the order in which sentences have them."""
_UNITS = {"flops": " FLOPs", "tokens": " tokens", "hours": ""}
"""Words behind budgets, by their kind."""
_FEW = 4
"""Most comparisons that have a sentence each in the headline; more are counted."""


@dataclass(frozen=True)
class _Compared:
    """Arms against the baseline arm, on one endpoint in one group of studies."""

    group: Group
    endpoint: Endpoint
    pairs: Mapping[str, ArmPair]


def pairs_with_baseline(group: Group, endpoint: Endpoint, baseline: str) -> dict[str, ArmPair]:
    """Return arm -> its pair with the baseline arm on an endpoint, read from the arm's side.

    Args:
        group: studies that differ in their budget only.
        endpoint: endpoint of the pairs.
        baseline: name of the baseline arm.
    """
    pairs = {}
    for pair in group.pairs:
        if pair.endpoint == endpoint.name and pair.b == baseline:
            pairs[pair.a] = pair
        elif pair.endpoint == endpoint.name and pair.a == baseline:
            pairs[pair.b] = _turned(pair)
    return pairs


def _turned(pair: ArmPair) -> ArmPair:
    """Return the same pair, read from the other arm's side."""
    crossings = tuple(replace(crossing, rising=not crossing.rising) for crossing in pair.crossings)
    return replace(
        pair,
        a=pair.b,
        b=pair.a,
        points=tuple(point.turned() for point in pair.points),
        crossings=crossings,
    )


def divergences(sweep: SweepResults) -> list[str]:
    """Return a sentence on each arm of each study with runs that diverged."""
    sentences = []
    for cell in sweep.cells:
        runs = [row for row in sweep.rows if row.cell == cell.name]
        sentences += [f"{cell.name}: {sentence}" for sentence in notes.divergences(runs)]
    return sentences


def points_of(sweep: SweepResults) -> Iterator[PairPoint]:
    """Yield every difference of two arms at a budget."""
    for group in sweep.groups:
        for pair in group.pairs:
            yield from pair.points


def headline(sweep: SweepResults) -> str:
    """Return the sentences on each arm against the baseline arm over the budgets."""
    baseline = sweep.baseline_arm
    compared = _compared(sweep)
    points: list[PairPoint] = []
    arms: dict[str, None] = {}  # in their order, each once
    for comparison in compared:
        for arm, pair in comparison.pairs.items():
            points += pair.points
            arms[arm] = None

    # Where nothing can be told, one sentence says so.
    if not points:
        return say("sweep_nothing", baseline=baseline)
    if all(point.n < 2 for point in points):
        return say("sweep_no_interval")
    if all(point.verdict == "INCONCLUSIVE" for point in points):
        return say("sweep_undecided", arms=listed(arms), baseline=baseline)
    if len(compared) > _FEW:
        return _counted(compared, baseline)
    return " ".join(_on(comparison, sweep.kind, baseline) for comparison in compared)


def _compared(sweep: SweepResults) -> list[_Compared]:
    """Return the comparisons with the baseline arm, group by group."""
    compared = []
    for group in sweep.groups:
        for endpoint in sweep.endpoints:
            pairs = pairs_with_baseline(group, endpoint, sweep.baseline_arm)
            if pairs:
                compared.append(_Compared(group, endpoint, pairs))
    return compared


def _on(compared: _Compared, kind: str, baseline: str) -> str:
    """Return the sentence on one endpoint, with a clause for each arm."""
    clauses = []
    for arm, pair in compared.pairs.items():
        outcome = _outcome(pair, kind, fold_undecided=True) + _crossed(pair, kind)
        clauses.append(say("sweep_arm", arm=arm, outcome=outcome))

    # The endpoint is named, and the settings where other groups have other ones.
    settings = listed_settings(compared.group.settings)
    place = ", ".join(filter(None, [measures([compared.endpoint]), settings]))
    return say("sweep_endpoint", baseline=baseline, where=place, clauses="; ".join(clauses))


def _counted(compared: Sequence[_Compared], baseline: str) -> str:
    """Return the sentence that counts each arm's verdicts, where comparisons are many."""
    verdicts: dict[str, list[str]] = {}
    for comparison in compared:
        for arm, pair in comparison.pairs.items():
            verdicts.setdefault(arm, []).extend(point.verdict for point in pair.points)
    clauses = []
    for arm, every in verdicts.items():
        counts = [
            say("sweep_count", outcome=say(f"sweep_{verdict}"), count=every.count(verdict))
            for verdict in _VERDICTS
            if verdict in every
        ]
        clauses.append(say("sweep_counts", arm=arm, counts=", ".join(counts), total=len(every)))
    return say("sweep_counted", baseline=baseline, clauses="; ".join(clauses))


def sentences(sweep: SweepResults, group: Group, endpoint: Endpoint) -> list[str]:
    """Return a sentence a pair of arms: who BEATS whom at which budgets, and where means cross.

    Pairs with the baseline arm come first and are read from the other arm's side.

    Args:
        sweep: sweep of the group.
        group: studies that differ in their budget only.
        endpoint: endpoint of the pairs.
    """
    baseline = sweep.baseline_arm
    pairs = list(pairs_with_baseline(group, endpoint, baseline).values())
    for pair in group.pairs:
        if pair.endpoint == endpoint.name and baseline not in (pair.a, pair.b):
            pairs.append(pair)
    texts = []
    for pair in pairs:
        outcome = _outcome(pair, sweep.kind) + _crossed(pair, sweep.kind, every=True)
        texts.append(say("sweep_pair", a=pair.a, b=pair.b, outcome=outcome))
    return texts


def gap_sentences(sweep: SweepResults) -> list[str]:
    """Return a sentence on each gap to the baseline arm at a setting's last value and its first.

    Args:
        sweep: the sweep.
    """
    endpoints = {endpoint.name: endpoint for endpoint in sweep.endpoints}
    return [gaps.sentence(change, endpoints[change.endpoint]) for change in sweep.gaps]


def _outcome(pair: ArmPair, kind: str, *, fold_undecided: bool = False) -> str:
    """Return the budgets at which a pair is decided: `BEATS up to 7.00e11 FLOPs, INCONCLUSIVE at
    1.70e12 FLOPs`.

    Args:
        pair: pair of arms, read from the first arm's side.
        kind: kind of budget.
        fold_undecided: whether undecided budgets stay unnamed where others are decided.
    """
    every = [point.budget for point in pair.points]
    clauses: list[str] = []
    for verdict in _VERDICTS:
        budgets = [point.budget for point in pair.points if point.verdict == verdict]
        if budgets and clauses and fold_undecided and verdict == "INCONCLUSIVE":
            clauses.append(say("sweep_otherwise"))
        elif budgets:
            clauses.append(f"{say(f'sweep_{verdict}')} {budgets_in_words(budgets, every, kind)}")
    return ", ".join(clauses)


def _crossed(pair: ArmPair, kind: str, every: bool = False) -> str:
    """Return the crossings of means as text; unless `every`, only those with both ends closed."""
    # An open end of a crossing lies beyond the budgets looked at.
    ends = (pair.points[0].budget, pair.points[-1].budget)
    texts = []
    for crossing in pair.crossings:
        is_closed = crossing.low is not None and crossing.high is not None
        if every or is_closed:
            interval = crossing_text(crossing.low, crossing.high, ends, kind)
            texts.append(f"{budgets_text([crossing.at], kind)} {interval}")
    if not texts:
        return ""
    return say("crossed", crossings=listed(texts))


def crossing_text(
    low: float | None,
    high: float | None,
    ends: tuple[float, float],
    kind: str,
    above: str = "above",
) -> str:
    """Return a crossing's interval as text.

    Args:
        low: lower end of the interval; None where it is open.
        high: upper end; None where it is open.
        ends: smallest and largest budget looked at, beyond which an open end lies.
        kind: kind of budget.
        above: phrase for an open upper end.
    """
    # With two open ends a bracket would hold nothing but the budgets looked at.
    if low is None and high is None:
        return say("open_ends")
    lower = say("below", amount=_amount(ends[0], kind)) if low is None else _amount(low, kind)
    upper = say(above, amount=_amount(ends[1], kind)) if high is None else _amount(high, kind)
    return f"[{lower}, {upper}]"


def budgets_in_words(budgets: Sequence[float], every: Sequence[float], kind: str) -> str:
    """Return some of the budgets: `at every budget`, `from 1.70e12 FLOPs up`, `at 3.00e11 FLOPs`.

    Args:
        budgets: the budgets meant, ascending.
        every: all budgets, ascending.
        kind: kind of budget.
    """
    # A single budget is named; several are a range where they are neighbours at either end.
    count = len(budgets)
    if count > 1 and list(budgets) == list(every):
        return say("at_every")
    if count > 1 and list(budgets) == list(every[-count:]):
        return say("from_up", amounts=budgets_text(budgets[:1], kind))
    if count > 1 and list(budgets) == list(every[:count]):
        return say("up_to", amounts=budgets_text(budgets[-1:], kind))
    return say("at", amounts=budgets_text(budgets, kind))


def budgets_text(values: Sequence[float], kind: str) -> str:
    """Return budgets with their unit: `3.00e11 and 7.00e11 FLOPs`."""
    return listed([_amount(value, kind) for value in values]) + _UNITS[kind]


def _amount(value: float, kind: str) -> str:
    """Return a budget as text without its unit; hours keep theirs, which differ."""
    if kind == "hours":
        return numbers.time(3600 * value)
    if kind == "tokens":
        return numbers.tokens(value)
    return numbers.flops(value)
