"""What results.json holds, as types: a study's runs, arms, endpoints, verdicts and facts.

A field has the name of its key in the file. `kdjax.results.store` reads and writes them. Losses are
in nats, costs in FLOPs, times in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from kdjax.budget.accounting import Budget
from kdjax.budget.hardware import Peak
from kdjax.budget.price import Price
from kdjax.config import StartConfig, TermConfig
from kdjax.evaluation.statistics import BaselineComparison, Better, Verdict

VERSION = 2
"""Of results.json. Files without a version are of the first one, which had no `baseline_arm`."""

T = TypeVar("T")

OPTIONAL = "optional"
"""In a field's metadata: it is written only where there is a value."""
REST = "rest"
"""In a field's metadata: it takes every key that no other field has."""


def optional() -> Any:
    """Return a field that is None where the file does not have its key."""
    return field(default=None, metadata={OPTIONAL: True})


def rest() -> Any:
    """Return a field for all keys that the type does not name."""
    return field(default_factory=dict, metadata={REST: True})


# What the evaluation of one model leaves, endpoint by endpoint, in `details`.


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


@dataclass(frozen=True)
class ProbeFit:
    """The fit of an MLM probe, and its result on the study's own text.

    Attributes:
        accuracy: share of masked positions predicted right.
        positions: number of masked positions measured.
        half: loss after half of the tokens.
        gain: drop of the loss over the second half of the tokens.
        tolerance: largest gain of a probe that has converged.
        converged: whether the gain is within the tolerance.
        tokens: number of tokens the probe was fitted on.
        steps: number of optimiser steps of the fit.
        flops: FLOPs of fitting the probe.
        layer_weights: learned weight of each layer, from the embeddings on.
        curve: losses along the steps of the fit.
        shuffled: loss on shuffled words; None where the recipe does not ask for it.
    """

    accuracy: float
    positions: int
    half: float
    gain: float
    tolerance: float
    converged: bool
    tokens: int
    steps: int
    flops: int
    layer_weights: tuple[float, ...]
    curve: tuple[dict[str, float], ...]
    shuffled: float | None = optional()


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
    """

    layer: int
    strength: float
    last_layer: float
    layers: tuple[LayerScore, ...]


Details = dict[str, HeadLoss | ProbeFit | ProbeLoss | ProbedLayers]
"""Endpoint -> how its value came about; fine-tuning has none."""


# A run, and a model for reference: rows of what was measured.


@dataclass(frozen=True)
class RunPhase:
    """One phase of a run: its steps, sequences of a batch, and FLOPs."""

    steps: int
    batch: int
    flops: int


@dataclass(frozen=True)
class HardwareUse:
    """The use a run's steps made of the devices; see `kdjax.study.machine.hardware_use`."""

    model_flops: int
    hardware_flops: int | None
    devices: int
    peak: Peak
    model_utilisation: float | None
    hardware_utilisation: float | None
    program_bytes: int | None
    high_water_bytes: int
    high_water_source: str
    side_by_side: int = 1


@dataclass(frozen=True)
class RunResult:
    """A finished run: a row of results.json.

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
        positions: batch x length, summed over steps.
        tokens_seen: tokens of all batches, padding not counted.
        tokens_unique: tokens seen for the first time.
        tokens_masked: tokens masked and predicted.
        epochs: number of passes over the text.
        wall_clock: seconds by kind of work.
        hardware: use of the devices by the run's steps.
        metrics: endpoint -> value.
        details: endpoint -> how its value came about.
        curve: figures along the run, each with `step`, `flops` and `share` of the budget.
        params_sha256: SHA-256 of the final parameters.
        ledger_sha256: SHA-256 of the last entry of the ledger's journal.
    """

    arm: str
    seed: int
    budget: Budget
    used: float
    spent: dict[str, int]
    cache_bytes: int
    steps: int
    phases: tuple[RunPhase, ...]
    positions: int
    tokens_seen: int
    tokens_unique: int
    tokens_masked: int
    epochs: float
    wall_clock: dict[str, float]
    hardware: HardwareUse
    metrics: dict[str, float]
    details: Details
    curve: tuple[dict[str, float], ...]
    params_sha256: str
    ledger_sha256: str


@dataclass(frozen=True)
class Reference:
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


# What was compared: arms, student, teacher and text.


@dataclass(frozen=True)
class ArmPhase:
    """A phase of an arm as it ran.

    Attributes:
        terms: terms of the phase's objective.
        until: share of the budget at which the phase ends.
        price: FLOPs of a step, by part.
        batch: number of sequences in a step.
        steps: number of steps in the arm's first run.
    """

    terms: tuple[TermConfig, ...]
    until: float
    price: Price
    batch: int
    steps: int


@dataclass(frozen=True)
class ArmResult:
    """An arm as it ran; what depends on the run is taken from its first one.

    Attributes:
        phases: phases of the arm, in order.
        start: source of the student's first parameters.
        student, optimizer, finetune: settings that are the arm's own.
        teacher: source of the teacher's features; None: the arm looks at no teacher.
        steps, spent, tokens, epochs: figures of the arm's first run; see `RunResult`.
        parameters: number of the student's parameters.
        parameters_without_embeddings: number of them outside the embedding tables.
        trains_mlm_head: whether the objective gives the MLM head a gradient.
        needs_teacher: whether the arm looks at a teacher or starts from one.
        untrained: largest parts of the student that get no gradient.
    """

    phases: tuple[ArmPhase, ...]
    start: StartConfig
    student: dict[str, Any]
    optimizer: dict[str, Any]
    finetune: dict[str, Any]
    teacher: Literal["cached", "online"] | None
    steps: int
    spent: dict[str, int]
    tokens: int
    epochs: float
    parameters: int
    parameters_without_embeddings: int
    trains_mlm_head: bool
    needs_teacher: bool
    untrained: tuple[str, ...]


@dataclass(frozen=True)
class StudentFacts:
    """The size of the first arm's student."""

    layers: int
    width: int
    heads: int
    ffn: int
    vocab_size: int
    parameters: int
    parameters_without_embeddings: int


@dataclass(frozen=True)
class PretrainingFacts:
    """The pretraining of a teacher by kdjax: seed, share of the budget, budget, tokens seen."""

    seed: int
    at: float
    budget: int
    tokens: int
    others: dict[str, Any] = rest()


@dataclass(frozen=True)
class TeacherFacts:
    """The facts of a teacher; of several together, the first one's with mean losses.

    Attributes:
        source: path or name the teacher was read from; empty: it was trained here.
        training_flops: FLOPs of pretraining the teacher; 0: not known.
        head_flops: FLOPs of fitting an MLM head to its frozen encoder.
        mlm_loss: held-out loss of the teacher's own MLM head; None without one.
        mlm_accuracy: held-out accuracy of that head.
        tuning_flops: FLOPs of training the teacher's encoder further, with its head.
        note: remark of the recipe on the teacher.
        architecture: settings of the teacher's model.
        pretraining: facts of its pretraining by kdjax; None where kdjax did not pretrain it.
        teachers: facts of each of several teachers; None where there is one.
        others: further entries of the teacher's card.
    """

    source: str
    training_flops: int
    head_flops: int
    mlm_loss: float | None
    mlm_accuracy: float | None
    tuning_flops: int = 0
    note: str | None = optional()
    architecture: dict[str, Any] | None = optional()
    pretraining: PretrainingFacts | None = optional()
    teachers: tuple[TeacherFacts, ...] | None = optional()
    others: dict[str, Any] = rest()


@dataclass(frozen=True)
class CountedLosses:
    """A text's own cross-entropies; see `kdjax.data.prepare.reference_losses`."""

    unigram: float
    left_neighbor: float
    both_neighbors: float
    tokens: int
    fitted_tokens: int
    held_out_tokens: int
    unknown: dict[str, float]


@dataclass(frozen=True)
class WholeText:
    """The size, by split, of a text of which runs may see a subset."""

    sequences: dict[str, int]
    tokens: dict[str, int]


@dataclass(frozen=True)
class TextFacts:
    """The facts of a held-out text from elsewhere."""

    documents: int
    sequences: int
    tokens: int
    digest: str


@dataclass(frozen=True)
class CorpusFacts:
    """The facts of a study's text.

    Attributes:
        regime: name of the regime, which says how much unique text there is.
        documents, sequences, tokens: split -> number that runs see.
        whole: size of the whole text.
        digest: SHA-256 that identifies the text.
        length: number of tokens in a sequence.
        views: number of mask copies of a sequence; 0: new masks in every epoch.
        vocabulary: number of the tokenizer's entries.
        tokenizer: SHA-256 of the tokenizer.
        reference_losses: cross-entropies of the text itself; None where not counted.
        texts: name -> held-out text from elsewhere.
    """

    regime: str
    documents: dict[str, int]
    sequences: dict[str, int]
    tokens: dict[str, int]
    whole: WholeText
    digest: str
    length: int
    views: int
    vocabulary: int
    tokenizer: str
    reference_losses: CountedLosses | None = optional()
    texts: dict[str, TextFacts] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredOutputs:
    """The facts of stored teacher outputs.

    Attributes:
        views: number of mask copies stored.
        sequences: number of the text's sequences.
        flops: FLOPs of the teacher's passes that made the outputs.
        bytes: size on disk.
        bias: mean deviation from the teacher at a position, by measure.
        settings: settings they are stored with.
    """

    views: int
    sequences: int
    flops: int
    bytes: int
    bias: dict[str, float]
    settings: dict[str, Any] = rest()


# How arms compare: endpoints, verdicts, and verdicts under other ways to pay for the teacher.


@dataclass(frozen=True)
class Endpoint:
    """One measure of a model, with its unit and direction.

    Attributes:
        name: key of the endpoint, for instance `mlm_loss` or `probe.TASK`.
        label: name for people.
        unit: unit of the values.
        better: whether lower or higher values are better.
        kind: kind of measurement: mlm, mlm_probe, probe or finetune.
        arms: arms for which the endpoint means something.
    """

    name: str
    label: str
    unit: str
    better: Better
    kind: str
    arms: tuple[str, ...]


@dataclass(frozen=True)
class MeasuredEndpoint(Endpoint):
    """An endpoint of a study, with its held-out rows and the score of the majority class."""

    rows: int
    baseline: float | None


@dataclass(frozen=True)
class PairVerdict:
    """An endpoint's verdict on two arms; see `kdjax.evaluation.statistics.Comparison`."""

    endpoint: str
    a: str
    b: str
    difference: float | None
    low: float | None
    high: float | None
    n: int
    verdict: Verdict


@dataclass(frozen=True)
class PrimaryResult:
    """The tests of every arm against the baseline arm on the primary endpoint."""

    endpoint: str
    baseline: str
    comparisons: tuple[BaselineComparison, ...]


@dataclass(frozen=True)
class CaseVerdict:
    """A verdict restated for one way to pay for the teacher.

    Attributes:
        endpoint: name of the endpoint.
        a, b: names of the arms.
        verdict: one of BEATS, TIES, AT LEAST TIES, OPEN and INCONCLUSIVE.
        ratio: cost of a over cost of b.
    """

    endpoint: str
    a: str
    verdict: str
    b: str
    ratio: float


@dataclass(frozen=True)
class SharedCaseVerdict(CaseVerdict):
    """A restated verdict that depends on how many students share the teacher's training.

    Attributes:
        students: smallest number for which a beats b; None: no number would do.
    """

    students: int | None


@dataclass(frozen=True)
class Case:
    """The study's costs and verdicts under one way to pay for the teacher.

    Attributes:
        case: name of the way to pay, a key of `kdjax.budget.accounting.CASES`.
        enforced: whether the study's budget charges the teacher this way.
        costs: mean FLOPs of a run, by arm.
        unknown: arms whose true cost may be higher than in `costs`.
        verdicts: the study's verdicts in their order, each restated for these costs.
    """

    case: str
    enforced: bool
    costs: dict[str, float]
    unknown: tuple[str, ...]
    verdicts: tuple[SharedCaseVerdict | CaseVerdict, ...]


# How the arms were tuned. A study's results hold less of it than tuning.json does: bases have what
# is in both.


@dataclass(frozen=True)
class BestTrial:
    """An arm's best trial: its number, the settings tried and the endpoint's value."""

    number: int
    settings: dict[str, Any]
    value: float


@dataclass(frozen=True)
class ArmTuning:
    """A summary of an arm's trials.

    Attributes:
        diverged: number of trials that diverged.
        best: trial with the best value.
        edges: setting -> end of its range, `low` or `high`, at which the best trial lies.
        charged, total, steps, seconds: sums over all trials.
    """

    diverged: int
    best: BestTrial
    edges: dict[str, str]
    charged: int
    total: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class ArmTrialValues(ArmTuning):
    """A summary of an arm's trials, with their values in order; None: diverged."""

    values: tuple[float | None, ...]


@dataclass(frozen=True)
class TrialRow:
    """A trial: its number, the settings tried, its value (None: diverged) and its costs."""

    number: int
    settings: dict[str, Any]
    value: float | None
    charged: int
    total: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class ArmTrials(ArmTuning):
    """A summary of an arm's trials, and the trials themselves."""

    trials: tuple[TrialRow, ...]


@dataclass(frozen=True)
class TuningTerms:
    """The terms that were alike for every tuned arm; see `kdjax.config.TuneConfig`."""

    endpoint: str
    better: Better
    trials: int
    share: float
    budget: Budget
    seeds: tuple[int, ...]
    sampler: str
    sampler_seed: int
    space: dict[str, Any]


@dataclass(frozen=True)
class Tuning(TuningTerms):
    """The tuning of a study's arms, as results.json has it.

    Attributes:
        file: path of the tuning.json.
        arms: arm -> summary of its trials.
    """

    file: str
    arms: dict[str, ArmTrialValues]


@dataclass(frozen=True)
class TuningResults(TuningTerms):
    """A tuning: the content of tuning.json.

    Attributes:
        kdjax, jax, python, device, optuna: versions and device the numbers were made with.
        config_digest: SHA-256 of the resolved recipe.
        arms: arm -> its trials.
        reference_losses: cross-entropies of the trials' text; None in a file from before they were
            counted.
    """

    kdjax: str
    jax: str
    python: str
    device: str
    optuna: str
    config_digest: str
    arms: dict[str, ArmTrials]
    reference_losses: CountedLosses | None = optional()


# The whole file.


@dataclass(frozen=True)
class SettingRow:
    """A setting in which arms differ: its name, and arm -> what it is there, in words."""

    setting: str
    values: dict[str, str]


@dataclass(frozen=True)
class Results:
    """A study's results: the content of results.json.

    Attributes:
        version: version of the file's format.
        kdjax, jax, python, device: versions and device the numbers were made with.
        wall_clock: seconds of the study's commands, by kind.
        config: resolved recipe as plain values (`kdjax.recipes.from_dict` reads it).
        config_digest: SHA-256 of the resolved recipe.
        budget: budget of each run.
        corpus: facts of the text.
        teacher: facts of the teacher; None where no arm needs one.
        cache: facts of the stored teacher outputs; None where no arm reads any.
        student: size of the first arm's student.
        arms: name -> arm as it ran, in the recipe's order.
        baseline_arm: arm that the others are held against.
        differences: settings in which arms differ.
        same: settings that the arms share, in words.
        endpoints: measures of the models.
        runs: finished runs, seed by seed, arm by arm.
        references: measured untrained starts and teachers.
        verdicts: verdicts on every pair of arms on every endpoint.
        primary: tests on the primary endpoint; None without one.
        tuning: tuning of the arms; None where they were not tuned.
        cases: costs and verdicts under each way to pay for the teacher.
        notes: remarks a reader has to know, in sentences.
    """

    kdjax: str
    jax: str
    python: str
    device: str
    wall_clock: dict[str, float]
    config: dict[str, Any]
    config_digest: str
    budget: Budget
    corpus: CorpusFacts
    teacher: TeacherFacts | None
    cache: StoredOutputs | None
    student: StudentFacts
    arms: dict[str, ArmResult]
    baseline_arm: str
    differences: tuple[SettingRow, ...]
    same: tuple[str, ...]
    endpoints: tuple[MeasuredEndpoint, ...]
    runs: tuple[RunResult, ...]
    references: tuple[Reference, ...]
    verdicts: tuple[PairVerdict, ...]
    primary: PrimaryResult | None
    tuning: Tuning | None
    cases: tuple[Case, ...]
    notes: tuple[str, ...]
    version: int = VERSION


def first_without_teacher(needs_teacher: Mapping[str, bool]) -> str:
    """Return the baseline arm: the first that needs no teacher, or the first where all need one.

    Args:
        needs_teacher: arm -> whether it looks at a teacher or starts from one.
    """
    without_teacher = (name for name, needs in needs_teacher.items() if not needs)
    return next(without_teacher, next(iter(needs_teacher)))


def probed_layers(row: RunResult | Reference, endpoint: str) -> ProbedLayers | None:
    """Return how a task's linear probes did on a model; None where it was not probed.

    Args:
        row: row of a run, or of a model for reference.
        endpoint: name of the endpoint, for instance `probe.topic`.
    """
    return _details(row, endpoint, ProbedLayers)


def head_loss(row: RunResult | Reference) -> HeadLoss | None:
    """Return how a model's own MLM head did; None where it has none that was trained."""
    return _details(row, "mlm_loss", HeadLoss)


def probe_fit(row: RunResult | Reference) -> ProbeFit | None:
    """Return how a model's MLM probe was fitted; None where it has none."""
    return _details(row, "mlm_probe", ProbeFit)


def _details(row: RunResult | Reference, endpoint: str, kind: type[T]) -> T | None:
    """Return a model's details on an endpoint; None where they are missing or of another kind."""
    details = row.details.get(endpoint)
    return details if isinstance(details, kind) else None


def shuffled_loss(row: RunResult | Reference, endpoint: str) -> float | None:
    """Return a model's loss on shuffled words; None where it was not measured."""
    details = row.details.get(endpoint)
    return getattr(details, "shuffled", None)
