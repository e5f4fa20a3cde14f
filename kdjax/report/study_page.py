"""report.html: a study on one self-contained page, made from the content of results.json."""

from __future__ import annotations

from pathlib import Path

from kdjax.report import lead, margins, numbers, page
from kdjax.report.case_words import case_names
from kdjax.report.page_data import page_data
from kdjax.report.page_scripts import as_json, scripts
from kdjax.report.phrases import listed, say, sentence
from kdjax.report.study_sections import study_sections
from kdjax.results.study import Results
from kdjax.storage.files import write_text

PAGE = "report.html"
"""File of a study's page, in its directory."""


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
        scripts=scripts(),
        results=results,
        question=lead.question(results),
        scope=lead.scope(results),
        answers=lead.answers(results),
        data=as_json(page_data(results)),
        basis=basis(results),
        baseline=results.baseline_arm,
        case_names=case_names(results),
    )


def basis(results: Results) -> str:
    """Return the sentence on what the verdicts rest on."""
    evaluation = results.config["evaluation"]
    # With a single seed there is no interval to rest on.
    counts = [verdict.n for verdict in results.verdicts if verdict.n > 1]
    if not counts:
        return say("basis_none")
    fields = {
        "confidence": numbers.percent(evaluation["confidence"]),
        "seeds": numbers.span(counts, str),
        "count": sum(verdict.low is not None for verdict in results.verdicts),
    }
    # Verdicts of earlier versions have no family.
    if any(verdict.family is None for verdict in results.verdicts):
        return sentence(say("basis_earlier", **fields), say("basis_scope"))
    basis = say(
        "basis",
        level=numbers.percent(1 - evaluation["confidence"]),
        families=_families(results),
        margins=margins.text(results.config, results.endpoints),
        **fields,
    )
    return sentence(basis, say("basis_scope"))


def _families(results: Results) -> str:
    """Return the sentence on which comparisons are confirmatory, and how families are adjusted."""
    confirmatory = sum(test.family == "confirmatory" for test in results.verdicts)
    hypotheses = sum(test.family == "confirmatory" for test in results.contrasts)
    secondary = sum(test.family == "secondary" for test in results.verdicts)
    secondary += sum(test.family == "secondary" for test in results.contrasts)
    if not confirmatory and not hypotheses:
        return say("basis_one_family")
    named = []
    primary = next((e for e in results.endpoints if e.name == results.primary), None)
    if primary is not None:
        named.append(say("basis_what_primary", label=primary.label, baseline=results.baseline_arm))
    if hypotheses:
        named.append(say("basis_what_hypotheses"))
    return say(
        "basis_families",
        confirmatory=confirmatory,
        what=listed(named),
        secondary=secondary,
    )
