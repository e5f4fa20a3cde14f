"""Who pays for the teacher: what runs cost in each case, and what the verdicts become there."""

from __future__ import annotations

from collections.abc import Sequence

from kdjax.budget.accounting import CASES
from kdjax.report import numbers
from kdjax.report.phrases import counted, listed, say
from kdjax.report.sentences import measures
from kdjax.report.usage import Column, Table, TableCell
from kdjax.results.study import Results
from kdjax.results.verdicts import Case, CaseVerdict, SharedCaseVerdict

MEANINGS = {case: say(f"pays_{case}") for case in CASES}
"""Case of who pays for the teacher -> what is paid for."""

_GROUPS = ("group", "group_shared", "group_never", "group_open", "group_unknown")
"""Phrases that sentences of a case begin with, in their order."""


def costs(results: Results) -> Table:
    """Return the table of what a run of each arm costs in each case."""
    rows = {}
    for arm in results.arms:
        rows[arm] = [_cost(results, case, arm) for case in results.cases]
    columns = []
    for case in results.cases:
        note = "enforced" if case.enforced else ""
        columns.append(Column(case.case, note))
    caption = f"FLOPs of a run, relative to {results.baseline_arm}"
    return Table(caption, tuple(columns), rows)


def _cost(results: Results, case: Case, arm: str) -> TableCell:
    """Return an arm's cost in one case, relative to the baseline arm where that is known."""
    baseline = results.baseline_arm
    # An unknown teacher's training adds to what is known, so that is a lower bound.
    at_least = "≥ " if arm in case.unknown else ""
    flops = at_least + numbers.flops(case.costs[arm])
    if baseline in case.unknown:
        return flops, ""
    return at_least + numbers.ratio(case.costs[arm] / case.costs[baseline]), flops


def sentences(results: Results) -> dict[str, list[str]]:
    """Return, for each case, the sentences on what the study's verdicts become in it."""
    return {case.case: _sentences(results, case) for case in results.cases}


def terms(results: Results) -> list[str]:
    """Return a sentence for each word of the section, and one on the teacher's cost."""
    verdicts: set[str] = set()
    for case in results.cases:
        verdicts.update(row.verdict for row in case.verdicts)
    # Words that no verdict of this study has need no explanation.
    notes = [say("terms")]
    for verdict in ("INCONCLUSIVE", "NOT LEARNT", "AT LEAST TIES", "OPEN"):
        if verdict in verdicts:
            notes.append(say(f"term_{verdict}"))

    # What the teacher cost, part by part, and how many students share that.
    teacher = results.teacher
    if teacher is None:
        return notes
    if not teacher.training_flops:
        return [*notes, say("training_unknown")]
    costs = {
        "cost_training": teacher.training_flops,
        "cost_tuning": teacher.tuning_flops,
        "cost_head": teacher.head_flops,
    }
    parts = [say(name, flops=numbers.flops(flops)) for name, flops in costs.items() if flops]
    students = counted(results.config["budget"]["students"], "student")
    return [*notes, say("training_cost", costs=", ".join(parts), students=students)]


def _sentences(results: Results, case: Case) -> list[str]:
    """Return the sentences on the study's verdicts in one case, one for each group of phrases."""
    if not case.verdicts:
        return [say("case_nothing")]
    pairs = list(zip(case.verdicts, results.verdicts, strict=True))
    if all((row.a, row.verdict, row.b) == (v.a, v.verdict, v.b) for row, v in pairs):
        return [say("case_same")]

    # Endpoints of the same statement on a pair, then losers of the same statement on the same
    # endpoints share a clause.
    endpoints: dict[tuple[str, str, str, str, str], list[str]] = {}
    for row, verdict in pairs:
        if row.verdict not in ("INCONCLUSIVE", "NOT LEARNT"):
            statement = (*_statement(row, verdict.verdict, case.unknown), row.a, row.b)
            endpoints.setdefault(statement, []).append(row.endpoint)
    losers: dict[tuple[str, str, str, str, tuple[str, ...]], list[str]] = {}
    for (group, phrase, cost, a, b), shared in endpoints.items():
        losers.setdefault((group, phrase, cost, a, tuple(shared)), []).append(b)
    clauses: dict[str, list[str]] = {group: [] for group in _GROUPS}
    for (group, phrase, cost, a, names), others in losers.items():
        fields = {"a": a, "others": listed(others), "cost": cost, "students": cost}
        measured = measures(endpoint for endpoint in results.endpoints if endpoint.name in names)
        clauses[group].append(say(phrase, measures=measured, **fields))
    return [f"{say(group)}{'; '.join(texts)}." for group, texts in clauses.items() if texts]


def _statement(row: CaseVerdict, before: str, unknown: Sequence[str]) -> tuple[str, str, str]:
    """Return the group of a verdict's sentence, its phrase, and the phrase's cost or students."""
    cost = say("case_cost", ratio=numbers.ratio(row.ratio))
    if row.verdict in ("BEATS", "TIES"):
        return "group", f"case_{row.verdict}", ""
    if row.verdict == "AT LEAST TIES":
        return "group", "case_AT LEAST TIES", cost
    if isinstance(row, SharedCaseVerdict) and row.students:
        return "group_shared", "case_shared", numbers.count(row.students)
    # Open: the arm that was better above costs more here, or may.
    phrase = "case_OPEN_TIES" if before == "TIES" else "case_OPEN"
    if row.a in unknown or row.b in unknown:
        return "group_unknown", phrase, ""
    if isinstance(row, SharedCaseVerdict):
        return "group_never", phrase, cost
    return "group_open", phrase, cost
