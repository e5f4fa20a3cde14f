"""report.html: a study on one self-contained page, made from the content of results.json."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from kdjax.budget.accounting import ACCOUNTS
from kdjax.files import write_text
from kdjax.report import figures as plots
from kdjax.report import (
    mlm_probe,
    notes,
    numbers,
    page,
    primary_endpoint,
    reference_losses,
    summary,
    svg,
    teacher_accounting,
    usage,
    wall_clock,
)
from kdjax.report import sentences as verdict
from kdjax.results.schema import Endpoint, PairVerdict, Results, head_loss, probed_layers


def write(results: Results, path: Path) -> None:
    """Writes the report, whole or not at all; the same results give the same bytes.

    Args:
        results: the content of results.json.
        path: of the page.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, html(results))


def html(results: Results) -> str:
    """The page."""
    other = results.baseline_arm
    losses = results.corpus.reference_losses
    return page.render(
        "report.html.j2",
        results.arms,
        results.config,
        results=results,
        headline=verdict.headline(results),
        basis=_basis(results),
        other=other,
        question=_question(results, other),
        answers=verdict.answers(results),
        tested=primary_endpoint.sentences(results),
        faint=svg.FAINT,
        parts=[
            (
                part.replace("_", " "),
                *svg.PART_COLOURS[part],
                any(run.spent[part] for run in results.runs),
                part in usage.paid_for(results),
            )
            for part in ACCOUNTS
        ],
        plots={
            "differences": plots.differences(results),
            "spending": plots.spending(results),
            "learning": plots.learning(results),
            "probe_learning": plots.learning(results, "mlm_probe"),
            "layers": plots.layers(results),
        },
        beside_teacher=_beside_teacher(results),
        mlm_probe=mlm_probe.probes(results),
        shuffled=mlm_probe.shuffled(results),
        scores=_scores(results, other),
        references=summary.references(results),
        reference_losses=reference_losses.rows(losses, results.endpoints),
        reference_losses_meaning=reference_losses.MEANING,
        used=[usage.measures(results), usage.parts(results), usage.clocks(results)],
        machine=[usage.machine(results), usage.memory(results)],
        peaks=usage.peaks(results),
        waters=usage.waters(results),
        wall_clock=wall_clock.told(results.wall_clock),
        unspent=functools.partial(usage.unspent, results),
        enforced=_enforced(results),
        teacher_accounting=_teacher_accounting(results),
        regime=notes.regime(results),
        masks=notes.masks(results),
        chosen=_chosen(results),
        pairs=_pairs(results),
    )


def _question(results: Results, other: str) -> str:
    distilled = any(summary.has_teacher(results, arm) for arm in results.arms)
    if distilled and not results.arms[other].needs_teacher:
        return "Does distilling beat pretraining from scratch?"
    return f"Against {other}"


def _basis(results: Results) -> str:
    """What the verdicts rest on."""
    evaluation = results.config["evaluation"]
    shared = sorted({v.n for v in results.verdicts})
    if not shared or shared[-1] < 2:
        return (
            "No pair of arms can have an interval, so every verdict is INCONCLUSIVE. Differences "
            "are of a single seed."
        )
    over = f"{shared[0]}" if len(shared) == 1 else f"{shared[0]} to {shared[-1]}"
    count = sum(v.low is not None for v in results.verdicts)
    return (
        f"Paired {numbers.percent(evaluation['confidence'])} Student-t intervals over {over} "
        f"seeds; {count} of them, "
        f"not adjusted for their number. TIES: the interval lies within ±{evaluation['margin']:g}. "
        f"BEATS: otherwise, it leaves out 0{_after_holm(results)}. INCONCLUSIVE: neither. "
        "The intervals speak of other seeds, not of other test rows, corpora or tunings."
    )


def _after_holm(results: Results) -> str:
    """Say what else a win over the baseline arm takes on the primary endpoint; nothing without
    one."""
    primary_endpoint = results.primary
    if not primary_endpoint:
        return ""
    percent = numbers.percent(1 - results.config["evaluation"]["confidence"])
    return (
        f" and, on the primary endpoint against {primary_endpoint.baseline}, p adjusted by "
        f"Holm is at most {percent}"
    )


def _scores(results: Results, other: str) -> dict[str, list[dict[str, Any]]]:
    """Arm -> a cell for each endpoint."""
    return {
        arm: [_cell(results, arm, endpoint, other) for endpoint in results.endpoints]
        for arm in results.arms
    }


def _cell(results: Results, arm: str, endpoint: Endpoint, other: str) -> dict[str, Any]:
    if arm not in endpoint.arms:
        return {
            "text": "head untrained" if endpoint.kind == "mlm" else "–",
            "outcome": "",
            "faint": True,
        }
    found = summary.spread(summary.by_seed(results, arm, endpoint).values())
    text = numbers.spread(found.mean, found.sd) if found else "–"
    against = summary.difference(results, endpoint, arm, other) if arm != other else None
    outcome = {
        "beats": f"beats {other}",
        "loses": f"loses to {other}",
        "ties": f"ties with {other}",
    }
    return {
        "text": text,
        "outcome": outcome.get(against.outcome, "") if against else "",
        "faint": False,
    }


def _beside_teacher(results: Results) -> list[dict[str, Any]]:
    """For arms that train the MLM head: KL to the teacher and share of equal predictions, on
    held-out masks."""
    rows = []
    for arm in results.arms:
        runs = [run for run in results.runs if run.arm == arm]
        details = [head_loss(run) for run in runs]
        # None for a run before there was a teacher
        found = [one for one in details if one is not None and one.teacher_kl is not None]
        if found:
            kl, agreement = (
                summary.spread(getattr(one, f"teacher_{what}") for one in found)
                for what in ("kl", "agreement")
            )
            rows.append({"arm": arm, "kl": kl, "agreement": agreement})
    return rows


def _enforced(results: Results) -> str:
    """What the budget is held against, and what the other measures stand for."""
    budget = results.budget
    taught = any(arm.needs_teacher for arm in results.arms.values())
    paid = teacher_accounting.MEANINGS[budget.teacher] if taught else "the student's steps"
    if budget.kind == "flops":
        return (
            f"A run may spend {numbers.budget(budget)}. Charged are {paid}. Tokens and wall-clock "
            "are not limited."
        )
    if budget.kind == "tokens":
        return (
            f"A run may see {numbers.budget(budget)}, padding included. "
            f"FLOPs (of {paid}) and wall-clock are not limited."
        )
    return (
        f"A run may take {numbers.budget(budget)} of {numbers.listed(budget.clock)}. "
        f"FLOPs (of {paid}) and tokens are not limited."
    )


def _teacher_accounting(results: Results) -> dict[str, Any] | None:
    """Who pays for the teacher; None where there is none to pay for."""
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
    """For each task and arm: the layers chosen on dev, seed by seed; test scores of the chosen and
    last layer."""
    tables = []
    for endpoint in (e for e in results.endpoints if e.kind == "probe"):
        rows = []
        for arm in results.arms:
            runs = [run for run in results.runs if run.arm == arm]
            found = [probe for run in runs if (probe := probed_layers(run, endpoint.name))]
            if found:
                rows.append(
                    {
                        "arm": arm,
                        "layers": ", ".join(str(one.layer) for one in found),
                        "best": summary.spread(
                            run.metrics[endpoint.name]
                            for run in runs
                            if endpoint.name in run.details
                        ),
                        "last": summary.spread(one.last_layer for one in found),
                    }
                )
        if rows:
            tables.append((summary.task_of(endpoint), rows))
    return tables


def _pairs(results: Results) -> list[tuple[Endpoint, list[PairVerdict]]]:
    of = {e.name: [v for v in results.verdicts if v.endpoint == e.name] for e in results.endpoints}
    return [(endpoint, of[endpoint.name]) for endpoint in results.endpoints if of[endpoint.name]]
