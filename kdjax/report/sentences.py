"""A study's verdicts in words, from its intervals alone, so never more than these support."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

from kdjax.config.suites import SUITE_TITLES
from kdjax.evaluation.statistics import Verdict
from kdjax.report import numbers, summary
from kdjax.report.phrases import MEASURES, OWN_TEXT, capitalized, listed, say
from kdjax.report.summary import task_of
from kdjax.results.runs import diverged_arms
from kdjax.results.study import Results
from kdjax.results.verdicts import Endpoint, PairVerdict

_KINDS = list(MEASURES)


def headline(results: Results) -> str:
    """Return the sentences on which arm BEATS which by which measure, or that none is."""
    budget = capitalized(numbers.budget_phrase(results.budget))
    # Tasks of a suite with a mean have tables of their own: what is said is of the mean.
    names = {endpoint.name for endpoint in summary.main_endpoints(results)}
    verdicts = [verdict for verdict in results.verdicts if verdict.endpoint in names]
    outcomes = Counter(verdict.verdict for verdict in verdicts)
    if not verdicts:
        statement = say("nothing_compared")
    elif all(verdict.n < 2 for verdict in verdicts):
        statement = say("no_interval")
    elif outcomes["TIES"] == len(verdicts):
        statement = say("all_tie")
    elif not outcomes["BEATS"]:
        statement = say("no_winner", outcomes=counted_outcomes(outcomes))
    else:
        first, *others = _statements(results)
        statement = ". ".join([first, *map(capitalized, others)])
    text = f"{budget}, {statement}."

    # A study that is looked at before it is whole may still say something else.
    planned = results.config["evaluation"].get("planned_seeds", 0)
    seeds = len(results.config["seeds"])
    if seeds < planned:
        return say("provisional", seeds=seeds, planned=planned, headline=text)
    return text


def answers(results: Results) -> dict[str, str]:
    """Return arm -> the sentence on it against the baseline arm, with every interval."""
    baseline = results.baseline_arm
    sentences = {}
    for arm in results.arms:
        if outcomes := _outcomes(results, arm, baseline):
            sentences[arm] = say("answer", arm=arm, baseline=baseline, outcomes="; ".join(outcomes))
    return sentences


def measures(endpoints: Iterable[Endpoint]) -> str:
    """Return endpoints by what they measure: `linear probes (topic, mood) and MLM probe`."""
    tasks: dict[str, list[str]] = {}
    for endpoint in _ordered(endpoints):
        tasks.setdefault(endpoint.kind, []).append(_named(endpoint))
    named = []
    for kind, names in tasks.items():
        text = MEASURES[kind]
        # A study's own text goes without saying where it is the only one.
        if any(names):
            text += f" ({', '.join(name or OWN_TEXT for name in names)})"
        named.append(text)
    return listed(named)


def _statements(results: Results) -> list[str]:
    """Return a statement for each kind of endpoint; what shows nothing shares one."""
    pairs: dict[tuple[str, str], list[Endpoint]] = {}
    for endpoint in _ordered(summary.main_endpoints(results)):
        verdicts = [verdict for verdict in results.verdicts if verdict.endpoint == endpoint.name]
        if verdicts:
            relations = _by_family(verdicts, results)
            pairs.setdefault((endpoint.kind, relations), []).append(endpoint)

    # Arms that are told apart come before what shows nothing.
    separated: list[str] = []
    undecided: list[Endpoint] = []
    for (_, relations), endpoints in pairs.items():
        if relations:
            text = measures(endpoints)
            separated.append(say("separated", relations=relations, measures=text))
        else:
            undecided += endpoints
    if not undecided:
        return separated
    names = {endpoint.name for endpoint in undecided}
    outcomes = Counter(verdict.verdict for verdict in results.verdicts if verdict.endpoint in names)
    nothing = say(
        "not_separated", measures=measures(undecided), outcomes=counted_outcomes(outcomes)
    )
    return [*separated, nothing]


def counted_outcomes(outcomes: Mapping[Verdict, int]) -> str:
    """Return how often comparisons without a winner have each verdict; those of none are left out.

    Args:
        outcomes: verdict -> comparisons that have it; at least one of TIES, INCONCLUSIVE and NOT
            LEARNT.

    Returns:
        For instance `TIES in 1 of 2 comparisons, INCONCLUSIVE in 1`.
    """
    present = {name: count for name, count in outcomes.items() if count}
    whole = sum(present.values())
    if len(present) == 1:
        (only,) = present
        return say("all_outcomes" if whole > 1 else "only_outcome", verdict=only, count=whole)
    order: tuple[Verdict, ...] = ("TIES", "INCONCLUSIVE", "NOT LEARNT")
    clauses: list[str] = []
    for verdict in order:
        if verdict in present:
            phrase = "more_outcomes" if clauses else "some_outcomes"
            clauses.append(say(phrase, verdict=verdict, count=present[verdict], whole=whole))
    return ", ".join(clauses)


def _by_family(verdicts: Sequence[PairVerdict], results: Results) -> str:
    """Return an endpoint's pairs (winner, loser); secondary ones are labelled, and come last."""
    wins: dict[bool, set[tuple[str, str]]] = {False: set(), True: set()}
    # Without confirmatory tests all are alike, and need no label.
    has_confirmatory = any(verdict.family == "confirmatory" for verdict in results.verdicts)
    for verdict in verdicts:
        if verdict.verdict == "BEATS":
            is_secondary = has_confirmatory and verdict.family == "secondary"
            wins[is_secondary].add((verdict.a, verdict.b))
    relations = [_relations(wins[False], results)]
    if wins[True]:
        relations.append(say("secondary", relations=_relations(wins[True], results)))
    return "; ".join(filter(None, relations))


def _relations(wins: Set[tuple[str, str]], results: Results) -> str:
    """Return pairs (winner, loser), best arms first: `a BEATS b and c; b BEATS c`."""
    winners: dict[str, list[str]] = {}
    for arm in results.arms:
        beaten = [other for other in results.arms if (arm, other) in wins]
        if beaten:
            winners[arm] = beaten
    relations = []
    for arm, beaten in sorted(winners.items(), key=lambda item: -len(item[1])):
        relations.append(say("beats", arm=arm, others=listed(beaten)))
    return "; ".join(relations)


def _outcomes(results: Results, arm: str, baseline: str) -> list[str]:
    """Return a clause for each outcome of an arm against another: endpoints and differences."""
    # In the order of sentences: what an arm wins comes before what it loses.
    grouped: dict[str, dict[str, list[str]]] = {
        "BEATS": {},
        "LOSES": {},
        "TIES": {},
        "NOT LEARNT": {},
        "INCONCLUSIVE": {},
    }
    for endpoint in _ordered(summary.main_endpoints(results)):
        difference = summary.difference(results, endpoint, arm, baseline)
        if difference is None:
            continue
        texts = [_named(endpoint).replace(" ", numbers.NO_BREAK), "no shared seed"]
        if {arm, baseline} & diverged_arms(results.runs):
            texts[1] = "diverged"
        if difference.mean is not None:
            texts[1] = numbers.signed(difference.mean)
        if difference.low is not None and difference.high is not None:
            texts.append(numbers.interval(difference.low, difference.high))
        text = numbers.NO_BREAK.join(filter(None, texts))
        grouped[difference.outcome].setdefault(endpoint.kind, []).append(text)
    outcomes = []
    for outcome, by_kind in grouped.items():
        kinds = [f"{MEASURES[kind]} ({', '.join(texts)})" for kind, texts in by_kind.items()]
        if kinds:
            outcomes.append(say("outcome", outcome=outcome, measures=listed(kinds)))
    return outcomes


def _named(endpoint: Endpoint) -> str:
    """Return the name of an endpoint's task or text in sentences; of a suite's mean its title."""
    task = task_of(endpoint)
    mean = f"{SUITE_TITLES.get(task, '')} mean"
    # A task of one's own may have a suite's name.
    return mean if endpoint.label.startswith(f"{mean},") else task


def _ordered(endpoints: Iterable[Endpoint]) -> Sequence[Endpoint]:
    """Sort endpoints by kind."""
    return sorted(endpoints, key=lambda endpoint: _KINDS.index(endpoint.kind))
