"""How numbers are written for people: sensible digits, real minus signs, separated thousands."""

from __future__ import annotations

MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"


def flops(value: float) -> str:
    """FLOPs, for instance `1.50e12`."""
    return f"{value:.2e}".replace("e+", "e") if value else "0"


def count(value: float) -> str:
    """A whole number, for instance `104,448`."""
    return f"{round(value):,}"


def score(value: float) -> str:
    """A metric (a share, a correlation, nats): three decimals."""
    return f"{value:.3f}".replace("-", MINUS)


def spread(mean: float, sd: float | None) -> str:
    """A mean and, where there is one, its standard deviation: `0.631 ± 0.012`."""
    return score(mean) if sd is None else f"{score(mean)} ± {score(sd)}"


def signed(value: float) -> str:
    """A difference of two metrics: three decimals, and its sign even where it rounds to zero."""
    return f"{value:+.3f}".replace("-", MINUS) if value else "0.000"


def interval(low: float, high: float) -> str:
    """A confidence interval, for instance `[+0.083, +0.159]`, not broken over lines."""
    return f"[{signed(low)},{NO_BREAK}{signed(high)}]"


def percent(share: float) -> str:
    """A share as per cent, three digits; what is below 100% is never written as 100%."""
    value = 100 * share
    return f"{int(value * 100) / 100:.2f}%" if 99.9 < value < 100 else f"{value:.3g}%"


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
