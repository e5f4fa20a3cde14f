"""Compare training curves: steps of kdjax and of transformers' BERT with PyTorch's AdamW.

    python -m benchmarks.curves [--steps 500] [--students 2x64] [--out runs/curves]

Both begin with equal weights and see equal batches with equal masks; there is no dropout. The
reference is `BertForMaskedLM` in eager PyTorch, its loss and `torch.optim.AdamW` as one would write
them by hand. The teacher has twice the student's layers, and was trained on the same kind of text.
Text is drawn from a Markov chain, so that there is something to learn.

Rounding grows along a run whatever is compared. To see how much, kdjax runs once more from weights
that are moved by one unit in their last place: a difference from PyTorch that is of the size of
that difference is rounding, and no other mathematics. Prints a Markdown table, and writes
curves.json and curves.png to --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks import tables
from benchmarks.cases import OPTIMIZER, Case, Pair, start
from benchmarks.growth import GREY, MEASURED, PRICE, STYLE
from benchmarks.machine import describe, restrict
from benchmarks.torch_curve import torch_curve
from kdjax.config import OptimizerConfig
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.parallel.layout import Layout
from kdjax.runtime import memory
from kdjax.training.learning_rate import learning_rate
from kdjax.training.phase import BatchShape
from kdjax.training.program import Program
from kdjax.training.step import ScheduleInputs

ARMS = ("scratch", "logit", "minilm")
"""Arms whose curves are compared."""
VOCABULARY = 256
SHAPE = BatchShape(16, 32, 5)
RELATION_HEADS = 4
MASK = 4
"""Id of the mask token."""
FIRST_WORD = 5
"""Tokens below it are special."""
FOLLOWING = 0.9
"""Share of tokens that follow from the one before."""
PEAK = OptimizerConfig(learning_rate=1e-3, warmup=0.1)
WINDOW = 100
"""Steps of a window that differences are averaged over."""
DRAWN = 25
"""Steps of a window that a point of the picture is the mean of."""
HEADER = (
    "student, arm",
    "first loss",
    "last loss",
    "mean difference, first window",
    "last window",
    "largest difference",
    "largest from rounding alone",
)


@dataclass(frozen=True)
class Curves:
    """The losses of one arm, a step at a time.

    Attributes:
        student, arm: what was trained.
        kdjax, torch: the losses.
        rounded: kdjax's losses from weights that are moved by one unit in their last place.
    """

    student: str
    arm: str
    kdjax: list[float]
    torch: list[float]
    rounded: list[float]

    def difference(self, other: Sequence[float]) -> np.ndarray:
        """Return the relative difference of another curve from kdjax's, `[steps]`."""
        ours = np.asarray(self.kdjax)
        return np.abs(np.asarray(other) - ours) / ours

    def cells(self) -> list[str]:
        """Return the row of the table."""
        difference = self.difference(self.torch)
        return [
            f"{self.student}, {self.arm}",
            f"{self.kdjax[0]:.4f}",
            f"{np.mean(self.kdjax[-WINDOW:]):.4f}",
            f"{difference[:WINDOW].mean():.1e}",
            f"{difference[-WINDOW:].mean():.1e}",
            f"{difference.max():.1e}",
            f"{self.difference(self.rounded).max():.1e}",
        ]


def case_of(arm: str, student: str, shape: BatchShape = SHAPE) -> Case:
    """Return an arm with a student of LAYERSxWIDTH, without dropout.

    Args:
        arm: one of `ARMS`.
        student: size of the student; the teacher has twice its layers.
        shape: shape of a batch.
    """
    config = dataclasses.replace(
        zoo.get(student),
        vocab_size=VOCABULARY,
        max_positions=shape.seq_len,
        dropout=0.0,
        attention_dropout=0.0,
    )
    teacher = dataclasses.replace(config, layers=2 * config.layers)
    pair = Pair(config, teacher, shape.seq_len, shape.max_predictions, RELATION_HEADS)
    return Case(arm, pair, shape)


def markov_batch(shape: BatchShape, seed: int) -> dict[str, np.ndarray]:
    """Draw a batch of texts of unequal lengths, with masked words."""
    rng = np.random.default_rng(seed)
    words = VOCABULARY - FIRST_WORD
    # Some words are frequent, as in any text; what follows a word is the same in all batches.
    shares = 1 / np.arange(1, words + 1)
    shares /= shares.sum()
    following = np.random.default_rng(0).choice(words, words, p=shares)
    tokens = rng.choice(words, (shape.batch_size, shape.seq_len), p=shares)
    for place in range(1, shape.seq_len):
        follows = rng.random(shape.batch_size) < FOLLOWING
        tokens[:, place] = np.where(follows, following[tokens[:, place - 1]], tokens[:, place])
    tokens += FIRST_WORD

    # Texts end in their second half; slots lie in the first one, so that none is padding.
    ends = rng.integers(shape.seq_len // 2, shape.seq_len + 1, (shape.batch_size, 1))
    places = np.broadcast_to(np.arange(shape.seq_len), tokens.shape)
    valid = places < ends
    order = rng.random((shape.batch_size, shape.seq_len // 2)).argsort(axis=1)
    slots = np.sort(order[:, : shape.max_predictions], axis=1)
    labels = np.take_along_axis(tokens, slots, axis=1)
    np.put_along_axis(tokens, slots, MASK, axis=1)
    return {
        "tokens": np.where(valid, tokens, 0).astype(np.int32),
        "segments": valid.astype(np.int32),
        "positions": np.where(valid, places, 0).astype(np.int32),
        "valid": valid,
        "slots": slots.astype(np.int32),
        "labels": labels.astype(np.int32),
        "label_weights": np.ones(slots.shape, np.float32),
    }


def rates_of(steps: int) -> list[float]:
    """Return the learning rate of each step."""
    return [learning_rate(PEAK, n / steps, (n + 1) / steps) for n in range(steps)]


def compiled(case: Case) -> Program:
    """Compile an arm's step for one device."""
    layout = Layout.from_config(devices=jax.devices()[:1])
    return Program(case.phase, case.shape, layout, compute=case.compute)


def kdjax_curve(
    program: Program, params: Any, teacher: Any, batches: Sequence[Mapping[str, np.ndarray]]
) -> tuple[list[float], Any]:
    """Train by kdjax; return the loss of each step, and the parameters at the end."""
    state = program.start(params, seed=0)
    placed_teacher = program.place_teacher(teacher)
    losses = []
    for number, rate in enumerate(rates_of(len(batches))):
        schedule_inputs = ScheduleInputs(number / len(batches), rate)
        placed = program.place(batches[number])
        state, metrics = program.step(state, placed_teacher, placed, schedule_inputs)
        losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state.params["model"])


def moved(params: Any) -> Any:
    """Move every parameter by one unit in its last place, up or down by chance."""
    rng = np.random.default_rng(0)

    def move(leaf: Any) -> np.ndarray:
        values = np.asarray(leaf)
        towards = np.where(rng.random(values.shape) < 0.5, np.inf, -np.inf)
        return np.nextafter(values, towards.astype(values.dtype))

    return jax.tree.map(move, params)


def compare(student: str, arm: str, steps: int, teacher: Any) -> Curves:
    """Train one arm in all three ways."""
    case = case_of(arm, student)
    params = start(case.pair.student, 0)
    batches = [markov_batch(case.shape, seed) for seed in range(steps)]
    program = compiled(case)
    ours, _ = kdjax_curve(program, params, teacher, batches)
    rounded, _ = kdjax_curve(program, moved(params), teacher, batches)
    theirs = torch_curve(case, params, teacher, batches, rates_of(steps), OPTIMIZER)
    return Curves(student, arm, ours, theirs, rounded)


def trained_teacher(student: str, steps: int) -> Any:
    """Train the teacher of a student on texts that no student sees."""
    case = case_of("scratch", student)
    teacher = case.pair.teacher
    own = dataclasses.replace(case, pair=dataclasses.replace(case.pair, student=teacher))
    batches = [markov_batch(case.shape, 10**6 + seed) for seed in range(steps)]
    _, params = kdjax_curve(compiled(own), start(teacher, 1), start(teacher, 1), batches)
    return params


def plot(curves: list[Curves], path: Path) -> None:
    """Draw the losses, and below them the differences."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2,
            len(curves),
            figsize=(3.6 * len(curves), 5.4),
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        for column, arm in enumerate(curves):
            upper, lower = axes[:, column]
            upper.set_title(f"{arm.student}, {arm.arm}", fontsize=10)
            upper.plot(arm.kdjax, color=MEASURED, linewidth=2.4, alpha=0.5, label="kdjax")
            upper.plot(arm.torch, color=PRICE, linewidth=0.8, label="PyTorch")
            # Single steps may differ by exactly 0, which no logarithmic axis has.
            for other, color, label in (
                (arm.torch, PRICE, "PyTorch"),
                (arm.rounded, GREY, "rounding alone"),
            ):
                difference = arm.difference(other)
                starts = np.arange(0, len(difference), DRAWN)
                means = np.add.reduceat(difference, starts) / np.diff([*starts, len(difference)])
                lower.semilogy(starts + DRAWN / 2, means, color=color, marker=".", label=label)
            lower.set_ylim(1e-8, 1e-5)
            lower.set_xlabel("step")
        axes[0, 0].set_ylabel("loss")
        axes[1, 0].set_ylabel("relative difference from kdjax")
        axes[0, 0].legend(frameon=False)
        axes[1, 0].legend(frameon=False, loc="upper left")
        figure.savefig(path, dpi=100)
        plt.close(figure)


def run(options: argparse.Namespace) -> None:
    """Compare what the command line asks for, print the table and write it."""
    if options.steps < WINDOW:
        raise InputError(f"--steps is {options.steps}, expected at least {WINDOW}")
    memory.configure_malloc()  # as kdjax's commands do
    torch.set_num_threads(restrict(options.threads))
    options.out.mkdir(parents=True, exist_ok=True)
    curves: list[Curves] = []
    for student in options.students:
        teacher = trained_teacher(student, options.steps)
        for arm in options.arms:
            curves.append(compare(student, arm, options.steps, teacher))
            print(tables.row(curves[-1].cells()), file=sys.stderr, flush=True)
    everything = {
        "machine": describe(),
        "command": " ".join(["python -m benchmarks.curves", *sys.argv[1:]]),
        "curves": [asdict(arm) for arm in curves],
    }
    path = options.out / "curves.json"
    path.write_text(json.dumps(everything, indent=1), encoding="utf-8")
    plot(curves, options.out / "curves.png")
    print(tables.markdown(HEADER, [arm.cells() for arm in curves]))


def main() -> None:
    """Read the command line; what it gets wrong is one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--students", nargs="+", default=["2x64"], metavar="LAYERSxWIDTH")
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    add("--steps", type=int, default=500)
    add("--threads", type=int, help="cores to use, of those this process may; default: all")
    add("--out", type=Path, default=Path("runs/curves"))
    try:
        run(parser.parse_args())
    except InputError as e:
        print(f"benchmarks.curves: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
