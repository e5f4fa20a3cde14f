"""What a study's results say of an arm beside the others, for the card of one of its runs."""

from __future__ import annotations

from kdjax.report import numbers, sentences, summary
from kdjax.report.phrases import counted
from kdjax.results.store import RESULTS, read_results
from kdjax.results.study import Results
from kdjax.study.runs.recorded_run import RecordedRun


def comparison_section(run: RecordedRun) -> str:
    """Return the card's section on the arm of a run beside the others, in Markdown.

    Raises:
        InputError: results.json is damaged.
    """
    path = run.study / RESULTS
    if not path.is_file():
        return "The study has no results yet that compare its arms."
    results = read_results(path)
    is_there = any(
        other.params_sha256 == run.result.params_sha256
        for other in results.runs
        if (other.arm, other.seed) == (run.result.arm, run.result.seed)
    )
    if not is_there:
        return "The study's results were written without this very run, and say nothing of it."
    seeds = {other.seed for other in results.runs if other.arm == run.result.arm}
    lines = [
        sentences.headline(results),
        "",
        f"That is said of arms, each over {counted(len(seeds), 'seed')}; this is the model of one "
        "seed.",
    ]
    rows = _rows(results, run.result.arm)
    if rows:
        lines += [
            "",
            f"| measure | `{run.result.arm}` against | difference | interval | seeds | verdict |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    return "\n".join(lines)


def _rows(results: Results, arm: str) -> list[str]:
    """Return a row for each measure and each other arm."""
    rows = []
    for endpoint in summary.main_endpoints(results):
        for other in results.arms:
            difference = summary.difference(results, endpoint, arm, other) if other != arm else None
            if difference is None or difference.mean is None:
                continue
            interval = "–"
            if difference.low is not None and difference.high is not None:
                interval = numbers.interval(difference.low, difference.high)
            rows.append(
                f"| {endpoint.name} ({endpoint.unit}, {endpoint.better} is better) | `{other}` | "
                f"{numbers.signed(difference.mean)} | {interval} | {difference.n} | "
                f"{difference.outcome} |"
            )
    return rows
