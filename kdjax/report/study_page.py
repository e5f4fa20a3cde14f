"""report.html: a study on one self-contained page, made from the content of results.json."""

from __future__ import annotations

from pathlib import Path

from kdjax.report import numbers, page, sentences
from kdjax.report.phrases import say, sentence
from kdjax.report.study_sections import study_sections
from kdjax.results.study import Results
from kdjax.storage.files import write_text


def write(results: Results, path: Path) -> None:
    """Write the report, whole or not at all; the same results give the same bytes.

    Args:
        results: the content of results.json.
        path: file to write.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, html(results))


def html(results: Results) -> str:
    """Make the page."""
    return page.render(
        "report.html.j2",
        results.arms,
        results.config,
        study_sections(results),
        results=results,
        headline=sentences.headline(results),
        basis=_basis(results),
        baseline=results.baseline_arm,
    )


def _basis(results: Results) -> str:
    """Return the sentence on what the verdicts rest on."""
    evaluation = results.config["evaluation"]
    # With a single seed there is no interval to rest on.
    counts = [verdict.n for verdict in results.verdicts if verdict.n > 1]
    if not counts:
        return say("basis_none")
    # On the primary endpoint a win over the baseline arm takes more than its interval.
    holm = ""
    if results.primary:
        level = numbers.percent(1 - evaluation["confidence"])
        holm = say("basis_holm", baseline=results.primary.baseline, level=level)
    basis = say(
        "basis",
        confidence=numbers.percent(evaluation["confidence"]),
        seeds=numbers.span(counts, str),
        count=sum(verdict.low is not None for verdict in results.verdicts),
        margin=evaluation["margin"],
        holm=holm,
    )
    return sentence(basis, say("basis_scope"))
