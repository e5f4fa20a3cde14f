"""What a sweep found, as plain values: the content of `sweep.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kdjax.config import KINDS, Config, plain, to_dict
from kdjax.evaluation.crossing import crossings
from kdjax.evaluation.statistics import Comparison, paired
from kdjax.files import digest
from kdjax.report import summary
from kdjax.results.schema import Endpoint, Results, RunResult
from kdjax.results.store import to_plain
from kdjax.study.machine import versions
from kdjax.sweep.cells import Cell
from kdjax.sweep.isoflop import profiles


def collect(config: Config, cells: Sequence[Cell], results: Sequence[Results]) -> dict[str, Any]:
    """Joins the studies of a sweep.

    Args:
        config: the sweep's recipe.
        cells: its studies, small budgets first.
        results: of each, the content of its results.json.

    Returns:
        `cells`: settings, budget and digest of each study. `rows`: one for each run, with its
        settings. `groups`: for each combination of the settings other than the budget, by endpoint,
        the arms' `curves` over the budget and the `pairs` of arms with their difference at each
        budget and where it changes sign. `profiles`: see `kdjax.sweep.isoflop`.
    """
    values = plain(to_dict(config))
    rows = [
        _row(cell, found, run)
        for cell, found in zip(cells, results, strict=True)
        for run in found.runs
    ]
    measured = results[0].endpoints
    endpoints = [
        {k: v for k, v in to_plain(e).items() if k not in ("rows", "baseline")} for e in measured
    ]
    groups: list[dict[str, Any]] = []
    for other in _distinct([_other(cell.settings) for cell in cells]):
        members = [
            found
            for cell, found in zip(cells, results, strict=True)
            if _other(cell.settings) == other
        ]
        groups.append({"settings": other, **_group(config, members, measured)})
    return {
        **versions(),
        "config": values,
        "config_digest": digest(values),
        "kind": config.budget.kind
        if not _budgets(config)
        else _budgets(config)[0].removeprefix("budget."),
        "fields": {name: list(found) for name, found in config.sweep.items()},
        "cells": [
            {
                "name": cell.name,
                "settings": cell.settings,
                "budget": to_plain(found.budget),
                "results_digest": digest(to_plain(found)),
            }
            for cell, found in zip(cells, results, strict=True)
        ],
        "arms": list(config.arms),
        "endpoints": endpoints,
        "rows": rows,
        "groups": groups,
        "profiles": profiles(rows, endpoints, config.evaluation.confidence),
    }


def _budgets(config: Config) -> list[str]:
    """The swept settings that are the budget."""
    return [name for name in config.sweep if name in {f"budget.{kind}" for kind in KINDS}]


def _other(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A study's settings but for its budget."""
    return {
        name: value
        for name, value in settings.items()
        if name not in {f"budget.{kind}" for kind in KINDS}
    }


def _distinct(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for one in found:
        if one not in kept:
            kept.append(one)
    return kept


def _row(cell: Cell, found: Results, run: RunResult) -> dict[str, Any]:
    """A run with its study's settings."""
    arm = found.arms[run.arm]
    return {
        "cell": cell.name,
        "settings": cell.settings,
        "arm": run.arm,
        "seed": run.seed,
        "budget": run.budget.amount,
        **{
            name: getattr(run, name)
            for name in ("used", "spent", "steps", "positions", "tokens_seen", "tokens_unique")
        },
        "epochs": run.epochs,
        "parameters": arm.parameters,
        "parameters_without_embeddings": arm.parameters_without_embeddings,
        "unique_tokens": found.corpus.tokens["train"],
        "seconds": sum(run.wall_clock.values()),
        "metrics": run.metrics,
    }


def _group(
    config: Config, members: Sequence[Results], endpoints: Sequence[Endpoint]
) -> dict[str, Any]:
    """Studies that differ in their budget only: curves over it, and differences between arms."""
    first = members[0]
    return {
        "reference_losses": to_plain(first.corpus.reference_losses),
        "parameters": {
            name: {
                "parameters": arm.parameters,
                "parameters_without_embeddings": arm.parameters_without_embeddings,
            }
            for name, arm in first.arms.items()
        },
        "curves": {
            endpoint.name: {arm: _curve(members, endpoint, arm) for arm in endpoint.arms}
            for endpoint in endpoints
        },
        "pairs": [pair for endpoint in endpoints for pair in _pairs(config, members, endpoint)],
    }


def _curve(members: Sequence[Results], endpoint: Endpoint, arm: str) -> list[dict[str, Any]]:
    points = []
    for found in members:
        spread = summary.spread(summary.by_seed(found, arm, endpoint).values())
        if spread is not None:
            points.append({"budget": found.budget.amount, **asdict(spread)})
    return points


def _pairs(config: Config, members: Sequence[Results], endpoint: Endpoint) -> list[dict[str, Any]]:
    """Every pair of arms on an endpoint: the paired difference first − second at each budget, and
    where it is 0."""
    settings = config.evaluation
    pairs = []
    arms = endpoint.arms
    for a, b in ((a, b) for n, a in enumerate(arms) for b in arms[n + 1 :]):
        points = []
        for found in members:
            values = [summary.by_seed(found, arm, endpoint) for arm in (a, b)]
            verdict = paired(
                values[0],
                values[1],
                names=(a, b),
                confidence=settings.confidence,
                margin=settings.margin,
                better=endpoint.better,
            )
            points.append({"budget": found.budget.amount, **_from_side(verdict, a)})
        told = [p for p in points if p["low"] is not None]
        columns = [[p[name] for p in told] for name in ("budget", "difference", "low", "high")]
        pairs.append(
            {
                "endpoint": endpoint.name,
                "a": a,
                "b": b,
                "points": points,
                "crossings": [asdict(crossing) for crossing in crossings(*columns)],
            }
        )
    return pairs


def _from_side(verdict: Comparison, a: str) -> dict[str, Any]:
    """A verdict read from arm a's side: `BEATS`, `LOSES`, `TIES` or `INCONCLUSIVE`."""
    found = verdict.difference
    low = verdict.low
    high = verdict.high
    if verdict.a != a:
        found, low, high = (None if x is None else -x for x in (found, high, low))
    told = verdict.verdict if verdict.a == a else "LOSES"
    return {"difference": found, "low": low, "high": high, "n": verdict.n, "verdict": told}
