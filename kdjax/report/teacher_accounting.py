"""Who pays for the teacher: what runs cost in each case, and what the verdicts become there, in
sentences."""

from __future__ import annotations

from collections.abc import Sequence

from kdjax.report import numbers
from kdjax.report.sentences import places
from kdjax.report.usage import Cell, Column, Table
from kdjax.results.schema import Case, CaseVerdict, Results, SharedCaseVerdict

MEANINGS = {
    "nothing": "the student's steps alone: the teacher and what it says come free",
    "inference": "the student's steps, and the teacher's forward passes or a share of its stored outputs",  # noqa: E501
    "training": (
        "the student's steps, and a share of the teacher's training: what it says is stored and "
        "comes free"
    ),
    "both": (
        "the student's steps, the teacher's forward passes or stored outputs, and a share of its "
        "training"
    ),
}
"""What is paid for in each case."""


def costs(results: Results) -> Table:
    """What a run of each arm costs in each case."""
    other = results.baseline_arm

    def cell(case: Case, arm: str) -> Cell:
        at_least = "≥ " if arm in case.unknown else ""
        if other in case.unknown:
            return at_least + numbers.flops(case.costs[arm]), ""
        ratio = case.costs[arm] / case.costs[other]
        return at_least + numbers.times(ratio), f"{at_least}{numbers.flops(case.costs[arm])}"

    return Table(
        f"FLOPs of a run, relative to {other}",
        tuple(Column(case.case, "enforced" if case.enforced else "") for case in results.cases),
        {arm: [cell(case, arm) for case in results.cases] for arm in results.arms},
    )


def sentences(results: Results) -> dict[str, list[str]]:
    """Case -> what the study's verdicts become in it, a sentence for each verdict there is."""
    return {case.case: _sentences(results, case) for case in results.cases}


def terms(results: Results) -> list[str]:
    """What readers need to know to read the sentences."""
    found = {row.verdict for case in results.cases for row in case.verdicts}
    students = results.config["budget"]["students"]
    teacher = results.teacher
    said = [
        "Costs are of these very runs. Assumed: no arm would have done worse for spending more."
    ]
    if "INCONCLUSIVE" in found:
        said.append("What is inconclusive above is so in every case.")
    if "AT LEAST TIES" in found:
        said.append("Does at least as well: ties above, and costs less here.")
    if "OPEN" in found:
        said.append(
            "Open: the arm that does better here also costs more, or may, so these runs do not "
            "say which is better at "
            "the same cost."
        )
    if teacher and not teacher.training_flops:
        said.append(
            "What training the teacher cost is not known: where it is to be paid for, costs are "
            "more than those shown. "
            "teacher.training_flops sets it."
        )
    elif teacher:
        shared = (
            "is charged to each run in full"
            if students == 1
            else f"is shared by {students} students"
        )
        head = teacher.head_flops
        tuning = teacher.tuning_flops
        besides = f", tuning its encoder {numbers.flops(tuning)}" if tuning else ""
        besides += (
            f", and fitting its MLM head, for arms that use it, {numbers.flops(head)}"
            if head
            else ""
        )
        said.append(
            f"Training the teacher cost {numbers.flops(teacher.training_flops)} "
            f"FLOPs{besides}; where it is to be "
            f"paid for, that {shared}."
        )
    return said


def _sentences(results: Results, case: Case) -> list[str]:
    rows = case.verdicts
    before = results.verdicts
    if not rows:
        return ["Nothing was compared."]
    if all(
        getattr(row, name) == getattr(v, name)
        for row, v in zip(rows, before, strict=True)
        for name in ("a", "verdict", "b")
    ):
        return ["Every verdict is as above."]
    where: dict[tuple[str, str, str, str], list[str]] = {}
    for row, v in zip(rows, before, strict=True):
        if row.verdict != "INCONCLUSIVE":
            group, predicate = _predicate(row, v.verdict, case.unknown)
            where.setdefault((group, predicate, row.a, row.b), []).append(row.endpoint)
    losers: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for (group, predicate, a, b), names in where.items():
        losers.setdefault((group, predicate, a, tuple(names)), []).append(b)
    clauses: dict[str, list[str]] = {group: [] for group in _GROUPS}
    endpoints = {endpoint.name: endpoint for endpoint in results.endpoints}
    for (group, predicate, a, on), below in losers.items():
        found = places([endpoints[name] for name in on])
        clauses[group].append(predicate.format(a=a, b=numbers.listed(below), on=f"on {found}"))
    return [f"{_GROUPS[group]}{'; '.join(told)}." for group, told in clauses.items() if told]


_GROUPS = {
    "beats": "",
    "at least": "",
    "ties": "",
    "shared": "Open, unless enough students share the teacher's training: ",
    "never": "Open, however many students share the teacher's training: ",
    "open": "Open: ",
    "unknown": "Open, as costs are not known: ",
}
"""Kinds of sentences in their order -> how they begin."""


def _predicate(row: CaseVerdict, before: str, unknown: Sequence[str]) -> tuple[str, str]:
    """A verdict's kind of sentence, and the sentence, with places for the arms and for where it
    holds."""
    ratio = numbers.times(row.ratio)
    students = row.students if isinstance(row, SharedCaseVerdict) else None
    if row.verdict == "BEATS":
        return "beats", "{a} beats {b} {on}"
    if row.verdict == "TIES":
        return "ties", "{a} ties with {b} {on}"
    if row.verdict == "AT LEAST TIES":
        return "at least", "{a} does at least as well as {b} {on}, for " + ratio + " the cost"
    if students:
        return "shared", f"{{a}} beats {{b}} {{on}} with at least {students:,}"
    does = "{a} ties with {b} {on}" if before == "TIES" else "{a} does better than {b} {on}"
    if row.a in unknown or row.b in unknown:
        return "unknown", does
    group = "never" if isinstance(row, SharedCaseVerdict) else "open"
    return group, f"{does}, for {ratio} the cost"
