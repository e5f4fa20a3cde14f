"""report.html: a study on one self-contained page, made from the content of results.json."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from kdjax.budget.accounting import ACCOUNTS
from kdjax.report import (
    averages,
    contamination_table,
    margins,
    mlm_probe,
    ngram_losses,
    notes,
    numbers,
    page,
    pair_tables,
    primary_endpoint,
    score_tables,
    sentences,
    summary,
    svg,
    task_tables,
    teacher_accounting,
    usage,
    wall_clock,
    words,
)
from kdjax.report.figures import differences, layers, learning, spending
from kdjax.report.phrases import listed, say, sentence
from kdjax.results.runs import head_loss, probed_layers
from kdjax.results.study import Results
from kdjax.results.verdicts import Endpoint, PairVerdict
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
    baseline = results.baseline_arm
    scores = score_tables.tables(results)
    suites = task_tables.tables(results)
    return page.render(
        "report.html.j2",
        results.arms,
        results.config,
        results=results,
        headline=sentences.headline(results),
        basis=_basis(results),
        baseline=baseline,
        question=_question(results, baseline),
        answers=sentences.answers(results),
        tested=primary_endpoint.sentences(results),
        contrasts=primary_endpoint.contrasts(results),
        with_rows=any(verdict.rows_low is not None for verdict in results.verdicts),
        margins=margins.text(results.config, results.endpoints),
        faint=svg.FAINT,
        parts=_parts(results),
        plots={
            "differences": differences.draw(results),
            "spending": spending.draw(results),
            "learning": learning.draw(results),
            "probe_learning": learning.draw(results, "mlm_probe"),
            "layers": layers.draw(results),
        },
        beside_teacher=_beside_teacher(results),
        mlm_probe=mlm_probe.probes(results),
        minimal_pairs=pair_tables.tables(results),
        shuffled=mlm_probe.shuffled(results),
        scores=scores,
        suites=suites,
        scores_explained=score_tables.explained(results, [*scores, *suites]),
        ngram_losses=results.corpus.ngram_losses is not None,
        ngram_losses_meaning=ngram_losses.MEANING,
        used=[usage.measures(results), usage.parts(results), usage.clocks(results)],
        machine=[usage.machine(results), usage.memory(results)],
        vendor_peak=usage.vendor_peak(results),
        peak_memory=usage.peak_memory(results),
        wall_clock=wall_clock.text(results.wall_clock),
        with_teacher=functools.partial(words.with_teacher, results),
        unspent=functools.partial(usage.unspent, results),
        enforced=_enforced(results),
        teacher_accounting=_teacher_accounting(results),
        contamination=contamination_table.rows(results.contamination),
        regime=notes.regime(results),
        masks=notes.masks(results),
        chosen=_chosen(results),
        pairs=_pairs(results),
    )


def _question(results: Results, baseline: str) -> str:
    """Return the question that the answers stand under."""
    # Only against an arm that needs no teacher the question is whether to distil.
    distilled = any(summary.has_teacher(results, arm) for arm in results.arms)
    if distilled and not results.arms[baseline].needs_teacher:
        return say("distilling")
    return say("against", baseline=baseline)


def _basis(results: Results) -> str:
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


def _beside_teacher(results: Results) -> list[dict[str, Any]]:
    """Return KL to the teacher and share of equal predictions of arms that train the MLM head."""
    rows = []
    for arm in results.arms:
        losses = [head_loss(run) for run in averages.runs(results, arm)]
        # None for a run before there was a teacher.
        compared = [loss for loss in losses if loss is not None and loss.teacher_kl is not None]
        if compared:
            kl = summary.spread(loss.teacher_kl or 0.0 for loss in compared)
            agreement = summary.spread(loss.teacher_agreement or 0.0 for loss in compared)
            rows.append({"arm": arm, "kl": kl, "agreement": agreement})
    return rows


def _enforced(results: Results) -> str:
    """Return the sentence on what the budget limits, and what it does not."""
    budget = results.budget
    paid = say("student_steps")
    if any(arm.needs_teacher for arm in results.arms.values()):
        paid = teacher_accounting.MEANINGS[budget.teacher_case]
    return say(
        f"enforced_{budget.kind}",
        budget=numbers.budget(budget),
        paid=paid,
        clock=listed(budget.clock),
    )


def _teacher_accounting(results: Results) -> dict[str, Any] | None:
    """Return what the section on who pays for the teacher shows; None without a teacher."""
    if not any(arm.needs_teacher for arm in results.arms.values()):
        return None
    return {
        "costs": teacher_accounting.costs(results),
        "meanings": teacher_accounting.MEANINGS,
        "enforced": next((case.case for case in results.cases if case.enforced), None),
        "sentences": teacher_accounting.sentences(results),
        "terms": teacher_accounting.terms(results),
    }


def _chosen(results: Results) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return for each probed task and arm the layers chosen on dev, and their test scores."""
    tables = []
    for endpoint in results.endpoints:
        rows = []
        for arm in results.arms:
            # A fine-tuned or held-out endpoint has no layers, and leaves no table.
            probed = []
            for run in averages.runs(results, arm):
                if probe := probed_layers(run, endpoint.name):
                    probed.append((probe, run.metrics[endpoint.name]))
            if probed:
                rows.append(
                    {
                        "arm": arm,
                        "layers": ", ".join(str(probe.layer) for probe, _ in probed),
                        "best": summary.spread(score for _, score in probed),
                        "last": summary.spread(probe.last_layer for probe, _ in probed),
                    }
                )
        if rows:
            tables.append((summary.task_of(endpoint), rows))
    return tables


def _parts(results: Results) -> list[tuple[str, str, str, bool, bool]]:
    """Return each account's name, colours, whether a run has any of it, and whether it is paid."""
    # In the order of accounts everywhere, so that an account keeps its colour.
    parts = []
    for account in ACCOUNTS:
        is_used = any(run.spent.get(account, 0) for run in results.runs)
        is_paid = account in usage.paid_for(results)
        name = account.replace("_", " ")
        parts.append((name, *svg.PART_COLOURS[account], is_used, is_paid))
    return parts


def _pairs(results: Results) -> list[tuple[Endpoint, list[PairVerdict]]]:
    """Return the verdicts of each endpoint that has some."""
    pairs: list[tuple[Endpoint, list[PairVerdict]]] = []
    for endpoint in results.endpoints:
        verdicts = [verdict for verdict in results.verdicts if verdict.endpoint == endpoint.name]
        if verdicts:
            pairs.append((endpoint, verdicts))
    return pairs
