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
    """Store how a model's own MLM head did on held-out text.

    Attributes:
        accuracy: share of masked positions predicted right.
        positions: masked positions measured.
        teacher_kl: KL divergence from the teacher at temperature 1; None without a comparable one.
        teacher_agreement: share of masked positions predicted as the teacher does.
        shuffled: the loss on shuffled words; None where the recipe does not ask for it.
    """

    accuracy: float
    positions: int
    teacher_kl: float | None
    teacher_agreement: float | None
    shuffled: float | None = optional()


@dataclass(frozen=True)
class ProbeLoss:
    """Store how an MLM probe did on held-out text.

    Attributes:
        accuracy: share of masked positions predicted right.
        positions: masked positions measured.
        shuffled: the loss on shuffled words; None where the recipe does not ask for it.
    """

    accuracy: float
    positions: int
    shuffled: float | None = optional()


@dataclass(frozen=True)
class ProbeFit:
    """Store how an MLM probe was fitted, and how it did on the study's own text.

    Attributes:
        accuracy: share of masked positions predicted right.
        positions: masked positions measured.
        half: the loss after half of the tokens.
        gain: how much the second half lowered it.
        tolerance: the largest gain of a probe that has converged.
        converged: whether it has.
        tokens: that it was fitted on.
        steps: that it was fitted for.
        flops: of fitting it.
        layer_weights: the learned weight of each layer, from the embeddings on.
        curve: the loss along its steps.
        shuffled: the loss on shuffled words; None where the recipe does not ask for it.
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
    """Store a linear probe of one layer: its regularisation, its score on dev and test rows."""

    layer: int
    strength: float
    dev: float
    test: float


@dataclass(frozen=True)
class ProbedLayers:
    """Store a task's linear probes, one on each layer.

    Attributes:
        layer: the one chosen on the dev rows.
        strength: of its regularisation.
        last_layer: test score of the last layer.
        layers: the scores of every layer, from the embeddings on.
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
    """Store what a run did in one phase: its steps, sequences of a batch, and FLOPs."""

    steps: int
    batch: int
    flops: int


@dataclass(frozen=True)
class HardwareUse:
    """Store what a run's steps did to the devices; see `kdjax.study.machine.hardware_use`."""

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
    """Store a finished run: a row of results.json, and the content of its own result.json.

    Attributes:
        arm: name of its arm.
        seed: its seed.
        budget: what it could spend.
        used: what it spent of that, in the budget's unit.
        spent: FLOPs by account; `total` of all of them, and `charged` to a budget of FLOPs.
        cache_bytes: size of the stored teacher outputs that it read.
        steps: optimiser steps.
        phases: what it did in each of them.
        positions: batch x length, summed over steps.
        tokens_seen: padding not counted.
        tokens_unique: of these, seen for the first time.
        tokens_masked: of these, predicted.
        epochs: how often the text was seen.
        wall_clock: by kind.
        hardware: what its steps did to the devices.
        metrics: endpoint -> value.
        details: endpoint -> how that came about.
        curve: figures along the run, each with `step`, `flops` and `share` of the budget.
        params_sha256: of the parameters it ended with.
        ledger_sha256: of the last entry of its ledger's journal.
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
    """Store a model measured beside the runs: an untrained start, or a teacher.

    Attributes:
        name: `untrained start`, `teacher`, or one of several.
        seed: of the start; None of a teacher.
        metrics: endpoint -> value.
        details: endpoint -> how that came about.
    """

    name: str
    seed: int | None
    metrics: dict[str, float]
    details: Details


# What was compared: arms, student, teacher and text.


@dataclass(frozen=True)
class ArmPhase:
    """Store a phase of an arm as it ran.

    Attributes:
        terms: its objective.
        until: share of the budget at which it ends.
        price: of a step.
        batch: sequences of a step.
        steps: of the arm's first run.
    """

    terms: tuple[TermConfig, ...]
    until: float
    price: Price
    batch: int
    steps: int


@dataclass(frozen=True)
class ArmResult:
    """Store an arm as it ran; what depends on the run is of its first one.

    Attributes:
        phases: of its budget.
        start: where the student's parameters start.
        student, optimizer, finetune: settings of its own.
        teacher: where the teacher's features come from; None: it looks at no teacher.
        steps, spent, tokens, epochs: of the run.
        parameters: of the student.
        parameters_without_embeddings: the same without the embedding tables.
        trains_mlm_head: whether the objective gives the MLM head a gradient.
        needs_teacher: whether it looks at a teacher or starts from one.
        untrained: the largest parts of the student without a gradient.
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
    """Store the size of the first arm's student."""

    layers: int
    width: int
    heads: int
    ffn: int
    vocab_size: int
    parameters: int
    parameters_without_embeddings: int


@dataclass(frozen=True)
class PretrainingFacts:
    """Store how kdjax pretrained a teacher: seed, share of the budget, budget, tokens seen."""

    seed: int
    at: float
    budget: int
    tokens: int
    others: dict[str, Any] = rest()


@dataclass(frozen=True)
class TeacherFacts:
    """Store what is known of a teacher; of several together, the first one's with mean losses.

    Attributes:
        source: where it was read from; empty: it was trained here.
        training_flops: of pretraining it; 0: not known.
        head_flops: of fitting an MLM head to its frozen encoder.
        mlm_loss: held-out loss of its own MLM head; None without one.
        mlm_accuracy: the same head's accuracy.
        tuning_flops: of training its encoder on.
        note: what the recipe says of it.
        architecture: its model's settings.
        pretraining: how kdjax pretrained it; None where it did not.
        teachers: each of several; None where there is one.
        others: what else its card says.
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
    """Store a text's own cross-entropies; see `kdjax.data.prepare.reference_losses`."""

    unigram: float
    left_neighbor: float
    both_neighbors: float
    tokens: int
    fitted_tokens: int
    held_out_tokens: int
    unknown: dict[str, float]


@dataclass(frozen=True)
class WholeText:
    """Store the size of a text of which runs may see a subset: by split."""

    sequences: dict[str, int]
    tokens: dict[str, int]


@dataclass(frozen=True)
class TextFacts:
    """Store what is known of a held-out text from elsewhere."""

    documents: int
    sequences: int
    tokens: int
    digest: str


@dataclass(frozen=True)
class CorpusFacts:
    """Store what is known of a study's text.

    Attributes:
        regime: how much unique text there is.
        documents, sequences, tokens: by split, of what runs see.
        whole: of the whole text.
        digest: of the text.
        length: tokens of a sequence.
        views: mask copies of a sequence; 0: new masks in every epoch.
        vocabulary: entries of the tokenizer.
        tokenizer: its SHA-256.
        reference_losses: the text's own cross-entropies.
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
    """Store what is known of stored teacher outputs.

    Attributes:
        views: mask copies that are stored.
        sequences: of the text.
        flops: of the passes that made them.
        bytes: on disk.
        bias: how far they are off the teacher, a position.
        settings: how they are stored.
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
    """Store what models are measured by.

    Attributes:
        name: for instance `mlm_loss` or `probe.TASK`.
        label: for people.
        unit: of its values.
        better: which values are.
        kind: mlm, mlm_probe, probe or finetune.
        arms: those for which it means something.
    """

    name: str
    label: str
    unit: str
    better: Better
    kind: str
    arms: tuple[str, ...]


@dataclass(frozen=True)
class MeasuredEndpoint(Endpoint):
    """Store an endpoint of a study, with its held-out rows and the score of the majority class."""

    rows: int
    baseline: float | None


@dataclass(frozen=True)
class PairVerdict:
    """Store an endpoint's verdict on two arms; see `kdjax.evaluation.statistics.Comparison`."""

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
    """Store the tests of every arm against the baseline arm on the primary endpoint."""

    endpoint: str
    baseline: str
    comparisons: tuple[BaselineComparison, ...]


@dataclass(frozen=True)
class CaseVerdict:
    """Store what a verdict becomes in one way to pay for the teacher.

    Attributes:
        endpoint: its endpoint.
        a, b: the arms.
        verdict: BEATS, TIES, AT LEAST TIES, OPEN or INCONCLUSIVE.
        ratio: a's cost over b's.
    """

    endpoint: str
    a: str
    verdict: str
    b: str
    ratio: float


@dataclass(frozen=True)
class SharedCaseVerdict(CaseVerdict):
    """Store a verdict that depends on how many students share the teacher's training.

    Attributes:
        students: the fewest for which a beats b; None: no number would do.
    """

    students: int | None


@dataclass(frozen=True)
class Case:
    """Store one way to pay for the teacher.

    Attributes:
        case: a key of `kdjax.budget.accounting.CASES`.
        enforced: whether the budget was held against it.
        costs: arm -> mean FLOPs of a run.
        unknown: arms whose cost is at least that.
        verdicts: of the study's verdicts in their order, what they become.
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
    """Store an arm's best trial: its number, the settings tried and the endpoint's value."""

    number: int
    settings: dict[str, Any]
    value: float


@dataclass(frozen=True)
class ArmTuning:
    """Store what the trials of an arm came to.

    Attributes:
        diverged: how many did.
        best: the best one.
        edges: setting -> the end of its range, `low` or `high`, at which the best lies.
        charged, total, steps, seconds: over all its trials.
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
    """Store what the trials of an arm came to, with their values in order; None: diverged."""

    values: tuple[float | None, ...]


@dataclass(frozen=True)
class TrialRow:
    """Store a trial: its number, the settings tried, its value (None: diverged) and its costs."""

    number: int
    settings: dict[str, Any]
    value: float | None
    charged: int
    total: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class ArmTrials(ArmTuning):
    """Store what the trials of an arm came to, and the trials themselves."""

    trials: tuple[TrialRow, ...]


@dataclass(frozen=True)
class TuningTerms:
    """Store what was alike for every arm that was tuned; see `kdjax.config.TuneConfig`."""

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
    """Store how the arms of a study were tuned, as results.json has it.

    Attributes:
        file: the tuning.json.
        arms: arm -> what its trials came to.
    """

    file: str
    arms: dict[str, ArmTrialValues]


@dataclass(frozen=True)
class TuningResults(TuningTerms):
    """Store a tuning: the content of tuning.json.

    Attributes:
        kdjax, jax, python, device, optuna: what the numbers were made with.
        config_digest: SHA-256 of the resolved recipe.
        arms: arm -> its trials.
        reference_losses: of the trials' text; None in a file from before they were counted.
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
    """Store a setting in which arms differ: its name, and arm -> what it is there, in words."""

    setting: str
    values: dict[str, str]


@dataclass(frozen=True)
class Results:
    """Store a study's results: the content of results.json.

    Attributes:
        version: of the file.
        kdjax, jax, python, device: what the numbers were made with.
        wall_clock: of the study's commands, by kind.
        config: the resolved recipe as plain values (`kdjax.recipes.from_dict` reads it).
        config_digest: its SHA-256.
        budget: of each run.
        corpus: the text.
        teacher: None where no arm needs one.
        cache: stored teacher outputs; None where no arm reads any.
        student: of the first arm.
        arms: in the recipe's order.
        baseline_arm: the arm that the others are held against.
        differences: in what arms differ.
        same: what they share, in words.
        endpoints: what is measured.
        runs: seed by seed, arm by arm.
        references: untrained starts and teachers.
        verdicts: every pair of arms on every endpoint.
        primary: the tests on the primary endpoint; None without one.
        tuning: how the arms were tuned; None where they were not.
        cases: ways to pay for the teacher.
        notes: what a reader has to know, in sentences.
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
        row: a run, or a model for reference.
        endpoint: for instance `probe.topic`.
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
