"""report.html of a study in progress: which runs are finished, and what they measured.

It names no winner. Whoever looks at verdicts while seeds are still missing, and stops where they
please, errs more often than the verdicts say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.report import notes, numbers, page
from kdjax.report.phrases import counted, say
from kdjax.report.usage import Column, Table, TableCell
from kdjax.results.runs import RunResult


def html(
    rows: Sequence[RunResult], planned: Sequence[tuple[str, int]], config: Mapping[str, Any]
) -> str:
    """Make the page.

    Args:
        rows: finished runs.
        planned: arm and seed of every run, finished or not.
        config: resolved recipe as plain values.
    """
    arms = list(dict.fromkeys(arm for arm, _ in planned))
    return page.render(
        "progress.html.j2",
        arms,
        config,
        headline=say("progress", finished=len(rows), planned=counted(len(planned), "run")),
        no_verdict=say("progress_no_verdict"),
        divergences=notes.divergences(rows),
        table=_arms(rows, planned, arms),
        rows=rows,
        endpoints=sorted({name for row in rows for name in row.metrics}),
    )


def _arms(
    rows: Sequence[RunResult], planned: Sequence[tuple[str, int]], arms: Sequence[str]
) -> Table:
    """Return the table of how far each arm is."""
    cells: dict[str, list[TableCell]] = {}
    for arm in arms:
        finished = [row.seed for row in rows if row.arm == arm]
        missing = [seed for name, seed in planned if name == arm and seed not in finished]
        steps = [row.steps for row in rows if row.arm == arm]
        cells[arm] = [
            (f"{len(finished)} of {len(finished) + len(missing)}", ""),
            (", ".join(map(str, missing)) or "–", ""),
            (numbers.span(steps, numbers.count) if steps else "–", ""),
        ]
    columns = (Column("finished runs"), Column("missing seeds"), Column("steps"))
    return Table(say("progress_arms"), columns, cells)
