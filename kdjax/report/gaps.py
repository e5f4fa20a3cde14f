"""Sentences on how the gap between two arms differs between two studies."""

from __future__ import annotations

from kdjax.report import numbers
from kdjax.report.phrases import counted, say
from kdjax.report.primary_endpoint import power
from kdjax.results.gaps import GapChange
from kdjax.results.verdicts import Endpoint


def sentence(change: GapChange, endpoint: Endpoint) -> str:
    """Return the sentence on one gap in two studies, with interval and adjusted p-value.

    Args:
        change: the difference of differences.
        endpoint: its endpoint.
    """
    seeds = counted(change.n, "seed")
    rest = say("claim_untested", seeds=seeds)
    if change.difference is not None and change.low is not None and change.high is not None:
        p_value = ""
        if change.p_adjusted is not None:
            p_value = say("primary_p", p_value=numbers.p_value(change.p_adjusted))
        rest = say(
            "claim_measured",
            difference=numbers.signed(change.difference),
            unit=endpoint.unit,
            interval=numbers.interval(change.low, change.high),
            seeds=seeds,
            p_value=p_value,
        )
        rest += power(change)
    return say(
        "gap",
        arm=change.arm,
        baseline=change.baseline,
        label=endpoint.label,
        first=change.first,
        second=change.second,
        settings=f" ({change.settings})" if change.settings else "",
        verdict=change.verdict,
        family=change.family,
        rest=rest,
    )
