"""What plan.json holds, as types; `kdjax.storage.typed_json` reads and writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from kdjax.budget.price import Price
from kdjax.evaluation.statistics import ArmVerdict
from kdjax.forecast import PilotRun, Publication
from kdjax.results.text import CountedLosses
from kdjax.results.verdicts import Endpoint
from kdjax.storage.typed_json import stored_as, stored_words

PLAN = "plan.json"
"""File of a plan, in its directory."""
_VERDICT_WORDS = {
    "BEATS": "a wins",
    "LOSES": "b wins",
    "TIES": "ties",
    "INCONCLUSIVE": "cannot tell",
}
"""Verdict on `a` against `b` -> its word in plan.json."""


@dataclass(frozen=True)
class Bought:
    """The training that a budget buys an arm.

    Attributes:
        flops: budget in FLOPs.
        steps: number of optimiser steps.
        tokens: number of tokens seen, padding not counted.
        epochs: number of passes over the text; None where the text has no end.
        effective_tokens: number of new tokens worth as much as these, some of them repeated.
    """

    flops: float
    steps: int
    tokens: float
    epochs: float | None
    effective_tokens: float


@dataclass(frozen=True)
class PlannedArm:
    """An arm's size, the prices of its phases, and what each budget buys (None: no step)."""

    parameters_without_embeddings: int
    prices: tuple[Price, ...]
    bought: tuple[Bought | None, ...]


@dataclass(frozen=True)
class PriorArm:
    """The published law of an arm, if any, and its loss at each budget; None: no step."""

    law: Literal["supervised", "distillation"] | None
    losses: tuple[float | None, ...]


@dataclass(frozen=True)
class Prior:
    """The forecasts of published laws.

    Attributes:
        sources: law -> its publication.
        teacher_loss: loss of the teacher by the supervised law, in nats a token.
        assumption: sentence on what that loss assumes of the teacher.
        arms: arm -> its published law.
        outside: sentences on how far the recipe is from where the laws were fitted.
    """

    sources: dict[str, Publication]
    teacher_loss: float
    assumption: str
    arms: dict[str, PriorArm]
    outside: tuple[str, ...]


@dataclass(frozen=True)
class Pilot:
    """The sweep whose runs are fitted.

    Attributes:
        directory: directory of the sweep.
        digest: SHA-256 of its sweep.json.
        budgets: budgets of its runs in FLOPs, ascending.
        runs: runs in the form that laws are fitted to.
        endpoint: endpoint that is forecast.
        ngram_losses: cross-entropies of its text; None where its studies had several texts.
    """

    directory: str
    digest: str
    budgets: tuple[float, ...]
    runs: tuple[PilotRun, ...]
    endpoint: Endpoint
    ngram_losses: CountedLosses | None = field(metadata=stored_as("reference_losses"))


@dataclass(frozen=True)
class LawParameter:
    """A fitted parameter and its interval; an end that is None is open."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Forecast:
    """A law's forecast at a budget."""

    flops: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class FittedLaw:
    """An arm's fitted law; see `kdjax.forecast.Fit`.

    Attributes:
        formula: form of the law.
        reason: sentence on why this form was chosen.
        parameters: symbol -> estimate.
        residual_sd: standard deviation of runs around the law.
        shift_sd: standard deviation of the shifts that seeds give to all their runs.
        cautions: reasons to doubt the law.
        usable: whether the law may be extrapolated.
        widening: factor by which intervals of predictions are widened.
        predictions: forecasts at the plan's budgets.
        curve: forecasts on a grid of budgets.
    """

    formula: str
    reason: str
    parameters: dict[str, LawParameter]
    residual_sd: float
    shift_sd: float
    cautions: tuple[str, ...]
    usable: bool
    widening: float
    predictions: tuple[Forecast, ...]
    curve: tuple[Forecast, ...]

    def at(self, flops: float) -> Forecast | None:
        """Return the prediction at a budget of the plan; None where that buys no step."""
        return next((point for point in self.predictions if point.flops == flops), None)


@dataclass(frozen=True)
class HeldOutRow:
    """A held-out budget, predicted and reached; see `kdjax.forecast.HeldOutPrediction`."""

    name: str
    flops: float
    parameters: float
    predicted: float
    low: float
    high: float
    observed: float
    error: float
    noise: float | None
    covered: bool
    relative: float | None
    widening: float


@dataclass(frozen=True)
class HeldOutCheck:
    """A check with some of the largest budgets held out, of arms and of their differences."""

    budgets: int
    arms: tuple[HeldOutRow, ...]
    differences: tuple[HeldOutRow, ...]


@dataclass(frozen=True)
class ComparedAt:
    """The forecast difference of two arms at a budget, a less b, and its verdict."""

    flops: float
    mean: float
    low: float
    high: float
    verdict: ArmVerdict = field(metadata=stored_words(_VERDICT_WORDS))


@dataclass(frozen=True)
class ForecastRange:
    """Neighbouring budgets with one verdict on the first arm, from `low` to `high` FLOPs."""

    verdict: ArmVerdict = field(metadata=stored_words(_VERDICT_WORDS))
    low: float
    high: float


@dataclass(frozen=True)
class CrossingForecast:
    """The budget where two laws change places, as in `kdjax.evaluation.crossing.Crossing`.

    None: an open end.
    """

    value: float | None
    low: float | None
    high: float | None
    within: float
    later: str


@dataclass(frozen=True)
class ForecastComparison:
    """Store two arms compared over budgets.

    Attributes:
        a, b: names of the arms.
        points: differences at ascending budgets.
        ranges: neighbouring budgets with one verdict.
        crossing: budget at which the two change places.
    """

    a: str
    b: str
    points: tuple[ComparedAt, ...]
    ranges: tuple[ForecastRange, ...]
    crossing: CrossingForecast


@dataclass(frozen=True)
class Plan:
    """A plan: the content of plan.json.

    Attributes:
        kdjax, jax, python, device: versions and device the numbers were made with.
        config: resolved recipe as plain values.
        config_digest: SHA-256 of the recipe.
        endpoint: name of the endpoint that is forecast.
        case: way to pay for the teacher, a key of `kdjax.budget.accounting.CASES`.
        budgets: budgets that are forecast, in FLOPs.
        unique_tokens: number of tokens of text; None where the text has no end.
        baseline_arm: arm that the others are held against.
        arms: arm -> its size, its prices and what the budgets buy it.
        prior: forecasts of published laws.
        pilot: sweep that was fitted; None without one, as is everything below.
        fits: arm -> its fitted law.
        held_out: checks of how far the fit can be trusted.
        widening: arm, or `a - b` -> factor by which the checks widened intervals.
        contests: way to pay for the teacher -> comparisons of pairs of arms.
    """

    kdjax: str
    jax: str
    python: str
    device: str
    config: dict[str, Any]
    config_digest: str
    endpoint: str
    case: str
    budgets: tuple[float, ...]
    unique_tokens: float | None
    baseline_arm: str
    arms: dict[str, PlannedArm]
    prior: Prior
    pilot: Pilot | None = None
    fits: dict[str, FittedLaw] | None = None
    held_out: tuple[HeldOutCheck, ...] | None = None
    widening: dict[str, float] | None = None
    contests: dict[str, tuple[ForecastComparison, ...]] | None = None


@dataclass(frozen=True)
class FittedPlan:
    """A plan with its pilot: nothing here is None.

    Attributes:
        plan: plan as plan.json has it.
        pilot, fits, held_out, widening: fields of the plan.
        comparisons: the plan's `contests`.
    """

    plan: Plan
    pilot: Pilot
    fits: dict[str, FittedLaw]
    held_out: tuple[HeldOutCheck, ...]
    widening: dict[str, float]
    comparisons: dict[str, tuple[ForecastComparison, ...]]

    @staticmethod
    def from_plan(plan: Plan) -> FittedPlan | None:
        """Return a plan with its pilot; None where it has none."""
        if plan.pilot is None or plan.fits is None or plan.contests is None:
            return None
        # With too few budgets to hold one out there are no checks, and nothing is widened.
        held_out = plan.held_out or ()
        return FittedPlan(plan, plan.pilot, plan.fits, held_out, plan.widening or {}, plan.contests)

    @property
    def largest_budget(self) -> float:
        """Return the pilot's largest budget: beyond it, forecasts extrapolate."""
        return max(self.pilot.budgets)

    def of_case(self, case: str = "") -> tuple[ForecastComparison, ...]:
        """Return the comparisons in a case of who pays for the teacher; empty where there are none.

        Args:
            case: way to pay for the teacher; empty: the one that the budget enforces.
        """
        return self.comparisons.get(case or self.plan.case, ())
