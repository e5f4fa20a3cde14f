"""A run, and a model for reference, as rows of what was measured and how the values came about.

Losses are in nats, costs in FLOPs, times in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from kdjax.budget.accounting import Budget
from kdjax.budget.hardware import Peak
from kdjax.budget.shared_steps import SharedSteps
from kdjax.evaluation.finetuning.results import FinetunedTask
from kdjax.evaluation.pair_scores import ScoredPairs
from kdjax.storage.typed_json import optional, stored_as

T = TypeVar("T")


@dataclass(frozen=True)
class HeadLoss:
    """The result of a model's own MLM head on held-out text.

    Attributes:
        accuracy: share of masked positions predicted right.
        positions: number of masked positions measured.
        teacher_kl: KL divergence from the teacher at temperature 1; None without a comparable one.
        teacher_agreement: share of masked positions predicted as the teacher does.
        shuffled: loss on shuffled words; None where the recipe does not ask for it.
    """

    accuracy: float
    positions: int
    teacher_kl: float | None
    teacher_agreement: float | None
    shuffled: float | None = optional()


@dataclass(frozen=True)
class ProbeLoss:
    """The result of an MLM probe on held-out text.

    Attributes:
        accuracy: share of masked positions predicted right.
        positions: number of masked positions measured.
        shuffled: loss on shuffled words; None where the recipe does not ask for it.
    """

    accuracy: float
    positions: int
    shuffled: float | None = optional()


@dataclass(frozen=True, kw_only=True)
class ProbeFit(ProbeLoss):
    """The fit of an MLM probe, and its result on the study's own text.

    Attributes:
        half: loss after half of the tokens.
        gain: drop of the loss over the second half of the tokens.
        tolerance: largest gain of a probe that has converged.
        converged: whether the gain is within the tolerance.
        tokens: number of tokens the probe was fitted on.
        steps: number of optimiser steps of the fit.
        flops: FLOPs of fitting the probe.
        layer_weights: learned weight of each layer, from the embeddings on.
        curve: losses along the steps of the fit.
    """

    half: float
    gain: float
    tolerance: float
    converged: bool
    tokens: int
    steps: int
    flops: int
    layer_weights: tuple[float, ...]
    curve: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class LayerScore:
    """A linear probe of one layer: its regularisation, its score on dev and test rows."""

    layer: int
    strength: float
    dev: float
    test: float


@dataclass(frozen=True)
class ProbedLayers:
    """A task's linear probes, one on each layer.

    Attributes:
        layer: layer chosen on the dev rows.
        strength: regularisation strength of that layer's probe.
        last_layer: test score of the last layer.
        layers: scores of every layer, from the embeddings on.
        rows: which reported rows the probe has right, in base64
            (`kdjax.evaluation.finetuning.results.right_rows`); None where that is not kept.
    """

    layer: int
    strength: float
    last_layer: float
    layers: tuple[LayerScore, ...]
    rows: str | None = optional()


@dataclass(frozen=True)
class PairScores:
    """A model's scores on a set of minimal pairs.

    Attributes:
        pairs: number of pairs.
        sentences: number of different sentences.
        scoring: way to score -> its results; the first is the endpoint's.
        flops: FLOPs of scoring the set in all these ways.
        digest: SHA-256 of the pairs.
    """

    pairs: int
    sentences: int
    scoring: dict[str, ScoredPairs]
    flops: int
    digest: str


Details = dict[str, HeadLoss | ProbeFit | ProbeLoss | ProbedLayers | PairScores | FinetunedTask]
"""Endpoint -> how its value came about. A suite's mean has none; of a task with several results,
how it was fine-tuned stands at the first one."""


@dataclass(frozen=True)
class RunPhase:
    """One phase of a run: its steps, sequences of a batch, and FLOPs."""

    steps: int
    batch: int
    flops: int


@dataclass(frozen=True)
class HardwareUse:
    """The use a run's steps made of the devices.

    Attributes:
        model_flops: FLOPs of all steps by price, charged or not.
        hardware_flops: FLOPs that the devices did for them; None where XLA does not say.
        devices: number of devices.
        side_by_side: number of runs that took their steps together, this one included; the time of
            a step is an even share.
        peak: the most that one device can do.
        model_utilisation, hardware_utilisation: share of the devices' peak over the time that the
            steps took; None where nothing was counted or timed.
        program_bytes: memory that the largest step, of all runs side by side, needs on a device by
            the compiler; None where it does not say.
        high_water_bytes: most memory in use in the process so far.
        high_water_source: source of that figure.
    """

    model_flops: int
    hardware_flops: int | None
    devices: int
    side_by_side: int = field(default=1, kw_only=True)
    peak: Peak
    model_utilisation: float | None
    hardware_utilisation: float | None
    program_bytes: int | None
    high_water_bytes: int
    high_water_source: str


@dataclass(frozen=True)
class Divergence:
    """How a run diverged: the step it came to, and the reason, for people."""

    step: int
    reason: str


@dataclass(frozen=True)
class RunResult:
    """A run that has ended: a row of results.json.

    It is the content of the run's own result.json, too.

    Attributes:
        arm: name of its arm.
        seed: random seed of the run.
        budget: budget of the run.
        used: amount spent of the budget, in its unit.
        spent: FLOPs by account; `total` sums them, `charged` is the part a budget of FLOPs pays.
        cache_bytes: size of the stored teacher outputs that the run read.
        steps: number of optimiser steps.
        phases: steps, batch and FLOPs of each phase.
        padded_tokens: batch x length, summed over steps; `positions` in files.
        tokens_seen: tokens of all batches, padding not counted.
        tokens_unique: tokens seen for the first time.
        tokens_masked: tokens masked and predicted.
        epochs: number of passes over the text.
        wall_clock: seconds by kind of work.
        hardware: use of the devices by the run's steps.
        metrics: endpoint -> value; empty where the run diverged.
        details: endpoint -> how its value came about.
        curve: figures along the run, each with `step`, `flops` and `share` of the budget.
        params_sha256: SHA-256 of the final parameters; None where training diverged and left none.
        ledger_sha256: SHA-256 of the last entry of the ledger's journal.
        diverged: how the run diverged; None: it did not.
        words_seen: words of the text that `tokens_seen` are, between white space
            (`kdjax.data.manifest.Manifest.words_in`); None where the corpus has no count.
        shared: its first steps where a run of a smaller budget did and paid for them; None: it did
            all of them itself.
    """

    arm: str
    seed: int
    budget: Budget
    used: float
    spent: dict[str, int]
    cache_bytes: int
    steps: int
    phases: tuple[RunPhase, ...]
    padded_tokens: int = field(metadata=stored_as("positions"))
    tokens_seen: int
    tokens_unique: int
    tokens_masked: int
    epochs: float
    wall_clock: dict[str, float]
    hardware: HardwareUse
    metrics: dict[str, float]
    details: Details
    curve: tuple[dict[str, float], ...]
    params_sha256: str | None
    ledger_sha256: str
    diverged: Divergence | None = optional()
    words_seen: int | None = optional()
    shared: SharedSteps | None = optional()


@dataclass(frozen=True)
class ReferenceModel:
    """A model measured beside the runs: an untrained start, or a teacher.

    Attributes:
        name: `untrained start`, `teacher`, or one of several.
        seed: random seed of an untrained start; None for a teacher.
        metrics: endpoint -> value.
        details: endpoint -> how its value came about.
    """

    name: str
    seed: int | None
    metrics: dict[str, float]
    details: Details


class EndedRun(Protocol):
    """What is known of a run's end wherever runs are listed: in a study and in a sweep."""

    @property
    def arm(self) -> str:
        """Return the name of its arm."""

    @property
    def seed(self) -> int:
        """Return its seed."""

    @property
    def diverged(self) -> Divergence | None:
        """Return the step and the reason of its divergence; None: it did not diverge."""


def diverged_arms(runs: Iterable[EndedRun]) -> set[str]:
    """Return the arms of which a run has diverged.

    None of their runs is compared: the seeds that came through were not drawn, but chosen.
    """
    return {run.arm for run in runs if run.diverged is not None}


def probed_layers(row: RunResult | ReferenceModel, endpoint: str) -> ProbedLayers | None:
    """Return the record of a task's linear probes on a model; None where it was not probed.

    Args:
        row: row of a run, or of a model for reference.
        endpoint: name of the endpoint, for instance `probe.topic`.
    """
    return _details(row, endpoint, ProbedLayers)


def finetuned_task(row: RunResult | ReferenceModel, endpoint: str) -> FinetunedTask | None:
    """Return a model's fine-tuning record on an endpoint's task; None where there is none.

    Details are stored by task, and a task may have several results: those of `grid.mnli` are
    returned for `grid.mnli-mm`, too.

    Args:
        row: row of a run, or of a model for reference.
        endpoint: name of the endpoint, for instance `grid.mrpc`.
    """
    protocol, _, result = endpoint.partition(".")
    for details in row.details.values():
        if not isinstance(details, FinetunedTask) or details.protocol != protocol:
            continue
        if result in details.scores:
            return details
    return None


def head_loss(row: RunResult | ReferenceModel) -> HeadLoss | None:
    """Return the loss of a model's own MLM head; None where it has none that was trained."""
    return _details(row, "mlm_loss", HeadLoss)


def probe_fit(row: RunResult | ReferenceModel) -> ProbeFit | None:
    """Return the record of a model's MLM probe; None where it has none."""
    return _details(row, "mlm_probe", ProbeFit)


def pair_scores(row: RunResult | ReferenceModel, endpoint: str) -> PairScores | None:
    """Return a model's scores on a set of minimal pairs; None where it was not measured."""
    return _details(row, endpoint, PairScores)


def _details(row: RunResult | ReferenceModel, endpoint: str, kind: type[T]) -> T | None:
    """Return a model's details on an endpoint; None where they are missing or of another kind."""
    details = row.details.get(endpoint)
    if not isinstance(details, kind):
        return None
    return details


def shuffled_loss(row: RunResult | ReferenceModel, endpoint: str) -> float | None:
    """Return a model's loss on shuffled words; None where it was not measured."""
    details = row.details.get(endpoint)
    return getattr(details, "shuffled", None)
