"""What the live figures of a study's page draw, as plain values for its scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdjax.budget.accounting import ACCOUNTS, CASES
from kdjax.report import case_words, ngram_losses, numbers, svg, usage
from kdjax.report.averages import averages_of, runs
from kdjax.report.figures.learning import NAMES, levels_of, loss_of
from kdjax.report.phrases import say
from kdjax.results.runs import RunResult
from kdjax.results.study import Results

_DIGITS = 6
"""Digits of numbers that are drawn."""
_CLOCK_COLOURS = 6


def page_data(results: Results) -> dict[str, Any]:
    """Return what the page's scripts need.

    Args:
        results: the content of results.json.
    """
    figures = [_learning(results, figure) for figure in NAMES]
    cases = []
    for name in case_words.case_names(results):
        label = say("case_as_run", kind=results.budget.kind) if name == case_words.AS_RUN else name
        cases.append({"name": name, "label": label})
    return {
        "cases": cases,
        "learning": [figure for figure in figures if figure is not None],
        "spending": _spending(results),
    }


def _learning(results: Results, figure: str) -> dict[str, Any] | None:
    """Return a held-out loss of every run along its FLOPs, tokens and time; None without one."""
    seconds = max((_seconds(run) for run in results.runs), default=0.0)
    size, unit = numbers.clock_unit(seconds)
    arms = []
    for index, arm in enumerate(results.arms):
        seeds = []
        for run in runs(results, arm):
            points = _points(run, figure, size)
            if points:
                seeds.append(points)
        if seeds:
            look = {"colour": index % len(svg.COLOURS), "marker": index % len(svg.MARKERS)}
            arms.append({"name": arm, **look, "seeds": seeds, "mean": _mean(seeds)})
    if not arms:
        return None
    axes = {
        "flops": {"label": "FLOPs charged", "unit": "FLOPs", "kind": "flops"},
        "tokens": {"label": "tokens, padding counted", "unit": "tokens", "kind": "tokens"},
        "time": {"label": f"{unit} of compute and input", "unit": unit, "kind": "time"},
    }
    # What the budget limits comes first.
    first = "time" if results.budget.kind == "hours" else results.budget.kind
    order = sorted(axes, key=lambda name: name != first)
    levels = levels_of(results, figure)
    return {
        "name": NAMES[figure],
        "loss": loss_of(figure),
        "axes": [{"name": name, **axes[name]} for name in order],
        "levels": [{"name": name, "loss": _short(loss)} for name, loss in levels.items()],
        "unit": ngram_losses.UNIT,
        "arms": arms,
    }


def _seconds(run: RunResult) -> float:
    """Return the seconds that a run's steps took, reading included."""
    return run.wall_clock.get("compute", 0.0) + run.wall_clock.get("input", 0.0)


def _points(run: RunResult, figure: str, size: int) -> list[dict[str, float]]:
    """Return a figure along a run.

    Args:
        run: the run.
        figure: name of the figure.
        size: seconds of the unit of time.
    """
    points = []
    for point in run.curve:
        if figure not in point:
            continue
        # Tokens follow from the steps; seconds are spread over a run as its steps are.
        done = point["step"] / run.steps if run.steps else 0.0
        points.append(
            {
                "share": _short(point["share"]),
                "flops": _short(_charged(run, point)),
                "tokens": round(_tokens(run, point["step"])),
                "time": _short(done * _seconds(run) / size),
                "loss": _short(point[figure]),
            }
        )
    return points


def _charged(run: RunResult, point: dict[str, float]) -> float:
    """Return the FLOPs that were charged until a point of a run."""
    if run.budget.kind == "flops":
        return point["share"] * run.budget.amount
    return point["flops"]


def _tokens(run: RunResult, step: float) -> float:
    """Return the tokens of a run's first steps, padding counted."""
    sequences = 0.0
    rest = step
    for phase in run.phases:
        steps = min(rest, phase.steps)
        sequences += steps * phase.batch
        rest -= steps
    whole = sum(phase.steps * phase.batch for phase in run.phases)
    return run.padded_tokens * sequences / whole if whole else 0.0


def _mean(seeds: Sequence[Sequence[dict[str, float]]]) -> list[dict[str, float]]:
    """Return the mean over seeds, point by point as far as every seed goes."""
    means = []
    for points in zip(*seeds, strict=False):
        names = points[0]
        means.append({name: _short(float(np.mean([p[name] for p in points]))) for name in names})
    return means


def _spending(results: Results) -> dict[str, Any] | None:
    """Return what the mean run of each arm spends by part, in FLOPs and in time."""
    if not results.runs:
        return None
    flops = []
    for number, account in enumerate(ACCOUNTS):
        for arm, amount in averages_of(results, "spent", account).items():
            if amount:
                label = account.replace("_", " ")
                row = {"arm": arm, "part": account, "label": label, "value": _short(amount)}
                flops.append({**row, "colour": f"var(--part-{number})"})
    used: dict[str, dict[str, float]] = {}
    for kind in usage.CLOCKS:
        seconds = averages_of(results, "wall_clock", kind)
        if any(seconds.values()):
            used[kind] = seconds
    longest = max((sum(s[arm] for s in used.values()) for arm in results.arms), default=0.0)
    size, unit = numbers.clock_unit(longest)
    time = []
    for number, (kind, seconds) in enumerate(used.items()):
        for arm, amount in seconds.items():
            row = {"arm": arm, "part": kind, "label": kind, "value": _short(amount / size)}
            time.append({**row, "colour": f"var(--part-{number % _CLOCK_COLOURS})"})
    budget = results.budget
    charged = {"": list(usage.charged_accounts(results))}
    for case in results.cases:
        charged[case.case] = list(CASES[case.case])
    return {
        "arms": list(results.arms),
        "charged": charged,
        "measures": [
            {
                "name": "flops",
                "label": "FLOPs",
                "unit": "FLOPs",
                "kind": "flops",
                "budget": budget.amount if budget.kind == "flops" else None,
                "rows": flops,
            },
            {"name": "time", "label": unit, "unit": unit, "kind": "time", "rows": time},
        ],
    }


def _short(value: float) -> float:
    """Return a number with the digits that are drawn."""
    return float(f"{value:.{_DIGITS}g}")
