"""How the time of a token grows with each size of a step, beside what the price predicts.

    python -m benchmarks.growth --out runs/bench

One size is varied at a time around a base that two cores run in a fraction of a second. All steps
are compiled first; then blocks of steps of all of them take turns in random order, and a point's
time relative to the base's is the median over rounds, with its 95% interval by bootstrap. Time and
price are per token (a place of the batch). What grows faster than its price by more than a tenth,
interval included, is flagged. Compile time and the memory that the compiler asks for are of the
same programs. Writes growth.json, growth.md and growth.png to --out.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from rich.console import Console
from rich.table import Table

from benchmarks.cases import ARMS, Case, Kdjax, Pair, batch, start
from benchmarks.machine import describe, restrict
from benchmarks.timing import Ratio, in_turn, ratio
from kdjax import memory
from kdjax.config import ComputeConfig, ModelConfig
from kdjax.errors import InputError
from kdjax.training.phase import BatchShape

BASE = {
    "length": 64,
    "width": 128,
    "depth": 2,
    "vocabulary": 8192,
    "slots": 10,
    "batch": 16,
    "teacher width": 256,
}
VALUES = {
    "length": (32, 64, 128, 256, 512),
    "width": (64, 128, 256, 512),
    "depth": (1, 2, 4, 8),
    "vocabulary": (2048, 8192, 32768),
    "slots": (5, 10, 20, 40),
    "batch": (4, 8, 16, 32, 64),
    "teacher width": (128, 256, 512),
}
TEACHER_DEPTH = 4
FACTOR_ON_GPU = {
    "length": 2,
    "width": 4,
    "depth": 3,
    "vocabulary": 4,
    "slots": 2,
    "batch": 16,
    "teacher width": 4,
}
"""By how much a base is larger that keeps a GPU busy."""
TOLERATED = 1.1
"""How much faster than its price a time may grow before it is flagged."""


@dataclass(frozen=True)
class Point:
    """One size, measured; per token and relative to the base where not said otherwise.

    Attributes:
        size, value, base: what was varied, and its value in the base.
        price: FLOPs.
        time: seconds, the median over rounds and its interval.
        seconds: of a step, not relative.
        compiling: seconds, not relative.
        memory: bytes by the compiler, not relative; None where it does not say.
    """

    size: str
    value: int
    base: int
    price: float
    time: Ratio
    seconds: float
    compiling: float
    memory: int | None

    @property
    def excess(self) -> float:
        """Time over price."""
        return self.time.median / self.price

    @property
    def flagged(self) -> bool:
        """Whether, larger than the base, it grew faster than its price."""
        return self.value > self.base and self.time.low / self.price > TOLERATED


def case(arm: str, sizes: dict[str, int], compute: ComputeConfig) -> Case:
    """The step of these sizes."""

    def model(layers: int, width: int) -> ModelConfig:
        return ModelConfig(
            layers=layers,
            width=width,
            heads=max(width // 64, 1),
            ffn=4 * width,
            vocab_size=sizes["vocabulary"],
            max_positions=sizes["length"],
            dropout=0.0,
            attention_dropout=0.0,
        )

    pair = Pair(model(sizes["depth"], sizes["width"]), model(TEACHER_DEPTH, sizes["teacher width"]))
    return Case(arm, pair, BatchShape(sizes["batch"], sizes["length"], sizes["slots"]), compute)


def measure(
    arm: str, base: dict[str, int], values: dict[str, tuple[int, ...]], options: Any
) -> list[Point]:
    """Compiles all steps, times them in turn, and sets them beside their prices."""
    compute = ComputeConfig(dtype="float32" if jax.default_backend() == "cpu" else "bfloat16")
    keys = {
        f"{size} {value}": (size, value)
        for size, many in values.items()
        for value in many
        if value != base[size]
    }
    # Not compiled first: the first program pays for what JAX loads once
    keys["base"] = (
        None,
        None,
    )
    cases = {}
    runners = {}
    for name, (size, value) in keys.items():
        cases[name] = case(arm, base if size is None else {**base, size: value}, compute)
        runners[name] = _runner(cases[name])
        print(
            f"compiled {name}: {runners[name].program.compile_seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )
    times = in_turn(runners, options.rounds, options.seconds)
    seconds = {name: getattr(found, options.clock) for name, found in times.items()}

    def price(name: str) -> float:
        return cases[name].price.total / cases[name].shape.tokens_per_step

    def point(size: str, value: int) -> Point:
        name = "base" if value == base[size] else f"{size} {value}"
        places = cases[name].shape.tokens_per_step / cases["base"].shape.tokens_per_step
        program = runners[name].program
        return Point(
            size,
            value,
            base[size],
            price(name) / price("base"),
            ratio(np.asarray(seconds[name]) / places, seconds["base"]),
            float(np.median(seconds[name])),
            program.compile_seconds,
            program.memory["peak"] if program.memory else None,
        )

    return [point(size, value) for size, many in values.items() for value in many]


def _runner(one: Case) -> Kdjax:
    batches = [batch(one.shape, one.pair.student.vocab_size, seed) for seed in range(2)]
    return Kdjax(one, start(one.pair.student, 0), start(one.pair.teacher, 1), batches)


def exponents(points: list[Point]) -> dict[str, tuple[float, float]]:
    """Of every size: the powers of it that price and time grow with, fitted to all its points."""
    found = {}
    for size in dict.fromkeys(one.size for one in points):
        own = [one for one in points if one.size == size]
        x = np.log([one.value for one in own])
        slopes = [
            np.polyfit(x, np.log(y), 1)[0]
            for y in ([o.price for o in own], [o.time.median for o in own])
        ]
        found[size] = (float(slopes[0]), float(slopes[1]))
    return found


HEADER = [
    "size",
    "value",
    "price",
    "time [95%]",
    "time / price",
    "step ms",
    "compile s",
    "peak MB",
    "",
]


def cells(points: list[Point]) -> list[list[str]]:
    """The table's rows."""
    return [
        [
            one.size,
            f"{one.value}{' (base)' if one.value == one.base else ''}",
            f"{one.price:.3f}",
            str(one.time),
            f"{one.excess:.2f}",
            f"{1e3 * one.seconds:.1f}",
            f"{one.compiling:.1f}",
            "-" if one.memory is None else f"{one.memory / 1e6:,.0f}",
            "faster than its price" if one.flagged else "",
        ]
        for one in points
    ]


INK = "#222222"
GREY = "#888888"
MEASURED = "#1f6fb4"
PRICE = "#d1662a"


def plot(points: list[Point], title: str, path: Path) -> None:
    """Small multiples: a panel a size with time and price, then compile time and memory over depth
    and width."""
    sizes = list(dict.fromkeys(one.size for one in points))
    style = {
        "font.size": 9,
        "axes.edgecolor": GREY,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
    }
    with plt.rc_context(
        {**style, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False}
    ):
        columns = 4
        figure, axes = plt.subplots(3, columns, figsize=(12, 8.6), layout="constrained")
        growth = list(axes[:2].flat)
        rest = axes[2]
        both = [y for one in points for y in (one.price, one.time.low, one.time.high)]
        limits = (min(both) / 1.25, max(both) * 1.25)
        for axis, size in zip(growth, sizes, strict=False):
            _growth(axis, [one for one in points if one.size == size], limits)
        for axis in axes[:2, 0]:
            axis.set_ylabel("per token, relative to the base")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        for axis in growth[len(sizes) :]:
            axis.axis("off")
            axis.legend(handles, labels, loc="center left", frameon=False, fontsize=10)
        for n, (size, what) in enumerate(
            (s, w) for w in ("compile", "memory") for s in ("depth", "width")
        ):
            own = [one for one in points if one.size == size]
            if not own:
                rest[n].axis("off")
                continue
            values = [o.compiling if what == "compile" else (o.memory or np.nan) / 1e6 for o in own]
            _plain(rest[n], size, [one.value for one in own], values)
            rest[n].set_ylabel("compile time, s" if what == "compile" else "peak memory, MB")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=140)
        plt.close(figure)


def _growth(axis: Any, points: list[Point], limits: tuple[float, float]) -> None:
    x = [one.value for one in points]
    middle = [one.time.median for one in points]
    spread = [
        [one.time.median - one.time.low for one in points],
        [one.time.high - one.time.median for one in points],
    ]
    axis.axhline(1, color=GREY, linewidth=0.6)
    axis.axvline(points[0].base, color=GREY, linewidth=0.6, linestyle=":")
    axis.plot(
        x,
        [one.price for one in points],
        color=PRICE,
        marker="s",
        markersize=4,
        linestyle="--",
        label="price",
    )
    axis.errorbar(
        x,
        middle,
        spread,
        color=MEASURED,
        marker="o",
        markersize=4,
        capsize=2,
        label="measured time, 95%",
    )
    axis.set_ylim(*limits)
    axis.set_yscale("log")
    ticks = [t for t in (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32) if limits[0] <= t <= limits[1]]
    axis.set_yticks(ticks)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    _sizes(axis, points[0].size, x)


def _plain(axis: Any, size: str, x: list[int], y: list[float]) -> None:
    axis.plot(x, y, color=INK, marker="o", markersize=4)
    axis.set_ylim(0, 1.15 * max(y))
    _sizes(axis, size, x)


def _sizes(axis: Any, size: str, x: list[int]) -> None:
    """A logarithmic axis of sizes, labelled with those that were measured."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(x, [str(value) for value in x])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_xlabel(f"{size}, tokens" if size == "length" else size)


def markdown(points: list[Point]) -> str:
    """The table, and the exponents."""
    lines = [HEADER, ["---"] * len(HEADER), *cells(points)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    powers = "\n".join(f"| {s} | {p:.2f} | {t:.2f} |" for s, (p, t) in exponents(points).items())
    return (
        f"{table}\n\n| size | price grows with its power | time with its power "
        f"|\n|---|---|---|\n{powers}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arm", choices=ARMS, default="logit")
    parser.add_argument("--sizes", nargs="+", choices=VALUES, default=list(VALUES), metavar="SIZE")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2, help="about how long a block lasts")
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help=(
            "what is measured; seconds of processors, with --threads 1, are worth something on a "
            "busy machine too"
        ),
    )
    parser.add_argument(
        "--threads", type=int, help="cores to use, of those this process may; default: all of them"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    try:
        run(options)
    except InputError as e:
        print(f"benchmarks.growth: {e}", file=sys.stderr)
        sys.exit(2)


def run(options: argparse.Namespace) -> None:
    """Everything the command line asks for."""
    if options.rounds < 1:
        raise InputError(f"--rounds is {options.rounds}, expected at least 1")
    memory.configure_malloc()  # as kdjax's commands do
    restrict(options.threads)
    scale = {size: 1 if jax.default_backend() == "cpu" else FACTOR_ON_GPU[size] for size in BASE}
    base = {size: value * scale[size] for size, value in BASE.items()}
    values = {size: tuple(value * scale[size] for value in VALUES[size]) for size in options.sizes}
    points = measure(options.arm, base, values, options)
    table = Table(title=f"{options.arm}: per token, relative to the base", title_justify="left")
    for name in HEADER:
        table.add_column(name, justify="left" if name in ("size", "") else "right")
    for line in cells(points):
        table.add_row(*line)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    machine = describe() | {"command": " ".join(["python -m benchmarks.growth", *sys.argv[1:]])}
    options.out.mkdir(parents=True, exist_ok=True)
    everything = {"machine": machine, "base": base, "points": [asdict(one) for one in points]}
    (options.out / "growth.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")
    about = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    (options.out / "growth.md").write_text(f"{about}\n\n{markdown(points)}", encoding="utf-8")
    student = f"{base['depth']} x {base['width']}"
    step = f"{base['batch']} x {base['length']} tokens a step"
    title = (
        f"{options.arm}: cost of a token around a {student} student, {step}, {options.clock} time"
    )
    plot(points, title, options.out / "growth.png")
    print(f"{options.out}/growth.json, growth.md, growth.png")


if __name__ == "__main__":
    main()
