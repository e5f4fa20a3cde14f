"""A sweep's results: its studies joined, with curves over the budget and differences of arms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from kdjax.config import Config, plain, to_dict
from kdjax.report import summary
from kdjax.results.runs import RunResult, diverged_arms
from kdjax.results.study import Results
from kdjax.results.verdicts import Endpoint
from kdjax.storage.files import digest
from kdjax.storage.typed_json import to_plain
from kdjax.study.machine import versions
from kdjax.sweep.cells import BUDGETS, Cell, swept_settings
from kdjax.sweep.isoflop import profiles
from kdjax.sweep.judging import judge_sweep
from kdjax.sweep.schema import (
    ArmPair,
    CurvePoint,
    Group,
    StudentSize,
    SweepResults,
    SweepRow,
    SweptStudy,
)


def collect(config: Config, cells: Sequence[Cell], results: Sequence[Results]) -> SweepResults:
    """Join the studies of a sweep; group them by setting and fit their profiles.

    Args:
        config: recipe of the sweep.
        cells: studies of the sweep, small budgets first.
        results: results of each study.
    """
    values = plain(to_dict(config))
    studies = list(zip(cells, results, strict=True))
    rows: list[SweepRow] = []
    for cell, study in studies:
        rows += [_row(cell, study, run) for run in study.runs]

    # Rows and baselines of endpoints may differ between studies: a sweep has the rest.
    shared = [f.name for f in fields(Endpoint)]
    endpoints = []
    for measured in results[0].endpoints:
        endpoints.append(Endpoint(**{name: getattr(measured, name) for name in shared}))

    # Studies whose settings differ in the budget alone belong together.
    members: dict[str, list[Results]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for cell, study in studies:
        key = repr(cell.group_settings)
        settings.setdefault(key, cell.group_settings)
        members.setdefault(key, []).append(study)

    # All of them are judged together.
    judged = judge_sweep(config, cells, results, list(members.values()), endpoints)

    # The kind of a budget that is swept over, else of the recipe's.
    swept = swept_settings(config)
    swept_budgets = [name for name in swept if name in BUDGETS]
    kind = next(iter(swept_budgets), config.budget.kind).removeprefix("budget.")
    return SweepResults(
        **versions(),
        config=values,
        config_digest=digest(values),
        kind=kind,
        fields={name: list(values) for name, values in swept.items()},
        cells=tuple(
            SweptStudy(cell.name, cell.settings, study.budget, digest(to_plain(study)))
            for cell, study in studies
        ),
        arms=tuple(config.arms),
        baseline_arm=results[0].baseline_arm,
        endpoints=tuple(endpoints),
        rows=tuple(rows),
        groups=tuple(
            _group(settings[key], members[key], endpoints, group_pairs)
            for key, group_pairs in zip(members, judged.pairs, strict=True)
        ),
        profiles=tuple(profiles(rows, endpoints, config.evaluation.confidence)),
        gaps=judged.gaps,
    )


def _row(cell: Cell, study: Results, run: RunResult) -> SweepRow:
    """Return a run with its study's settings."""
    arm = study.arms[run.arm]
    # A point of a curve takes all seeds: those that came through alone would flatter the arm.
    metrics = {} if run.arm in diverged_arms(study.runs) else run.metrics
    return SweepRow(
        cell=cell.name,
        settings=cell.settings,
        arm=run.arm,
        seed=run.seed,
        budget=run.budget.amount,
        used=run.used,
        spent=run.spent,
        steps=run.steps,
        padded_tokens=run.padded_tokens,
        tokens_seen=run.tokens_seen,
        tokens_unique=run.tokens_unique,
        epochs=run.epochs,
        parameters=arm.parameters,
        parameters_without_embeddings=arm.parameters_without_embeddings,
        unique_tokens=study.corpus.tokens["train"],
        seconds=sum(run.wall_clock.values()),
        metrics=metrics,
        diverged=run.diverged,
        words_seen=run.words_seen,
        shared=run.shared,
    )


def _group(
    settings: dict[str, Any],
    members: Sequence[Results],
    endpoints: Sequence[Endpoint],
    pairs: tuple[ArmPair, ...],
) -> Group:
    """Return studies that differ in their budget only: curves, and differences between arms."""
    # Text and sizes of students are the same in all of them.
    first = members[0]
    sizes = {
        name: StudentSize(arm.parameters, arm.parameters_without_embeddings)
        for name, arm in first.arms.items()
    }
    curves: dict[str, dict[str, tuple[CurvePoint, ...]]] = {}
    for endpoint in endpoints:
        arms = endpoint.arms
        curves[endpoint.name] = {arm: _curve(members, endpoint, arm) for arm in arms}
    return Group(settings, first.corpus.ngram_losses, sizes, curves, pairs)


def _curve(members: Sequence[Results], endpoint: Endpoint, arm: str) -> tuple[CurvePoint, ...]:
    """Compute an arm's values over the budgets at which it has any."""
    points = []
    for study in members:
        spread = summary.spread(summary.values_by_seed(study, arm, endpoint).values())
        if spread is not None:
            points.append(CurvePoint(study.budget.amount, spread.mean, spread.sd, spread.n))
    return tuple(points)
