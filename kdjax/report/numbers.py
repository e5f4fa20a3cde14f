"""How numbers are written for people: sensible digits, real minus signs, separated thousands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.budget.accounting import Budget

MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"


def flops(value: float) -> str:
    """FLOPs, for instance `1.50e12`."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"


def budget(values: Budget) -> str:
    """A budget with its unit, for instance `1.50e12 FLOPs`, `3.20e6 tokens`, `24 hours`."""
    amount = values.amount
    if values.kind == "hours":
        return time(3600 * amount)
    return f"{flops(amount)} FLOPs" if values.kind == "flops" else f"{tokens(amount)} tokens"


def tokens(amount: float) -> str:
    """Tokens, in full below a million: `64,000`, `3.20e6`."""
    return count(amount) if amount < 1e6 else flops(amount)


def within(values: Budget) -> str:
    """A budget as a sentence takes it up: `at 1.50e12 FLOPs`, `with 3.20e6 tokens`, `in 24
    hours`."""
    word = {"flops": "at", "tokens": "with", "hours": "in"}[values.kind]
    return f"{word} {budget(values)}"


def time(seconds: float) -> str:
    """A time that was set, in one unit: `24 hours`, `1 hour`, `20 minutes`, `36 seconds`."""
    size, unit = clock_unit(seconds)
    text = f"{seconds / size:.4g}"
    return f"{text} {unit if text != '1' else unit.removesuffix('s')}"


def clock_unit(seconds: float) -> tuple[int, str]:
    """The unit in which a time is at least 1: its seconds, and its name."""
    return next(
        ((size, name) for size, name in ((3600, "hours"), (60, "minutes")) if seconds >= size),
        (1, "seconds"),
    )


def count(value: float) -> str:
    """A whole number, for instance `104,448`."""
    return f"{round(value):,}"


def score(value: float) -> str:
    """A metric (a share, a correlation, nats): three decimals."""
    return f"{value:.3f}".replace("-", MINUS)


def p_value(value: float) -> str:
    """A p-value with its sign: `= 0.018`, and `< 0.001` below that."""
    return f"= {value:.3f}" if value >= 0.0005 else "< 0.001"


def spread(mean: float, sd: float | None) -> str:
    """A mean and, where there is one, its standard deviation: `0.631 ± 0.012`."""
    return score(mean) if sd is None else f"{score(mean)} ± {score(sd)}"


def signed(value: float) -> str:
    """A difference of two metrics: three decimals, and its sign even where it rounds to zero."""
    return f"{value:+.3f}".replace("-", MINUS) if value else "0.000"


def interval(low: float, high: float) -> str:
    """A confidence interval, for instance `[+0.083, +0.159]`, not broken over lines."""
    return f"[{signed(low)},{NO_BREAK}{signed(high)}]"


def between(low: float, high: float) -> str:
    """An interval of a metric, for instance `[7.151, 7.262]`, not broken over lines."""
    return f"[{score(low)},{NO_BREAK}{score(high)}]"


def percent(share: float) -> str:
    """A share as per cent, three digits; what is below 100% is never written as 100%."""
    value = 100 * share
    return f"{int(value * 100) / 100:.2f}%" if 99.9 < value < 100 else f"{value:.3g}%"


def size(amount: float) -> str:
    """Memory, for instance `73.5 MiB`; nothing at all is `none`."""
    if not amount:
        return "none"
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
    unit = next(n for n in range(len(units)) if amount < 999.5 * 1024**n)
    return f"{amount / 1024**unit:.3g} {units[unit]}"


def times(ratio: float) -> str:
    """How many times as much, for instance `2.17×`, `0.031×`, `41,200×`."""
    return (
        f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:.2f}×" if ratio >= 0.1 else f"{ratio:.2g}×"
    )


def duration(seconds: float) -> str:
    """Wall-clock, for instance `4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left:02} min" if hours else f"{minutes} min {rest:02} s"


def listed(words: Sequence[str]) -> str:
    """Words as running text: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def settings(values: Mapping[str, Any]) -> str:
    """Settings as running text: `student.size 3x192, data.seq_len 64`."""
    return ", ".join(f"{name} {value}" for name, value in values.items())
