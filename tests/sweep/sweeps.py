"""A made-up sweep and plan: the pilot recipe with runs drawn from laws, joined by the product."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from kdjax import recipes
from kdjax.arms.baseline import first_without_teacher
from kdjax.budget.accounting import Budget
from kdjax.config import Config, to_dict
from kdjax.plan.plan import forecasts
from kdjax.plan.schema import Plan
from kdjax.results.runs import Divergence
from kdjax.results.study import Results
from kdjax.results.text import CountedLosses
from kdjax.results.verdicts import MeasuredEndpoint
from kdjax.storage.typed_json import from_plain, to_plain
from kdjax.sweep.cells import Cell, cells_of
from kdjax.sweep.collect import collect
from kdjax.sweep.schema import SweepResults
from tests.report.results import study

RECIPE = Path(__file__).parents[2] / "configs" / "pilot.yaml"
UNIQUE = 900_000
SEEDS = 3
Laws = Mapping[str, tuple[float, float, float]]
T = TypeVar("T", SweepResults, Plan)
PRICES = {"scratch": 6.5e6, "logit": 3.3e7, "mlm+minilm": 2.6e7}  # FLOPs of a token
# Arm -> E, K, k of its loss; at the pilot's budgets they put every arm behind scratch.
LAWS = {
    "scratch": (5.0, 40.0, 0.25),
    "logit": (6.4, 40.0, 0.35),
    "mlm+minilm": (5.6, 30.0, 0.25),
}
LOSSES = {"unigram": 7.1, "left_neighbor": 6.2, "both_neighbors": 5.4}
ENDPOINTS = [
    ("mlm_loss", "Held-out MLM loss", "nats", "lower", "mlm"),
    ("probe.topic", "topic, linear probe, best layer", "accuracy", "higher", "probe"),
]


@functools.cache
def recipe(*overrides: str, seeds: int = SEEDS) -> Config:
    """Return the pilot recipe with some settings changed."""
    return recipes.load(RECIPE, ["--seeds", json.dumps(list(range(seeds))), *overrides])


@functools.cache
def _cells(text: str) -> list[Cell]:
    """Return the studies of a recipe in JSON; cached, as nothing else takes as long here."""
    return cells_of(recipes.from_dict(json.loads(text)))


def sweep(
    config: Config,
    laws: Laws = LAWS,
    *,
    noise: float = 0.004,
    best: float | None = None,
    diverged: tuple[str, int] | None = None,
) -> SweepResults:
    """Make up a sweep.

    Args:
        config: recipe with a sweep.
        laws: arm -> E, K, k of its held-out loss E + K tokens**-k.
        noise: standard deviation of a run, and of the shift that a seed gives to all its runs.
        best: size at which a student is best; losses grow with the square of the distance from
            it in logarithm.
        diverged: arm and seed of a run that diverges in the study of the smallest budget, at its
            step 7; None: none does.
    """
    rng = np.random.default_rng(0)
    cells = _cells(json.dumps(to_dict(config)))
    shifts = {seed: noise * rng.normal() for seed in config.seeds}
    studies = [_results(config, cell, laws, noise, shifts, best, rng) for cell in cells]
    if diverged is not None:
        studies[0] = _with_diverged(studies[0], *diverged)
    return collect(config, cells, studies)


def _with_diverged(results: Results, arm: str, seed: int) -> Results:
    """Return a study of which a run has diverged."""
    runs = list(results.runs)
    for number, run in enumerate(runs):
        if (run.arm, run.seed) == (arm, seed):
            runs[number] = replace(
                run, metrics={}, params_sha256=None, diverged=Divergence(7, "the loss is nan")
            )
    return replace(results, runs=tuple(runs))


@functools.cache
def whole_study() -> Results:
    """Return a complete study, whose parts that a sweep reads are replaced."""
    return study(seeds=1)


def _results(
    config: Config,
    cell: Cell,
    laws: Laws,
    noise: float,
    shifts: Mapping[int, float],
    best: float | None,
    rng: np.random.Generator,
) -> Results:
    """Return the results of one study of a sweep."""
    amount = next(value for name, value in cell.settings.items() if name.startswith("budget."))
    kind = next(
        name.removeprefix("budget.") for name in cell.settings if name.startswith("budget.")
    )
    # Other kinds of budget stand for FLOPs of about the pilot's size.
    flops = {"flops": 1.0, "tokens": 1.5e7, "hours": 1e14}[kind] * amount
    # Sizes are in proportion to layers.
    size = 222_045 * int(cell.settings.get("student.layers", 2))
    base = whole_study()
    budget = Budget(kind, amount)
    arms = {
        arm: replace(
            base.arms["scratch" if arm == "scratch" else "logit"],
            parameters=4 * 10**6,
            parameters_without_embeddings=size,
        )
        for arm in config.arms
    }

    # The order of draws from the generator is part of what the tests hold.
    runs = []
    for seed in config.seeds:
        for arm in config.arms:
            tokens = flops / PRICES[arm]
            e, k, exponent = laws[arm]
            loss = e + k * tokens**-exponent + shifts[seed] + noise * rng.normal()
            loss += 0.0 if best is None else 0.2 * np.log(size / best) ** 2
            teacher_forward = int(0.7 * flops) if arm != "scratch" else 0
            runs.append(
                replace(
                    base.runs[0],
                    arm=arm,
                    seed=seed,
                    budget=budget,
                    used=amount,
                    spent={
                        "teacher_forward": teacher_forward,
                        "teacher_cache": 0,
                        "teacher_training": 0,
                    },
                    steps=int(tokens / 512),
                    padded_tokens=int(tokens),
                    tokens_seen=int(tokens),
                    tokens_unique=int(min(tokens, UNIQUE)),
                    epochs=tokens / UNIQUE,
                    wall_clock={"compute": 1.0},
                    metrics={"mlm_loss": loss, "probe.topic": 0.5 + 2 * noise * rng.normal()},
                )
            )
    losses = CountedLosses(**LOSSES, tokens=1, fitted_tokens=1, held_out_tokens=1, unknown={})
    return replace(
        base,
        budget=budget,
        corpus=replace(base.corpus, tokens={"train": UNIQUE}, ngram_losses=losses),
        arms=arms,
        baseline_arm=first_without_teacher({name: arm.needs_teacher for name, arm in arms.items()}),
        endpoints=tuple(
            MeasuredEndpoint(
                *endpoint,
                tuple(config.arms),
                500,
                None,
                scale="nats" if endpoint[2] == "nats" else "accuracy",
            )
            for endpoint in ENDPOINTS
        ),
        runs=tuple(runs),
    )


def plan(results: SweepResults, directory: Path, *overrides: str) -> Plan:
    """Make a plan with this sweep as its pilot.

    Args:
        results: sweep that is fitted.
        directory: directory that gets the sweep's file.
        overrides: changes of the recipe.
    """
    (directory / "sweep.json").write_text(json.dumps(to_plain(results)))
    return forecasts(recipe("--plan.pilot", str(directory), "--plan.resamples", "400", *overrides))


def renamed(content: T, **names: str) -> T:
    """Return a sweep or a plan with some arms renamed wherever they are named.

    Args:
        content: sweep or plan.
        names: old name -> new name.
    """
    text = json.dumps(to_plain(content))
    for old, new in names.items():
        text = text.replace(json.dumps(old), json.dumps(new))
        # Pairs of arms are named by both.
        text = text.replace(f'"{old} - ', f'"{json.dumps(new)[1:-1]} - ')
        text = text.replace(f' - {old}"', f' - {json.dumps(new)[1:-1]}"')
    return from_plain(type(content), json.loads(text), "made up:")


def read_again(content: T) -> T:
    """Return a sweep or a plan as it is read back from its file."""
    return from_plain(type(content), json.loads(json.dumps(to_plain(content))), "made up:")
