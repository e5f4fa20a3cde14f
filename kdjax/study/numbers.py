"""How numbers are written for people: sensible digits, real minus signs, separated thousands."""

from __future__ import annotations

MINUS = "\N{MINUS SIGN}"


def flops(value: float) -> str:
    """FLOPs, for instance `1.50e12`."""
    return f"{value:.2e}".replace("e+", "e") if value else "0"


def count(value: float) -> str:
    """A whole number, for instance `104,448`."""
    return f"{round(value):,}"


def score(value: float) -> str:
    """A metric (a share, a correlation, nats): three decimals."""
    return f"{value:.3f}".replace("-", MINUS)


def signed(value: float) -> str:
    """A difference of two metrics: three decimals, with its sign also where it rounds to zero, as verdicts hang on it."""
    return f"{value:+.3f}".replace("-", MINUS) if value else "0.000"


def interval(low: float, high: float) -> str:
    """A confidence interval, for instance `[+0.083, +0.159]`."""
    return f"[{signed(low)}, {signed(high)}]"


def percent(share: float) -> str:
    """A share as per cent; one decimal below 10%, and below 100% never written as 100%."""
    value = 100 * share
    if 99 <= value < 100:
        return f"{int(value * 100) / 100:.2f}%"
    return f"{value:.1f}%" if value < 10 else f"{value:.0f}%"


def duration(seconds: float) -> str:
    """Wall-clock, for instance `4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left:02} min" if hours else f"{minutes} min {rest:02} s"


def listed(words: list[str]) -> str:
    """Words as running text: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""
