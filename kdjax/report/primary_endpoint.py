"""What a study's primary endpoint shows, in sentences."""

from __future__ import annotations

from kdjax.evaluation.statistics import BaselineComparison
from kdjax.report import numbers
from kdjax.results.schema import Results


def sentences(results: Results) -> list[str]:
    """Say what the primary endpoint shows, an arm a sentence, each with its interval and adjusted
    p-value.

    Args:
        results: the content of results.json.
    """
    primary = results.primary
    if not primary:
        return []
    endpoint = next(e for e in results.endpoints if e.name == primary.endpoint)
    count = len(primary.comparisons)
    tests = (
        "one paired t-test" if count == 1 else f"{count} paired t-tests, adjusted by Holm's method"
    )
    lines = [f"Primary endpoint, {endpoint.label}, against {primary.baseline} ({tests}):"]
    for comparison in primary.comparisons:
        lines.append(_sentence(comparison, primary.baseline, endpoint.unit))
    return lines


def _sentence(comparison: BaselineComparison, baseline: str, unit: str) -> str:
    arm = comparison.arm
    difference = comparison.difference
    low = comparison.low
    high = comparison.high
    if difference is None or low is None or high is None or comparison.p_adjusted is None:
        return f"{arm} and {baseline} share {comparison.n} seeds, expected at least two for a test."
    outcome = {
        "BEATS": f"{arm} BEATS {baseline}",
        "LOSES": f"{baseline} BEATS {arm}",
        "TIES": f"{arm} TIES with {baseline}, the interval lies within the margin",
        "INCONCLUSIVE": f"{arm} cannot be told from {baseline}",
    }[comparison.verdict]
    interval = numbers.interval(low, high)
    excludes_zero = low > 0 or high < 0
    why = ""
    if comparison.verdict == "INCONCLUSIVE" and excludes_zero:
        why = " (the interval alone leaves out 0; with so many tests that is not enough)"
    p_value = "p" if comparison.p_adjusted == comparison.p_value else "adjusted p"
    return (
        f"{outcome}: {numbers.signed(difference)} {unit}, {interval} over "
        f"{comparison.n} seeds, {p_value} {numbers.p_value(comparison.p_adjusted)}{why}."
    )
