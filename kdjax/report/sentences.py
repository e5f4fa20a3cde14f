"""What a study says, in plain sentences made from its verdicts alone, so never more than the
intervals support."""

from __future__ import annotations

from collections.abc import Sequence, Set

from kdjax.report import numbers, summary
from kdjax.report.summary import task_of
from kdjax.results.schema import Endpoint, PairVerdict, Results

Pair = tuple[str, str]
"""Winner and loser."""

_KINDS = ("mlm_probe", "probe", "finetune", "mlm")
_MEASURES = {
    "mlm_probe": "MLM probe",
    "probe": "linear probes",
    "finetune": "fine-tuning",
    "mlm": "held-out MLM loss",
}
_LOSSES = ("mlm_probe", "mlm")
"""Kinds that are measured on texts, and not on tasks."""
_OWN_TEXT = "held-out text"
"""What the study's own text is called beside others."""
_PHRASES = {
    "beats": "beats {}",
    "loses": "loses to {}",
    "ties": "ties with {}",
    "unclear": "cannot be told from {}",
}


def headline(results: Results) -> str:
    """The study in a few sentences: which arms are ahead of which, by which measure, and where
    nothing can be told."""
    within = numbers.within(results.budget)
    verdicts = results.verdicts
    within = within[0].upper() + within[1:]
    if not verdicts:
        return (
            f"{within}, nothing was compared: a verdict needs two arms with an endpoint in common."
        )
    if all(v.n < 2 for v in verdicts):
        return (
            f"{within}, this study cannot tell the arms apart: "
            "an interval needs at least two seeds that both arms share, and no pair has them."
        )
    if all(v.verdict == "TIES" for v in verdicts):
        return (
            f"{within}, every pair of arms ties on every endpoint: each interval lies within the "
            "margin."
        )
    if all(v.verdict != "BEATS" for v in verdicts):
        ties = sum(v.verdict == "TIES" for v in verdicts)
        why = (
            f"{ties} of {len(verdicts)} comparisons tie, the others are inconclusive"
            if ties
            else "no pair is separated"
        )
        return f"{within}, this study cannot tell which arm is better: {why}."
    clauses = [clause for kind in _KINDS if (clause := _clause(results, kind))]
    told = [text for text, separates in clauses if separates]
    untold = [text for text, separates in clauses if not separates]
    return " ".join(
        [f"{within}, {told[0]}.", *(f"{text[0].upper()}{text[1:]}." for text in told[1:] + untold)]
    )


def answers(results: Results) -> dict[str, str]:
    """Arm -> how it does against the yardstick (pretraining from scratch, if an arm does that),
    with every interval."""
    other = results.baseline_arm
    found = {arm: _answer(results, arm, other) for arm in results.arms if arm != other}
    return {arm: sentence for arm, sentence in found.items() if sentence}


def places(endpoints: Sequence[Endpoint]) -> str:
    """Endpoints in words, by what they measure: `linear probes (topic, mood) and held-out MLM
    loss`."""
    tasks: dict[str, list[str]] = {}
    for endpoint in _ordered(endpoints):
        tasks.setdefault(endpoint.kind, []).append(task_of(endpoint))
    named = {
        kind: ", ".join(name or _OWN_TEXT for name in found) if any(found) else ""
        for kind, found in tasks.items()
    }
    return numbers.listed(
        [_MEASURES[kind] + (f" ({names})" if names else "") for kind, names in named.items()]
    )


def _answer(results: Results, arm: str, other: str) -> str:
    named: dict[str, dict[str, list[str]]] = {}
    for endpoint in _ordered(results.endpoints):
        found = summary.difference(results, endpoint, arm, other)
        if found is None:
            continue
        shown = [task_of(endpoint)] + ([] if found.mean is None else [numbers.signed(found.mean)])
        if found.low is not None and found.high is not None:
            shown.append(numbers.interval(found.low, found.high))
        text = numbers.NO_BREAK.join(filter(None, shown)) or "no shared seed"
        named.setdefault(found.outcome, {}).setdefault(endpoint.kind, []).append(text)
    clauses: list[str] = []
    for outcome, phrase in _PHRASES.items():
        if outcome in named:
            measured = [
                f"{_MEASURES[kind]} ({', '.join(texts)})" for kind, texts in named[outcome].items()
            ]
            clauses.append(
                f"{phrase.format('it' if clauses else other)} on {numbers.listed(measured)}"
            )
    return f"{arm} {'; '.join(clauses)}." if clauses else ""


def _clause(results: Results, kind: str) -> tuple[str, bool] | None:
    """What one kind of endpoint says of the pairs, and whether it separates any; None if it
    compares nothing."""
    endpoints = [e for e in results.endpoints if e.kind == kind]
    verdicts = {e.name: [v for v in results.verdicts if v.endpoint == e.name] for e in endpoints}
    endpoints = [e for e in endpoints if verdicts[e.name]]
    if not endpoints:
        return None
    beats = {
        e.name: {(v.a, v.b) for v in verdicts[e.name] if v.verdict == "BEATS"} for e in endpoints
    }
    subject = _subject(endpoints)
    plural = kind == "probe" and len(endpoints) > 1
    put = "put" if plural else "puts"
    if not any(beats.values()):
        return (
            f"{subject} {_undecided([v for e in endpoints for v in verdicts[e.name]], plural)}",
            False,
        )
    order = list(results.arms)
    if len(endpoints) == 1:
        return f"{subject} {put} {_relations(beats[endpoints[0].name], order)}", True
    common = set.intersection(*beats.values())
    noun = "texts" if kind in _LOSSES else "tasks"
    rest = {task_of(e) or _OWN_TEXT: beats[e.name] - common for e in endpoints}
    if common:
        everywhere = (
            f"{_relations(common, order)} on "
            f"{'both' if len(endpoints) == 2 else f'all {len(endpoints)}'} {noun}"
        )
        also = "; ".join(
            f"on {task}, also {_relations(more, order)}" for task, more in rest.items() if more
        )
        return f"{subject} {put} {everywhere}" + (f" ({also})" if also else ""), True
    pronoun = "they" if plural else "it"
    by_task: list[str] = []
    for task, found in rest.items():
        verb = (
            f"{put} {_relations(found, order)}"
            if found
            else f"separate{'' if plural else 's'} no pair"
        )
        by_task.append(f"on {task}, {pronoun if by_task else subject} {verb}")
    return "; ".join(by_task), True


def _undecided(verdicts: Sequence[PairVerdict], plural: bool) -> str:
    """The predicate of a kind of endpoint on which nothing beats anything."""
    s = "" if plural else "s"
    pairs = {frozenset((v.a, v.b)) for v in verdicts}
    ties = sum(v.verdict == "TIES" for v in verdicts)
    if len(pairs) == 1:
        names = f"{verdicts[0].a} and {verdicts[0].b}"
        return (
            f"show{s} {names} to tie"
            if ties == len(verdicts)
            else f"do{'' if plural else 'es'} not separate {names}"
        )
    if ties == len(verdicts):
        return f"show{s} every pair to tie"
    return f"separate{s} no pair" + (
        f" ({ties} of {len(verdicts)} comparisons tie)" if ties else ""
    )


def _relations(beats: Set[Pair], order: list[str]) -> str:
    """`a ahead of b and c`, `a ahead of b ahead of c` where arms form tiers, or winner by winner
    where they do not."""
    losers = {arm: frozenset(b for a, b in beats if a == arm) for arm in order}
    winners = {arm: frozenset(a for a, b in beats if b == arm) for arm in order}
    tiers: dict[tuple[frozenset[str], frozenset[str]], list[str]] = {}
    for arm in sorted(order, key=lambda arm: len(winners[arm])):
        if losers[arm] or winners[arm]:
            tiers.setdefault((winners[arm], losers[arm]), []).append(arm)
    ranked = list(tiers.values())
    implied = {
        (a, b)
        for n, tier in enumerate(ranked)
        for lower in ranked[n + 1 :]
        for a in tier
        for b in lower
    }
    if implied == beats:
        return " ahead of ".join(numbers.listed(tier) for tier in ranked)
    together: dict[frozenset[str], list[str]] = {}
    for arm in order:
        if losers[arm]:
            together.setdefault(losers[arm], []).append(arm)
    parts = [
        f"{numbers.listed(arms)} ahead of {numbers.listed([arm for arm in order if arm in below])}"
        for below, arms in together.items()
    ]
    return ", and ".join(parts)


def _subject(endpoints: Sequence[Endpoint]) -> str:
    kind = endpoints[0].kind
    if kind in _LOSSES:
        return f"the {_MEASURES[kind]}"
    if len(endpoints) > 1:
        return _MEASURES[kind]
    return f"{'the linear probe' if kind == 'probe' else 'fine-tuning'} on {task_of(endpoints[0])}"


def _ordered(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    return sorted(endpoints, key=lambda e: _KINDS.index(e.kind))
