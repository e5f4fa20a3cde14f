"""How the gap between two arms differs between two studies: a difference of differences."""

from __future__ import annotations

from dataclasses import dataclass

from kdjax.evaluation.statistics import Family
from kdjax.evaluation.statistics.contrast import ClaimVerdict
from kdjax.storage.typed_json import optional


@dataclass(frozen=True)
class GapChange:
    """The gap between an arm and the baseline arm in one study, less the same in another.

    Attributes:
        endpoint: name of the endpoint.
        arm, baseline: names of the arms.
        first, second: what the studies are called: a directory, or the value of a swept setting.
        difference: mean over shared seeds of (arm - baseline) in the first study less the same in
            the second, in the endpoint's unit; None without a shared seed.
        low, high: ends of its unadjusted interval; None with fewer than two shared seeds.
        n: number of seeds that all four have.
        verdict: what the test says of the claim that the arm is ahead of the baseline arm by more,
            or behind by less, in the first study.
        family, p_value, p_adjusted, detectable, seeds_needed: see
            `kdjax.evaluation.statistics.PairedOutcome`.
        settings: other settings of the two studies, as text.
    """

    endpoint: str
    arm: str
    baseline: str
    first: str
    second: str
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
    settings: str = ""
