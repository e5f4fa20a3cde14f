"""GLUE's test rows as its server counts them: every row, in the order of the official files."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from kdjax.config import EvaluationConfig
from kdjax.config.suites import SuiteTask, suite_tasks
from kdjax.data.tasks.load import raw_tasks
from kdjax.errors import InputError
from kdjax.text import tfds


def check_test_rows(evaluation: EvaluationConfig, names: tuple[str, ...]) -> None:
    """Check that each task has its test rows, all of them, and in the order of the server.

    Args:
        evaluation: settings of the evaluation, with the place of GLUE.
        names: the tasks.

    Raises:
        InputError: a task has no test rows, another number of them, or their order is not known.
    """
    if evaluation.glue.startswith(tfds.PREFIX):
        raise InputError(
            f"evaluation.glue is {evaluation.glue}, and TFDS shuffles rows, expected the official "
            "files or the Hub's, in the order of GLUE's server: --glue DIR"
        )
    these_tasks = dataclasses.replace(evaluation, tasks={}, suite_tasks=names)
    without_test_rows = []
    for raw, task in zip(raw_tasks(these_tasks), suite_tasks("glue", names), strict=True):
        sources = raw.of_split("test")
        if {source.result for source in sources} != {result for result, _ in task.results}:
            without_test_rows.append(task)
        for source in sources:
            left_out: Counter[str] = Counter()
            rows = sum(1 for _ in source.rows(left_out))
            # A row that is left out would move all that come after it.
            if left_out:
                reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
                raise InputError(
                    f"task {raw.name}, {source.place}: of its test rows {reasons}, expected whole "
                    f"ones beside the other {rows:,}"
                )
    if without_test_rows:
        raise InputError(_without_test_rows(evaluation, without_test_rows, names))


def _without_test_rows(
    evaluation: EvaluationConfig, without: Sequence[SuiteTask], names: Sequence[str]
) -> str:
    """Return the sentence on tasks without test rows."""
    lacking = [task.name for task in without]
    rest = ",".join(name for name in names if name not in lacking)
    advice = f", or --tasks {rest}" if rest else ""
    return (
        f"evaluation.glue, {evaluation.glue}: without test rows: {', '.join(lacking)}; expected "
        f"their test files{advice}"
    )
