"""sweep.html: a sweep on one self-contained page, made from the content of sweep.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdjax.evaluation.statistics import expected_false
from kdjax.files import write_text
from kdjax.report import numbers, page, reference_losses, summary
from kdjax.report.phrases import counted, say, sentence
from kdjax.report.usage import Cell, Column, Table
from kdjax.sweep import plots, verdict
from kdjax.sweep.verdict import Endpoint, Group, Sweep, amounts, rows_of


def write(found: dict[str, Any], path: Path) -> None:
    """Writes the page, whole or not at all; the same sweep gives the same bytes.

    Args:
        found: the content of sweep.json.
        path: of the page.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, html(found))


def html(found: Sweep) -> str:
    """The page."""
    budgets = sorted({cell["budget"]["amount"] for cell in found["cells"]})
    return page.render(
        "sweep.html.j2",
        found["arms"],
        found["config"],
        found=found,
        headline=verdict.headline(found),
        basis=_basis(found),
        other=verdict.yardstick(found),
        sizes=", ".join(
            (
                counted(len(found["cells"]), "study", "studies"),
                counted(len(found["arms"]), "arm"),
                counted(len(found["config"]["seeds"]), "seed"),
            )
        ),
        over=numbers.span(budgets, lambda budget: amounts([budget], found["kind"])),
        groups=[_group(found, n, group) for n, group in enumerate(found["groups"])],
        profiles=[
            _profiles(found, endpoint, *parts)
            for endpoint in found["endpoints"]
            for parts in _sets(found, endpoint)
        ],
        reference_losses_meaning=reference_losses.MEANING,
        fields=_fields(found),
        shared=_shared(found),
        cells=[
            (numbers.settings(cell["settings"]), cell["name"], cell["results_digest"][:16])
            for cell in found["cells"]
        ],
    )


def _basis(found: Sweep) -> str:
    """Say what the verdicts rest on."""
    evaluation = found["config"]["evaluation"]
    count = verdict.intervals(found)
    if not count:
        return say("basis_sweep_none")
    shared: set[int] = set()
    for group in found["groups"]:
        for pair in group["pairs"]:
            shared.update(point["n"] for point in pair["points"] if point["n"] > 1)
    basis = say(
        "basis_sweep",
        confidence=numbers.percent(evaluation["confidence"]),
        seeds=numbers.span(shared, str),
        count=count,
        false=expected_false(count, evaluation["confidence"]),
        margin=evaluation["margin"],
    )
    return sentence(basis, say("basis_scope"))


def _group(found: Sweep, n: int, group: Group) -> dict[str, Any]:
    """Studies that differ in their budget only, as the page shows them."""
    endpoints = []
    for m, endpoint in enumerate(found["endpoints"]):
        plot = plots.curves(found, group, endpoint, f"curves-{n}-{m}")
        if plot is not None:
            endpoints.append((endpoint, plot, verdict.sentences(found, group, endpoint)))
    return {
        "settings": numbers.settings(group["settings"]),
        "endpoints": endpoints,
        "rows": _rows(found, group),
        "reference_losses": reference_losses.rows(
            verdict.losses_of(group), [verdict.as_endpoint(e) for e in found["endpoints"]]
        ),
    }


def _rows(found: Sweep, group: Group) -> dict[str, list[dict[str, Any]]]:
    """Arm -> a row for each budget: scores, and what its mean run did."""
    made: dict[str, list[dict[str, Any]]] = {}
    for arm in found["arms"]:
        own = [row for row in rows_of(found, group) if row["arm"] == arm]
        for budget in sorted({row["budget"] for row in own}):
            runs = [row for row in own if row["budget"] == budget]
            made.setdefault(arm, []).append(
                {
                    "budget": amounts([budget], found["kind"]),
                    "scores": [_score(runs, arm, endpoint) for endpoint in found["endpoints"]],
                    **{name: _mean(run[name] for run in runs) for name in _MEANS},
                }
            )
    return made


_MEANS = ("steps", "tokens_seen", "tokens_unique", "unique_tokens", "epochs")


def _score(runs: Sequence[Mapping[str, Any]], arm: str, endpoint: Endpoint) -> str:
    if arm not in endpoint["arms"]:
        return "head untrained" if endpoint["kind"] == "mlm" else "–"
    found = summary.spread(
        run["metrics"][endpoint["name"]] for run in runs if endpoint["name"] in run["metrics"]
    )
    return numbers.spread(found.mean, found.sd) if found else "–"


def _mean(values: Iterable[float]) -> float:
    found = summary.spread(values)
    return found.mean if found else 0.0


def _sets(
    found: Sweep, endpoint: Endpoint
) -> list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """The profiles of an endpoint by what else was swept."""
    sets: list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]] = []
    for profile in (one for one in found["profiles"] if one["endpoint"] == endpoint["name"]):
        if not any(profile["settings"] == settings for settings, _ in sets):
            sets.append((profile["settings"], []))
        next(members for settings, members in sets if settings == profile["settings"]).append(
            profile
        )
    return sets


def _profiles(
    found: Sweep,
    endpoint: Endpoint,
    settings: Mapping[str, Any],
    members: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    n = found["profiles"].index(members[0])
    budgets = sorted({profile["budget"] for profile in members})
    arms = [arm for arm in found["arms"] if any(profile["arm"] == arm for profile in members)]
    of = {(profile["arm"], profile["budget"]): profile for profile in members}
    table = Table(
        "Best size: parameters without embeddings",
        tuple(Column(amounts([budget], found["kind"])) for budget in budgets),
        {arm: [_optimum(of.get((arm, budget))) for budget in budgets] for arm in arms},
    )
    return {
        "endpoint": endpoint,
        "settings": numbers.settings(settings),
        "plot": plots.isoflop(found, endpoint, members, f"isoflop-{n}"),
        "table": table if any(profile["optimum"] for profile in members) else None,
    }


def _optimum(profile: Mapping[str, Any] | None) -> Cell:
    if profile is None or profile["optimum"] is None:
        return "–", ""
    found = profile["optimum"]
    interval = "" if found["low"] is None else f"[{found['low']:.3g}, {found['high']:.3g}]"
    return f"{found['parameters']:.3g}", interval


def _fields(found: Sweep) -> list[tuple[str, str]]:
    """Swept settings and their values."""
    kinds = {f"budget.{kind}": kind for kind in ("flops", "tokens", "hours")}
    return [
        (
            name,
            amounts(sorted(values), kinds[name])
            if name in kinds
            else numbers.listed([str(v) for v in values]),
        )
        for name, values in found["fields"].items()
    ]


def _shared(found: Sweep) -> str:
    """Say what all studies of the sweep have in common."""
    return say("sweep_shared", seeds=numbers.listed(list(map(str, found["config"]["seeds"]))))
