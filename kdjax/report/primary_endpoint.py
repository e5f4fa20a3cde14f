"""What a study's primary endpoint shows, in sentences."""

from __future__ import annotations

from kdjax.evaluation.statistics import BaselineComparison
from kdjax.report import numbers
from kdjax.report.phrases import counted, say
from kdjax.results.study import Results


def sentences(results: Results) -> list[str]:
    """Return a sentence an arm on the primary endpoint, with interval and adjusted p-value.

    Args:
        results: the content of results.json.

    Returns:
        A heading and a sentence for each arm; none where no endpoint is the primary one.
    """
    primary = results.primary
    if not primary:
        return []
    endpoint = next(e for e in results.endpoints if e.name == primary.endpoint)
    tests = counted(len(primary.comparisons), "paired t-test")
    heading = say("primary", label=endpoint.label, baseline=primary.baseline, tests=tests)
    lines = [_sentence(row, primary.baseline, endpoint.unit) for row in primary.comparisons]
    return [heading, *lines]


def _sentence(comparison: BaselineComparison, baseline: str, unit: str) -> str:
    """Return the sentence on the test of one arm."""
    arms = {"arm": comparison.arm, "baseline": baseline}
    seeds = counted(comparison.n, "seed")
    difference = comparison.difference
    low = comparison.low
    high = comparison.high
    if difference is None or low is None or high is None:
        return say("primary_untested", seeds=seeds, **arms)
    # With enough seeds only two arms that both failed go untested.
    if comparison.p_adjusted is None:
        return say("primary_failed", seeds=seeds, **arms)
    # An interval that leaves out 0 is no verdict where the adjusted test is not significant.
    excludes_zero = low > 0 or high < 0
    reason = ""
    if comparison.verdict == "INCONCLUSIVE" and excludes_zero:
        reason = say("primary_alone")
    return say(
        "primary_test",
        outcome=say(f"primary_{comparison.verdict}", **arms),
        difference=numbers.signed(difference),
        unit=unit,
        interval=numbers.interval(low, high),
        seeds=seeds,
        p_value=numbers.p_value(comparison.p_adjusted),
        reason=reason,
    )
