"""What sweep.json holds, as types; `kdjax.storage.typed_json` reads and writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdjax.budget.accounting import Budget
from kdjax.budget.shared_steps import SharedSteps
from kdjax.errors import InputError
from kdjax.evaluation.crossing import Crossing
from kdjax.evaluation.statistics import OTHER_SIDE, ArmVerdict, Family
from kdjax.results.gaps import GapChange
from kdjax.results.runs import Divergence
from kdjax.results.text import CountedLosses
from kdjax.results.verdicts import Endpoint
from kdjax.storage.files import read_json
from kdjax.storage.typed_json import LATER, from_plain, optional, stored_as

SWEEP = "sweep.json"
"""File of a sweep's results, in its directory."""


@dataclass(frozen=True)
class SweptStudy:
    """A study of a sweep.

    Attributes:
        name: name of the study's directory.
        settings: swept setting, dotted -> the study's value.
        budget: budget of a run.
        results_digest: SHA-256 of the study's results.
    """

    name: str
    settings: dict[str, Any]
    budget: Budget
    results_digest: str


@dataclass(frozen=True)
class SweepRow:
    """A run with its study's settings; see `kdjax.results.runs.RunResult`.

    Attributes:
        cell: name of the run's study.
        budget: amount of the budget.
        unique_tokens: number of tokens of text there are to repeat.
        seconds: wall-clock of the run, in seconds.
        metrics: endpoint -> value; empty where a run of the arm diverged in its study.
        diverged: how the run diverged; None: it did not.
    """

    cell: str
    settings: dict[str, Any]
    arm: str
    seed: int
    budget: float
    used: float
    spent: dict[str, int]
    steps: int
    padded_tokens: int = field(metadata=stored_as("positions"))
    tokens_seen: int
    tokens_unique: int
    epochs: float
    parameters: int
    parameters_without_embeddings: int
    unique_tokens: int
    seconds: float
    metrics: dict[str, float]
    diverged: Divergence | None = optional()
    words_seen: int | None = optional()
    shared: SharedSteps | None = optional()


@dataclass(frozen=True)
class CurvePoint:
    """An arm's values at a budget: mean, sd (None for a single seed) and n over seeds."""

    budget: float
    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class PairPoint:
    """The paired difference of two arms at a budget, read from the first arm's side."""

    budget: float
    difference: float | None
    low: float | None
    high: float | None
    n: int
    verdict: ArmVerdict
    p_value: float | None = optional()
    p_adjusted: float | None = optional()
    family: Family | None = optional()

    def turned(self) -> PairPoint:
        """Return the same difference, read from the other arm's side."""
        verdict = OTHER_SIDE[self.verdict]
        if self.difference is None:
            return replace(self, verdict=verdict)
        if self.low is None or self.high is None:
            return replace(self, difference=-self.difference, verdict=verdict)
        # The ends of an interval change places with their signs.
        return replace(
            self, difference=-self.difference, low=-self.high, high=-self.low, verdict=verdict
        )


@dataclass(frozen=True)
class ArmPair:
    """Two arms on an endpoint over the budgets.

    Attributes:
        endpoint: name of the endpoint.
        a, b: names of the arms.
        points: difference of the arms, a's value less b's, small budgets first.
        crossings: budgets at which the mean difference changes sign.
    """

    endpoint: str
    a: str
    b: str
    points: tuple[PairPoint, ...]
    crossings: tuple[Crossing, ...]


@dataclass(frozen=True)
class StudentSize:
    """The size of an arm's student."""

    parameters: int
    parameters_without_embeddings: int


@dataclass(frozen=True)
class Group:
    """Studies that differ in their budget only.

    Attributes:
        settings: swept setting other than the budget -> its value in these studies.
        ngram_losses: cross-entropies of counts of the text alone; None where not counted.
        parameters: arm -> size of the student.
        curves: endpoint -> arm -> the arm's values, small budgets first.
        pairs: comparisons of every pair of arms on every endpoint.
    """

    settings: dict[str, Any]
    ngram_losses: CountedLosses | None = field(metadata=stored_as("reference_losses"))
    parameters: dict[str, StudentSize]
    curves: dict[str, dict[str, tuple[CurvePoint, ...]]]
    pairs: tuple[ArmPair, ...]


@dataclass(frozen=True)
class SizePoint:
    """An arm's values at a size: mean, sd (None for a single seed) and n over seeds."""

    parameters: int
    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Optimum:
    """The best size of a student, and its interval; an end is None where it lies beyond the sizes
    tried, both where nothing is known of it."""

    parameters: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Profile:
    """The dependence of an endpoint on the student's size at one budget.

    Attributes:
        endpoint, arm, budget: names of the endpoint and the arm, and the budget's amount.
        settings: swept setting other than size and budget -> its value here.
        points: values at each size, small sizes first.
        optimum: best size; None where there is none between the sizes tried.
    """

    endpoint: str
    arm: str
    budget: float
    settings: dict[str, Any]
    points: tuple[SizePoint, ...]
    optimum: Optimum | None


@dataclass(frozen=True)
class SweepResults:
    """A sweep: the content of sweep.json.

    Attributes:
        kdjax, jax, python, device: versions and device the numbers were made with.
        config: resolved recipe as plain values.
        config_digest: SHA-256 of the recipe.
        kind: kind of the budget: flops, tokens or hours.
        fields: swept setting -> its values.
        cells: studies of the sweep, small budgets first.
        arms: names of the arms.
        baseline_arm: arm that the others are held against.
        endpoints: measures of the models.
        rows: every run of every study.
        groups: studies grouped by all swept settings but the budget.
        profiles: dependences on the student's size; none where there is one size.
        gaps: how the gaps to the baseline arm differ between a setting's last value and its first.
    """

    kdjax: str
    jax: str
    python: str
    device: str
    config: dict[str, Any]
    config_digest: str
    kind: str
    fields: dict[str, Any]
    cells: tuple[SweptStudy, ...]
    arms: tuple[str, ...]
    baseline_arm: str
    endpoints: tuple[Endpoint, ...]
    rows: tuple[SweepRow, ...]
    groups: tuple[Group, ...]
    profiles: tuple[Profile, ...]
    gaps: tuple[GapChange, ...] = field(default=(), metadata={LATER: True})


def read_sweep(path: Path) -> SweepResults:
    """Read a sweep.json.

    Args:
        path: path of a sweep.json.

    Raises:
        InputError: a field is missing, mistyped or unknown.
    """
    return sweep_of(read_json(path), path)


def sweep_of(content: Any, path: Path) -> SweepResults:
    """Read the content of a sweep.json as a sweep.

    Args:
        content: plain values, as JSON gives them.
        path: the file, for messages.

    Raises:
        InputError: a field is missing, mistyped or unknown.
    """
    # A file of an older version can be made anew, so the message says how.
    try:
        return from_plain(SweepResults, content, f"{path}:")
    except InputError as error:
        raise InputError(
            f"{error}; `kdjax sweep` with the sweep's recipe writes the file anew from its studies"
        ) from None


def rows_of(sweep: SweepResults, settings: Mapping[str, Any]) -> list[SweepRow]:
    """Return the runs of a combination of the settings other than the budget."""
    return [row for row in sweep.rows if settings.items() <= row.settings.items()]
