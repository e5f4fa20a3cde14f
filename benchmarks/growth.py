"""Measure how the time of a token grows with each size of a step, beside what the price predicts.

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

from benchmarks import tables
from benchmarks.cases import ARMS, Case, Pair, runner
from benchmarks.machine import describe, restrict
from benchmarks.timing import Ratio, in_turn, ratio
from kdjax.config import ComputeConfig, ModelConfig
from kdjax.errors import InputError
from kdjax.runtime import memory
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
"""How many times as large each size is where a GPU measures: it takes more to be busy."""
TOLERATED = 1.1
"""How much faster than its price a time may grow before it is flagged."""


@dataclass(frozen=True)
class Point:
    """One size of a step, measured.

    Attributes:
        size: name of what was varied.
        value: its value here.
        base: its value in the base.
        price: FLOPs of a token relative to the base's.
        time: seconds of a token relative to the base's, the median over rounds and its interval.
        seconds: seconds of a step.
        compiling: seconds that compiling took.
        memory: peak bytes by the compiler; None where it does not say.
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
        """Divide the time by the price."""
        return self.time.median / self.price

    @property
    def flagged(self) -> bool:
        """Return whether a value above the base's took more time than its price tells."""
        return self.value > self.base and self.time.low / self.price > TOLERATED


def case(arm: str, sizes: dict[str, int], compute: ComputeConfig) -> Case:
    """Return an arm's step of these sizes, without dropout."""

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
    """Compile all steps, time them in turn, and set them beside their prices.

    Args:
        arm: name of the arm.
        base: each size in the base.
        values: the values that each size takes in turn.
        options: the command line's: `rounds`, `seconds` and `clock`.
    """
    compute = ComputeConfig(dtype="float32" if jax.default_backend() == "cpu" else "bfloat16")
    cases = {}
    for size, size_values in values.items():
        for value in size_values:
            cases[_name(size, value, base)] = case(arm, {**base, size: value}, compute)
    # The base last: the first program pays for what JAX loads once.
    cases["base"] = cases.pop("base", case(arm, base, compute))
    runners = {}
    for name, point_case in cases.items():
        runners[name] = runner(point_case)
        seconds = runners[name].program.compile_seconds
        print(f"compiled {name}: {seconds:.1f} s", file=sys.stderr, flush=True)

    # Seconds of a token and its price, of which the base's are the unit.
    times = in_turn(runners, options.rounds, options.seconds)
    seconds_per_token = {}
    prices = {}
    for name, point_case in cases.items():
        tokens = point_case.shape.tokens_per_step
        seconds_per_token[name] = np.asarray(getattr(times[name], options.clock)) / tokens
        prices[name] = point_case.price.total / tokens

    points = []
    for size, size_values in values.items():
        for value in size_values:
            name = _name(size, value, base)
            program = runners[name].program
            tokens = cases[name].shape.tokens_per_step
            point = Point(
                size,
                value,
                base[size],
                price=prices[name] / prices["base"],
                time=ratio(seconds_per_token[name], seconds_per_token["base"]),
                seconds=float(np.median(seconds_per_token[name])) * tokens,
                compiling=program.compile_seconds,
                memory=(program.memory or {}).get("peak"),
            )
            points.append(point)
    return points


def _name(size: str, value: int, base: dict[str, int]) -> str:
    """Return the name of a step; the base, which every size has, is measured once."""
    return "base" if value == base[size] else f"{size} {value}"


def by_size(points: list[Point]) -> dict[str, list[Point]]:
    """Return the points of each size that was varied, in the order of measurement."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.size, []).append(point)
    return groups


def exponents(points: list[Point]) -> dict[str, tuple[float, float]]:
    """Return the powers of each size that price and time grow with, fitted to all its points."""
    powers = {}
    for size, group in by_size(points).items():
        log_values = np.log([point.value for point in group])
        # A power is the slope of a line through the logarithms.
        logs = np.log([(point.price, point.time.median) for point in group])
        price_power, time_power = np.polyfit(log_values, logs, 1)[0].tolist()
        powers[size] = (price_power, time_power)
    return powers


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
    """Return the table's rows."""
    rows = []
    for point in points:
        value = str(point.value)
        if point.value == point.base:
            value += " (base)"
        row = [
            point.size,
            value,
            f"{point.price:.3f}",
            str(point.time),
            f"{point.excess:.2f}",
            f"{1e3 * point.seconds:.1f}",
            f"{point.compiling:.1f}",
            "-" if point.memory is None else f"{point.memory / 1e6:,.0f}",
            "faster than its price" if point.flagged else "",
        ]
        rows.append(row)
    return rows


INK = "#222222"
GREY = "#888888"
MEASURED = "#1f6fb4"
PRICE = "#d1662a"
STYLE = {
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def plot(points: list[Point], title: str, path: Path) -> None:
    """Draw time and price over each size, and compile time and memory over depth and width."""
    groups = by_size(points)
    columns = 4
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(3, columns, figsize=(12, 8.6), layout="constrained")
        growth = list(axes[:2].flat)

        # All panels of growth have one scale, so that steep ones look steep.
        lowest = min(min(point.price, point.time.low) for point in points)
        highest = max(max(point.price, point.time.high) for point in points)
        limits = (lowest / 1.25, highest * 1.25)
        for axis, group in zip(growth, groups.values(), strict=False):
            _growth(axis, group, limits)
        # The scale is shared, and so are the labels of a row.
        for axis in axes[:2, 0]:
            axis.set_ylabel("per token, relative to the base")
        # The panels that are left hold the legend.
        handles, labels = axes[0, 0].get_legend_handles_labels()
        for axis in growth[len(groups) :]:
            axis.axis("off")
            axis.legend(handles, labels, loc="center left", frameon=False, fontsize=10)

        # The last row is of the programs themselves: how long they compile, what memory they take.
        for column, size in enumerate(("depth", "width")):
            group = groups.get(size, [])
            compiling = [point.compiling for point in group]
            megabytes = [(point.memory or np.nan) / 1e6 for point in group]
            _plain(axes[2, column], group, compiling, "compile time, s")
            _plain(axes[2, column + 2], group, megabytes, "peak memory, MB")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=140)
        plt.close(figure)


def _growth(axis: Any, points: list[Point], limits: tuple[float, float]) -> None:
    """Draw price and time of one size, both axes logarithmic: a power is a straight line."""
    values = [point.value for point in points]
    prices = [point.price for point in points]
    medians = [point.time.median for point in points]
    below = [point.time.median - point.time.low for point in points]
    above = [point.time.high - point.time.median for point in points]
    # Where the lines cross lies the base.
    axis.axhline(1, color=GREY, linewidth=0.6)
    axis.axvline(points[0].base, color=GREY, linewidth=0.6, linestyle=":")
    marks = {"markersize": 4}
    axis.plot(values, prices, color=PRICE, marker="s", linestyle="--", label="price", **marks)
    measured = {"color": MEASURED, "marker": "o", "label": "measured time, 95%", **marks}
    # The bar is the 95% interval of the median.
    axis.errorbar(values, medians, [below, above], capsize=2, **measured)
    axis.set_ylim(*limits)
    axis.set_yscale("log")
    ticks = [t for t in (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32) if limits[0] <= t <= limits[1]]
    axis.set_yticks(ticks)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    _sizes(axis, points[0].size, values)


def _plain(axis: Any, points: list[Point], heights: list[float], label: str) -> None:
    """Draw one figure over a size; an empty panel where the size was not varied."""
    if not points:
        axis.axis("off")
        return
    values = [point.value for point in points]
    axis.plot(values, heights, color=INK, marker="o", markersize=4)
    axis.set_ylim(0, 1.15 * max(heights))
    axis.set_ylabel(label)
    _sizes(axis, points[0].size, values)


def _sizes(axis: Any, size: str, values: list[int]) -> None:
    """Make the horizontal axis logarithmic, labelled with the sizes that were measured."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(values, list(map(str, values)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("length, tokens" if size == "length" else size)


def markdown(points: list[Point]) -> str:
    """Return the table of points, and that of the exponents."""
    powers = []
    for size, (price_power, time_power) in exponents(points).items():
        powers.append([size, f"{price_power:.2f}", f"{time_power:.2f}"])
    header = ["size", "price grows with its power", "time with its power"]
    return f"{tables.markdown(HEADER, cells(points))}\n\n{tables.markdown(header, powers)}\n"


def main() -> None:
    """Measure what the command line asks for."""
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
    """Measure, print the table, and write it with its plot."""
    if options.rounds < 1:
        raise InputError(f"--rounds is {options.rounds}, expected at least 1")
    memory.configure_malloc()  # as kdjax's commands do
    restrict(options.threads)

    # A GPU needs larger steps to be busy.
    factors = dict.fromkeys(BASE, 1) if jax.default_backend() == "cpu" else FACTOR_ON_GPU
    base = {size: value * factors[size] for size, value in BASE.items()}
    values = {}
    for size in options.sizes:
        values[size] = tuple(value * factors[size] for value in VALUES[size])
    points = measure(options.arm, base, values, options)

    # The table on the terminal, then the record, the same table and the plot as files.
    title = f"{options.arm}: per token, relative to the base"
    tables.show(tables.console(160), title, HEADER, cells(points), words=("size", ""))
    machine = describe() | {"command": " ".join(["python -m benchmarks.growth", *sys.argv[1:]])}
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine, "base": base, "points": [asdict(point) for point in points]}
    (options.out / "growth.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
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
