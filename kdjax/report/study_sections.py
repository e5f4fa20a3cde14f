"""The sections of a study's page: what each shows, and where a study has none of it.

A section's template has its name, in `templates/sections/`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
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
    overview,
    pair_tables,
    primary_endpoint,
    score_tables,
    sentences,
    summary,
    svg,
    task_tables,
    teacher_accounting,
    threats,
    usage,
    wall_clock,
    words_seen,
)
from kdjax.report.figures import differences, layers, learning, spending
from kdjax.report.page import Section
from kdjax.report.phrases import listed, say
from kdjax.results.runs import head_loss, probed_layers
from kdjax.results.study import Results

Builder = Callable[[Results], Section | None]
"""Makes a section; None where a study has nothing to show there."""


def study_sections(results: Results) -> list[Section]:
    """Return the sections of a study's page, in their order."""
    sections = [build(results) for build in _SECTIONS]
    return [section for section in sections if section is not None]


def _overview(results: Results) -> Section:
    return Section(
        "overview",
        {
            "matrices": overview.matrices(results),
            "signs": overview.signs(results),
            "overview": overview.overview(results),
        },
    )


def _threats(results: Results) -> Section:
    return Section(
        "threats",
        {"threats": threats.threats(results), "looked_for": threats.threats_in_words()},
    )


def _primary_endpoint(results: Results) -> Section | None:
    tested = primary_endpoint.sentences(results)
    if not tested:
        return None
    return Section("primary_endpoint", {"tested": tested})


def _contrasts(results: Results) -> Section | None:
    contrasts = primary_endpoint.contrasts(results)
    if not contrasts:
        return None
    return Section("contrasts", {"contrasts": contrasts})


def _answers(results: Results) -> Section | None:
    answers = sentences.answers(results)
    if not answers:
        return None
    return Section(
        "answers",
        {
            "headline": sentences.headline(results),
            "answers": answers,
            "plot": differences.draw(results),
            "margins": margins.text(results.config, results.endpoints),
        },
    )


def _scores(results: Results) -> Section:
    scores = score_tables.tables(results)
    suites = task_tables.tables(results)
    return Section(
        "scores",
        {
            "scores": scores,
            "scores_explained": score_tables.explanations(results, [*scores, *suites]),
            "ngram_losses": _has_ngram_losses(results),
            "ngram_losses_meaning": ngram_losses.MEANING,
        },
    )


def _suites(results: Results) -> Section | None:
    suites = task_tables.tables(results)
    if not suites:
        return None
    return Section("suites", {"suites": suites})


def _spending(results: Results) -> Section:
    # What the budget limits, and what it does not
    budget = results.budget
    paid = say("student_steps")
    if _has_teacher(results):
        paid = teacher_accounting.MEANINGS[budget.teacher_case]
    enforced = say(
        f"enforced_{budget.kind}",
        budget=numbers.budget(budget),
        paid=paid,
        clock=listed(budget.clock),
    )
    return Section(
        "spending",
        {
            "enforced": enforced,
            "plot": spending.draw(results),
            "parts": _parts(results),
            "faint": svg.FAINT,
            "used": [usage.measures(results), usage.parts(results), usage.clocks(results)],
            "wall_clock": wall_clock.text(results.wall_clock),
        },
    )


def _parts(results: Results) -> list[tuple[str, str, str, bool, bool]]:
    """Return each account's name, colours, whether a run has any of it, and whether it is paid."""
    # In the order of accounts everywhere, so that an account keeps its colour.
    parts = []
    for account in ACCOUNTS:
        is_used = any(run.spent.get(account, 0) for run in results.runs)
        is_paid = account in usage.charged_accounts(results)
        name = account.replace("_", " ")
        parts.append((name, *svg.PART_COLOURS[account], is_used, is_paid))
    return parts


def _teacher_accounting(results: Results) -> Section | None:
    if not _has_teacher(results):
        return None
    accounting = {
        "costs": teacher_accounting.costs(results),
        "meanings": teacher_accounting.MEANINGS,
        "enforced": next((case.case for case in results.cases if case.enforced), None),
        "sentences": teacher_accounting.sentences(results),
        "terms": teacher_accounting.terms(results),
    }
    return Section("teacher_accounting", {"teacher_accounting": accounting})


def _machine(results: Results) -> Section:
    return Section(
        "machine",
        {
            "machine": [usage.machine(results), usage.memory(results)],
            "vendor_peak": usage.vendor_peak(results),
            "peak_memory": usage.peak_memory(results),
        },
    )


def _learning(results: Results) -> Section | None:
    plot = learning.draw(results)
    if not plot:
        return None
    return Section(
        "learning",
        {
            "plot": plot,
            "ngram_losses": _has_ngram_losses(results),
            "beside_teacher": _beside_teacher(results),
        },
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


def _mlm_probe(results: Results) -> Section | None:
    probes = mlm_probe.probes(results)
    if not probes:
        return None
    plot = learning.draw(results, "mlm_probe")
    return Section("mlm_probe", {"mlm_probe": probes, "plot": plot})


def _minimal_pairs(results: Results) -> Section | None:
    tables = pair_tables.tables(results)
    if not tables:
        return None
    return Section("minimal_pairs", {"minimal_pairs": tables})


def _order(results: Results) -> Section | None:
    shuffled = mlm_probe.shuffled(results)
    if not shuffled:
        return None
    return Section("order", {"shuffled": shuffled})


def _layers(results: Results) -> Section | None:
    plot = layers.draw(results)
    if not plot:
        return None
    return Section("layers", {"plot": plot, "chosen": _chosen(results)})


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


def _pairs(results: Results) -> Section | None:
    pairs = []
    for endpoint in results.endpoints:
        verdicts = [verdict for verdict in results.verdicts if verdict.endpoint == endpoint.name]
        if verdicts:
            pairs.append((endpoint, verdicts))
    if not pairs:
        return None
    with_rows = any(verdict.rows_low is not None for verdict in results.verdicts)
    return Section("pairs", {"pairs": pairs, "with_rows": with_rows})


def _differences(results: Results) -> Section:
    return Section("differences")


def _runs(results: Results) -> Section:
    return Section(
        "runs",
        {
            "with_teacher": functools.partial(words_seen.words_with_teacher, results),
            "unspent": functools.partial(usage.unspent_text, results),
        },
    )


def _contamination(results: Results) -> Section | None:
    rows = contamination_table.rows(results.contamination)
    if not rows:
        return None
    return Section("contamination", {"contamination": rows})


def _provenance(results: Results) -> Section:
    return Section("provenance", {"regime": notes.regime(results), "masks": notes.masks(results)})


def _has_teacher(results: Results) -> bool:
    """Return whether an arm of the study needs a teacher."""
    return any(arm.needs_teacher for arm in results.arms.values())


def _has_ngram_losses(results: Results) -> bool:
    """Return whether it is known what counts of the text alone reach."""
    return results.corpus.ngram_losses is not None


_SECTIONS: tuple[Builder, ...] = (
    _overview,
    _threats,
    _primary_endpoint,
    _contrasts,
    _answers,
    _scores,
    _suites,
    _spending,
    _teacher_accounting,
    _machine,
    _learning,
    _mlm_probe,
    _minimal_pairs,
    _order,
    _layers,
    _pairs,
    _differences,
    _runs,
    _contamination,
    _provenance,
)
