"""How arms compare: endpoints, verdicts, and verdicts under other ways to pay for the teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kdjax.config.verdicts import Scale
from kdjax.evaluation.statistics import Better, Family, Verdict
from kdjax.evaluation.statistics.contrast import ClaimVerdict
from kdjax.storage.typed_json import LATER, optional


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
        scale: kind of its values, which decides the margin of a tie. Files of earlier versions do
            not tell a loss from an accuracy here, and have one margin for both.
    """

    name: str
    label: str
    unit: str
    better: Better
    kind: str
    arms: tuple[str, ...]
    scale: Scale = field(default="accuracy", kw_only=True, metadata={LATER: True})


@dataclass(frozen=True)
class MeasuredEndpoint(Endpoint):
    """An endpoint of a study, with its held-out rows, and the score of the best constant answer or
    of guessing."""

    rows: int
    baseline: float | None


@dataclass(frozen=True)
class PairVerdict:
    """An endpoint's verdict on two arms; see `kdjax.evaluation.statistics.Comparison`.

    `rows_low` and `rows_high` are the ends of the interval for other seeds and other test rows at
    once; None where it is not stored which rows were right.

    Verdicts of files before the third version were not adjusted, but for p-values of the primary
    endpoint, and have no family.
    """

    endpoint: str
    a: str
    b: str
    difference: float | None
    low: float | None
    high: float | None
    n: int
    verdict: Verdict
    p_value: float | None = optional()
    p_adjusted: float | None = optional()
    family: Family | None = optional()
    detectable: float | None = optional()
    seeds_needed: int | None = optional()
    rows_low: float | None = optional()
    rows_high: float | None = optional()


@dataclass(frozen=True)
class ContrastVerdict:
    """A contrast of arms, as the recipe names it, and what its test says.

    Attributes:
        name: name of the contrast.
        endpoint: name of the endpoint.
        weights: arm -> its weight.
        direction: what is claimed of the arms with weights above 0.
        difference: mean over shared seeds of the weighted sum, in the endpoint's unit; None without
            a shared seed.
        low, high: ends of its unadjusted interval; None with fewer than two shared seeds.
        n: number of seeds that all of its arms have.
        verdict: what the test says of the claim.
        p_value, p_adjusted, family, detectable, seeds_needed: see
            `kdjax.evaluation.statistics.PairedOutcome`.
    """

    name: str
    endpoint: str
    weights: dict[str, float]
    direction: Literal["better", "worse"]
    difference: float | None
    low: float | None
    high: float | None
    n: int
    verdict: ClaimVerdict
    family: Family
    p_value: float | None = optional()
    p_adjusted: float | None = optional()
    detectable: float | None = optional()
    seeds_needed: int | None = optional()


@dataclass(frozen=True)
class CaseVerdict:
    """A verdict restated for one way to pay for the teacher.

    Attributes:
        endpoint: name of the endpoint.
        a, b: names of the arms.
        verdict: one of BEATS, TIES, AT LEAST TIES, OPEN, INCONCLUSIVE and NOT LEARNT.
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
