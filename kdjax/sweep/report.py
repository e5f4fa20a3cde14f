"""sweep.html: a sweep on one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdjax.report import margins, ngram_losses, numbers, page, phrases, summary
from kdjax.report.averages import mean, mean_if_known, text_or_dash
from kdjax.report.phrases import counted, listed, listed_settings, sentence
from kdjax.report.usage import Column, Table, TableCell
from kdjax.results.runs import diverged_arms
from kdjax.results.verdicts import Endpoint
from kdjax.storage.files import write_text
from kdjax.sweep import plots, verdict
from kdjax.sweep.cells import BUDGETS
from kdjax.sweep.phrases import say
from kdjax.sweep.schema import Group, Profile, SweepResults, SweepRow, rows_of
from kdjax.sweep.trunk import costs_paid_and_alone
from kdjax.sweep.verdict import budgets_text

_MEANS = ("steps", "tokens_seen", "tokens_unique", "unique_tokens", "epochs")
"""Fields of runs whose means over an arm's runs at a budget are columns of the table of cells."""


def write(sweep: SweepResults, path: Path) -> None:
    """Write the page, whole or not at all; the same sweep gives the same bytes.

    Args:
        sweep: sweep to show.
        path: file of the page.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, html(sweep))


def html(sweep: SweepResults) -> str:
    """Build the page."""
    # What the page's first line counts.
    budgets = sorted({cell.budget.amount for cell in sweep.cells})
    over = numbers.span(budgets, lambda budget: budgets_text([budget], sweep.kind))
    sizes = (
        counted(len(sweep.cells), "study", "studies"),
        counted(len(sweep.arms), "arm"),
        counted(len(sweep.config["seeds"]), "seed"),
    )
    profiles = []
    for endpoint in sweep.endpoints:
        profiles += [_profiles(sweep, endpoint, members) for members in _sets(sweep, endpoint)]
    trunk = costs_paid_and_alone(sweep.rows)
    return page.render(
        "sweep.html.j2",
        sweep.arms,
        sweep.config,
        found=sweep,
        headline=verdict.headline(sweep),
        divergences=verdict.divergences(sweep),
        basis=_basis(sweep),
        baseline=sweep.baseline_arm,
        sizes=", ".join(sizes),
        over=over,
        groups=[_group(sweep, n, group) for n, group in enumerate(sweep.groups)],
        profiles=profiles,
        gaps=verdict.gap_sentences(sweep),
        ngram_losses_meaning=ngram_losses.MEANING,
        fields=[(name, _swept(name, values)) for name, values in sweep.fields.items()],
        shared=say("sweep_shared", seeds=listed(sweep.config["seeds"])),
        trunk=trunk.line() if trunk else "",
        cells=[
            (listed_settings(cell.settings), cell.name, cell.results_digest[:16])
            for cell in sweep.cells
        ],
    )


def _basis(sweep: SweepResults) -> str:
    """Return the sentence on what the verdicts rest on."""
    evaluation = sweep.config["evaluation"]
    points = list(verdict.points_of(sweep))
    count = sum(point.low is not None for point in points)
    if not count:
        return say("basis_sweep_none")
    # Points of earlier versions have no family, and were not adjusted.
    is_earlier = any(point.family is None for point in points)
    basis = say(
        "basis_sweep_earlier" if is_earlier else "basis_sweep",
        confidence=numbers.percent(evaluation["confidence"]),
        seeds=numbers.span((point.n for point in points if point.n > 1), str),
        count=count,
        level=numbers.percent(1 - evaluation["confidence"]),
        margins=margins.text(sweep.config, sweep.endpoints),
    )
    return sentence(basis, phrases.say("basis_scope"))


def _group(sweep: SweepResults, number: int, group: Group) -> dict[str, Any]:
    """Return studies that differ in their budget only, as the page shows them."""
    # Endpoints that no study of the group has measured are not shown.
    endpoints = []
    for n, endpoint in enumerate(sweep.endpoints):
        plot = plots.draw_curves(sweep, group, endpoint, f"curves-{number}-{n}")
        if plot is not None:
            endpoints.append((endpoint, plot, verdict.sentences(sweep, group, endpoint)))
    return {
        "settings": listed_settings(group.settings),
        "endpoints": endpoints,
        "rows": _rows(sweep, group),
        "ngram_losses": ngram_losses.rows(group.ngram_losses, sweep.endpoints),
    }


def _rows(sweep: SweepResults, group: Group) -> dict[str, list[dict[str, Any]]]:
    """Return arm -> a row for each budget: scores, and what its mean run did."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for arm in sweep.arms:
        arm_rows = [row for row in rows_of(sweep, group.settings) if row.arm == arm]
        for budget in sorted({row.budget for row in arm_rows}):
            runs = [row for row in arm_rows if row.budget == budget]
            cells: dict[str, Any] = {"budget": budgets_text([budget], sweep.kind)}
            cells["scores"] = [_score(runs, arm, endpoint) for endpoint in sweep.endpoints]
            for name in _MEANS:
                cells[name] = mean(getattr(run, name) for run in runs)
            words = mean_if_known(run.words_seen for run in runs)
            cells["words_seen"] = text_or_dash(numbers.count, words)
            rows.setdefault(arm, []).append(cells)
    return rows


def _score(runs: Sequence[SweepRow], arm: str, endpoint: Endpoint) -> str:
    """Return an arm's score at a budget, in words where it has none."""
    if arm not in endpoint.arms:
        return numbers.no_score(endpoint)
    if diverged_arms(runs):
        return numbers.no_score(endpoint, diverged=True)
    measured = (run.metrics for run in runs if endpoint.name in run.metrics)
    return summary.text(summary.spread(metrics[endpoint.name] for metrics in measured))


def _sets(sweep: SweepResults, endpoint: Endpoint) -> list[list[Profile]]:
    """Return the profiles of an endpoint, a list for each combination of what else was swept."""
    sets: dict[str, list[Profile]] = {}
    for profile in sweep.profiles:
        if profile.endpoint == endpoint.name:
            sets.setdefault(repr(profile.settings), []).append(profile)
    return list(sets.values())


def _profiles(
    sweep: SweepResults, endpoint: Endpoint, members: Sequence[Profile]
) -> dict[str, Any]:
    """Return the profiles of an endpoint in one combination of what else was swept."""
    budgets = sorted({profile.budget for profile in members})
    by_place = {(profile.arm, profile.budget): profile for profile in members}

    # The table has a row for each arm that was measured, also where it has no optimum.
    rows = {}
    for arm in sweep.arms:
        if any(profile.arm == arm for profile in members):
            rows[arm] = [_optimum(by_place.get((arm, budget))) for budget in budgets]
    table = Table(
        "Best size: parameters without embeddings",
        tuple(Column(budgets_text([budget], sweep.kind)) for budget in budgets),
        rows,
    )
    return {
        "endpoint": endpoint,
        "settings": listed_settings(members[0].settings),
        # The place among all profiles makes the figure's name unique.
        "plot": plots.draw_isoflop(
            sweep, endpoint, members, f"isoflop-{sweep.profiles.index(members[0])}"
        ),
        "table": table if any(profile.optimum for profile in members) else None,
    }


def _optimum(profile: Profile | None) -> TableCell:
    """Return the best size and its interval, as a cell of a table."""
    if profile is None or profile.optimum is None:
        return "–", ""
    optimum = profile.optimum
    interval = ""
    if optimum.low is not None or optimum.high is not None:
        low = f"below {profile.points[0].parameters:.3g}"
        high = f"above {profile.points[-1].parameters:.3g}"
        if optimum.low is not None:
            low = f"{optimum.low:.3g}"
        if optimum.high is not None:
            high = f"{optimum.high:.3g}"
        interval = f"[{low}, {high}]"
    return f"{optimum.parameters:.3g}", interval


def _swept(name: str, values: Sequence[Any]) -> str:
    """Return a swept setting's values as text."""
    if name in BUDGETS:
        return budgets_text(sorted(values), name.removeprefix("budget."))
    return listed(values)
