"""How arms compare: endpoints, verdicts, and verdicts under other ways to pay for the teacher."""

from __future__ import annotations

from dataclasses import dataclass

from kdjax.evaluation.statistics import BaselineComparison, Better, Verdict


@dataclass(frozen=True)
class Endpoint:
    """One measure of a model, with its unit and direction.

    Attributes:
        name: key of the endpoint, for instance `mlm_loss` or `probe.TASK`.
        label: name for people.
        unit: unit of the values.
        better: whether lower or higher values are better.
        kind: kind of measurement: mlm, mlm_probe, minimal_pairs, or a protocol on tasks.
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
    """An endpoint of a study, with its held-out rows, and the score of the majority class or of
    guessing."""

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
