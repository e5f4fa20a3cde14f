"""How numbers are written for people: sensible digits, real minus signs, separated thousands."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kdjax.budget.accounting import Budget
from kdjax.results.verdicts import Endpoint

MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"
ARROWS = {"higher": "↑", "lower": "↓"}
"""Marks behind an endpoint's unit, by which values are better."""
_PREPOSITIONS = {"flops": "at", "tokens": "with", "hours": "in"}
"""Words before a budget, by its kind."""


def flops(value: float) -> str:
    """Return FLOPs as text, for instance `1.50e12`."""
    if not value:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def budget(values: Budget) -> str:
    """Return a budget with its unit as text: `1.50e12 FLOPs`, `3.20e6 tokens`, `24 hours`."""
    if values.kind == "hours":
        return time(3600 * values.amount)
    if values.kind == "flops":
        return f"{flops(values.amount)} FLOPs"
    return f"{tokens(values.amount)} tokens"


def tokens(amount: float) -> str:
    """Return tokens as text, in full below a million: `64,000`, `3.20e6`."""
    if amount < 1e6:
        return count(amount)
    return flops(amount)


def budget_phrase(values: Budget) -> str:
    """Return a budget as a phrase: `at 1.50e12 FLOPs`, `with 3.20e6 tokens`, `in 24 hours`."""
    return f"{_PREPOSITIONS[values.kind]} {budget(values)}"


def time(seconds: float) -> str:
    """Return a time that was set as text, in one unit: `24 hours`, `1 hour`, `36 seconds`."""
    size, unit = clock_unit(seconds)
    text = f"{seconds / size:.4g}"
    # `1 hour`, but `1.5 hours`.
    if text == "1":
        unit = unit.removesuffix("s")
    return f"{text} {unit}"


def clock_unit(seconds: float) -> tuple[int, str]:
    """Return the largest unit in which a time is at least 1: its seconds, and its name."""
    for size, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return size, name
    return 1, "seconds"


def count(value: float) -> str:
    """Return a whole number as text, for instance `104,448`."""
    return f"{round(value):,}"


def score(value: float) -> str:
    """Return a metric (a share, a correlation, nats) as text with three decimals."""
    return f"{value:.3f}".replace("-", MINUS)


def p_value(value: float) -> str:
    """Return a p-value as text with its sign: `= 0.018`, and `< 0.001` below that."""
    return f"= {value:.3f}" if value >= 0.0005 else "< 0.001"


def no_score(endpoint: Endpoint, *, diverged: bool = False) -> str:
    """Return the text in place of a score.

    Args:
        endpoint: the endpoint, which may mean nothing for an arm.
        diverged: whether a run of the arm has diverged.
    """
    if diverged:
        return "diverged"
    if endpoint.kind in ("mlm", "minimal_pairs"):
        return "head untrained"
    return "–"


def spread(mean: float, sd: float | None) -> str:
    """Return as text a mean and, where there is one, its standard deviation: `0.631 ± 0.012`."""
    if sd is None:
        return score(mean)
    return f"{score(mean)} ± {score(sd)}"


def signed(value: float) -> str:
    """Return a difference of two metrics as text: three decimals, a sign even on a rounded 0."""
    # Exactly 0 has no sign.
    if not value:
        return "0.000"
    return f"{value:+.3f}".replace("-", MINUS)


def interval(low: float, high: float) -> str:
    """Return a confidence interval as text without line breaks: `[+0.083, +0.159]`."""
    return f"[{signed(low)},{NO_BREAK}{signed(high)}]"


def metric_interval(low: float, high: float) -> str:
    """Return an interval of a metric as text without line breaks: `[7.151, 7.262]`."""
    return f"[{score(low)},{NO_BREAK}{score(high)}]"


def percent(share: float) -> str:
    """Return a share as per cent, three digits; a share below 1 is never rounded to 100%."""
    value = 100 * share
    # Rounding to three digits would make 100% of it.
    if 99.9 < value < 100:
        return f"{int(value * 100) / 100:.2f}%"
    return f"{value:.3g}%"


def size(amount: float) -> str:
    """Return bytes as text, for instance `73.5 MiB`; nothing at all is `none`."""
    if not amount:
        return "none"
    # The largest unit that leaves three digits at most before the point.
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
    unit = next(n for n in range(len(units)) if amount < 999.5 * 1024**n)
    return f"{amount / 1024**unit:.3g} {units[unit]}"


def ratio(ratio: float) -> str:
    """Return a ratio as text, for instance `2.17×`, `0.031×`, `41,200×`."""
    if ratio >= 100:
        return f"{ratio:,.0f}×"
    return f"{ratio:.2f}×" if ratio >= 0.1 else f"{ratio:.2g}×"


def duration(seconds: float) -> str:
    """Return seconds of wall-clock as text, for instance `4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    # Seconds are rounded before they are split, so that no `60 s` comes out.
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def span(values: Iterable[float], show: Callable[[float], str]) -> str:
    """Return the smallest and the largest of some values as text: `3`, `2 to 5`."""
    ordered = sorted(values)
    low = show(ordered[0])
    high = show(ordered[-1])
    return low if low == high else f"{low} to {high}"
