"""What a study's confirmatory tests and contrasts show, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from kdjax.report import numbers, summary
from kdjax.report.phrases import counted, say
from kdjax.report.summary import Difference
from kdjax.results.gaps import GapChange
from kdjax.results.study import Results
from kdjax.results.verdicts import ContrastVerdict, MeasuredEndpoint


def sentences(results: Results) -> list[str]:
    """Return a sentence an arm on the primary endpoint, with interval and adjusted p-value.

    Args:
        results: the content of results.json.

    Returns:
        A heading and a sentence for each arm; none where no endpoint is the primary one.
    """
    endpoint = next((e for e in results.endpoints if e.name == results.primary), None)
    if endpoint is None:
        return []
    baseline = results.baseline_arm
    lines = []
    for arm in results.arms:
        tested = summary.difference(results, endpoint, arm, baseline)
        if tested is not None:
            lines.append(_sentence(tested, arm, baseline, endpoint))
    if not lines:
        return []
    tests = counted(len(lines), "paired t-test")
    return [say("primary", label=endpoint.label, baseline=baseline, tests=tests), *lines]


def contrasts(results: Results) -> list[str]:
    """Return a sentence on each hypothesis and each other contrast of the recipe.

    Args:
        results: the content of results.json.
    """
    endpoints = {endpoint.name: endpoint for endpoint in results.endpoints}
    hypotheses = results.config["evaluation"].get("hypotheses", {})
    return [
        _claim(contrast, endpoints[contrast.endpoint], contrast.name in hypotheses)
        for contrast in results.contrasts
    ]


def weighted(weights: Mapping[str, float]) -> str:
    """Write a contrast of arms as a sum: `minilm − scratch`, `0.5 a + 0.5 b − c`."""
    parts = []
    for arm, weight in weights.items():
        sign = "+" if weight > 0 else numbers.MINUS
        size = "" if abs(weight) == 1 else f"{abs(weight):g} "
        parts.append(f"{sign} {size}{arm}")
    return " ".join(parts).removeprefix("+ ")


def power(difference: Difference | ContrastVerdict | GapChange) -> str:
    """Return what an inconclusive test could have seen, as a clause; else nothing."""
    if difference.detectable is None:
        return ""
    clause = say("could_see", detectable=numbers.score(difference.detectable))
    if difference.seeds_needed is None:
        return clause + say("takes_many")
    return clause + say("takes_seeds", seeds=counted(difference.seeds_needed, "seed"))


def _sentence(tested: Difference, arm: str, baseline: str, endpoint: MeasuredEndpoint) -> str:
    """Return the sentence on the test of one arm."""
    arms = {"arm": arm, "baseline": baseline}
    seeds = counted(tested.n, "seed")
    low = tested.low
    high = tested.high
    if tested.mean is None or low is None or high is None:
        return say("primary_untested", seeds=seeds, **arms)
    # An interval that leaves out 0 is no verdict where the adjusted test is not significant.
    excludes_zero = low > 0 or high < 0
    reason = ""
    if tested.outcome == "INCONCLUSIVE" and excludes_zero:
        reason = say("primary_alone")
    return say(
        "primary_test",
        outcome=say(f"primary_{tested.outcome}", **arms),
        difference=numbers.signed(tested.mean),
        unit=endpoint.unit,
        interval=numbers.interval(low, high),
        seeds=seeds,
        p_value=_adjusted(tested.p_adjusted),
        reason=reason + power(tested),
    )


def _claim(contrast: ContrastVerdict, endpoint: MeasuredEndpoint, is_hypothesis: bool) -> str:
    """Return the sentence on a contrast."""
    seeds = counted(contrast.n, "seed")
    low = contrast.low
    high = contrast.high
    rest = say("claim_untested", seeds=seeds)
    if contrast.difference is not None and low is not None and high is not None:
        rest = say(
            "claim_measured",
            difference=numbers.signed(contrast.difference),
            unit=endpoint.unit,
            interval=numbers.interval(low, high),
            seeds=seeds,
            p_value=_adjusted(contrast.p_adjusted),
        )
        rest += power(contrast)
    return say(
        "claim",
        kind=say("claim_hypothesis" if is_hypothesis else "claim_contrast"),
        name=contrast.name,
        contrast=weighted(contrast.weights),
        direction=contrast.direction,
        label=endpoint.label,
        verdict=contrast.verdict,
        rest=rest,
    )


def _adjusted(p_value: float | None) -> str:
    """Return an adjusted p-value as a clause; nothing where there was no test."""
    return "" if p_value is None else say("primary_p", p_value=numbers.p_value(p_value))
