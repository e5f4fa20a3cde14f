"""Measure fine-tuning by kdjax against transformers' Trainer, in rows a second.

    python -m benchmarks.trainer_speed GLUE [--models 2x64 4x256] [--task mrpc] [--out runs/trainer]
    python -m benchmarks.trainer_speed GLUE --models 6x768 --vocabulary 30522 --batch 8 --rows 128

GLUE is a directory as `evaluation.glue` takes it. Every way trains an epoch of the same rows from
the same weights, its batches made from token ids, with as many threads: kdjax with rows of like
length together, Trainer with rows padded to one length, and Trainer with batches of rows of like
length (`group_by_length`) padded to their longest. Compiling is left out. All ways run in turn,
matmuls before each round, and a ratio is of neighbours, its interval that of the median. The share
is of the machine's best matmul rate, and counts the matmuls of the layers, padding included. Prints
two Markdown tables, and writes trainer_speed.json to --out.

With --grid, the task's grid is timed instead: trials side by side against one after another.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from transformers import Trainer

from benchmarks import glue, tables
from benchmarks.huggingface import Collator, Rows, classifier, make_trainer
from benchmarks.machine import describe, restrict
from benchmarks.timing import MatmulRate, Times, epochs_in_turn, ratio, xla_product
from benchmarks.torch_arms import torch_product
from kdjax import models
from kdjax.config import FinetuneConfig, ModelConfig
from kdjax.data.tasks.task import Task
from kdjax.errors import InputError
from kdjax.evaluation import finetuning
from kdjax.evaluation.finetuning.batches import Order
from kdjax.evaluation.finetuning.labels import LabelScale
from kdjax.evaluation.finetuning.protocols import fixed_setting
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.evaluation.finetuning.trial import EncoderSetup, step_key_of, train_lanes
from kdjax.models.zoo import get
from kdjax.parallel.layout import Layout
from kdjax.runtime import memory

LENGTH = 128
"""Most tokens of a row, and what Trainer pads rows to where it pads them to one length."""
MATMULS = (1024, 2048)
"""Sizes of the square matmuls that the best rate is taken of."""
KDJAX = "kdjax"
FIXED = f"Trainer, length {LENGTH}"
GROUPED = "Trainer, by length"
WAYS = (KDJAX, FIXED, GROUPED)
SPEED_HEADER = (
    "model",
    "task, batch",
    *(f"{way}, rows/s" for way in WAYS),
    f"{FIXED} / kdjax [95%]",
    "the same, by processor time",
    f"{GROUPED} / kdjax [95%]",
    "the same, by processor time",
)
SHARE_HEADER = ("model", "matmul rate, GFLOP/s", *(f"{way}, share" for way in WAYS))
GRID_HEADER = ("model", "task", "trials", "lanes", "one by one", "at once", "ratio [95%]")


@dataclass
class KdjaxEpoch:
    """An epoch of fine-tuning by kdjax.

    Attributes:
        config: configuration of the model.
        encoder: its parameters.
        task: the task.
        settings: settings of fine-tuning.
        trained: the last epoch's result.
    """

    config: ModelConfig
    encoder: Any
    task: Task
    settings: FinetuneConfig
    trained: Any = None

    def step(self) -> None:
        """Train an epoch."""
        layout = Layout.from_config(devices=jax.devices()[:1])
        step_key = step_key_of(EncoderSetup(self.config, layout), self.task, self.settings)
        spec = TrialSpec(fixed_setting(self.task, self.settings, self.config.max_positions), 0)
        warmup = self.settings.warmup
        self.trained = train_lanes(
            step_key, self.encoder, self.task.train, LabelScale(), [spec], warmup
        )[0].params

    def wait(self) -> None:
        """Wait until the last step is done."""
        jax.block_until_ready(self.trained)

    def shapes(self) -> list[tuple[int, int]]:
        """Return (B, L) of each batch of an epoch."""
        batch_size = self.settings.batch_size
        order = Order.from_split(self.task.train, batch_size, self.config.max_positions)
        steps = order.iterate([0], 0, order.steps_per_epoch)
        return [(batch_size, step.length) for step in steps]


@dataclass
class TrainerEpoch:
    """An epoch of fine-tuning by Trainer.

    Attributes:
        trainer: the Trainer.
        collator: what makes its batches.
    """

    trainer: Trainer
    collator: Collator

    def step(self) -> None:
        """Train an epoch."""
        self.collator.shapes.clear()
        self.trainer.train()

    def wait(self) -> None:
        """Return at once: PyTorch on a CPU is done."""

    def shapes(self) -> list[tuple[int, int]]:
        """Return (B, L) of each batch of the last epoch."""
        return list(self.collator.shapes)


@dataclass
class Grid:
    """A task's grid by kdjax, predictions included.

    Attributes:
        config, encoder: the model.
        task: the task.
        settings: settings of fine-tuning, among them the grid and the lanes.
    """

    config: ModelConfig
    encoder: Any
    task: Task
    settings: FinetuneConfig

    def step(self) -> None:
        """Train and score every trial."""
        setup = EncoderSetup(self.config)
        finetuning.finetune(setup, self.encoder, self.task, self.settings, protocol="grid", seed=0)

    def wait(self) -> None:
        """Return at once: scores are on the host."""


@dataclass(frozen=True)
class Row:
    """Figures of one model.

    Attributes:
        model, task: what was measured.
        batch_size, rows: rows of a step, and of an epoch.
        times: seconds of an epoch, by way.
        flops: FLOPs of an epoch's matmuls, by way.
        matmul_rates: best rate of square matmuls, FLOPs a second, a round at a time.
    """

    model: str
    task: str
    batch_size: int
    rows: int
    times: dict[str, Times]
    flops: dict[str, float]
    matmul_rates: list[float]

    def speed(self) -> list[str]:
        """Return the row of the table of speeds."""
        cells = [self.model, f"{self.task}, {self.batch_size}"]
        for way in WAYS:
            cells.append(f"{self.rows / float(np.median(self.times[way].wall)):,.1f}")
        ours = self.times[KDJAX]
        for way in (FIXED, GROUPED):
            cells.append(str(ratio(self.times[way].wall, ours.wall)))
            cells.append(str(ratio(self.times[way].processor, ours.processor)))
        return cells

    def shares(self) -> list[str]:
        """Return the row of the table of matmul rates."""
        cells = [self.model, f"{np.median(self.matmul_rates) / 1e9:,.0f}"]
        for way in WAYS:
            rates = self.flops[way] / np.asarray(self.times[way].wall)
            cells.append(f"{float(np.median(rates / self.matmul_rates)):.0%}")
        return cells


def epoch_flops(config: ModelConfig, shapes: Iterable[tuple[int, int]]) -> float:
    """Count the FLOPs of the layers' matmuls, forward and backward, over batches (B, L).

    A token's: four products with D x D, two with D x F, and two with L positions in attention; two
    FLOPs a multiplication, and three products in a step for each of the forward pass.
    """
    width = config.width
    total = 0.0
    for rows, length in shapes:
        products = 4 * width**2 + 2 * width * config.ffn + 2 * length * width
        total += 3 * 2 * rows * length * config.layers * products
    return total


def measure(
    name: str, config: ModelConfig, task: Task, settings: FinetuneConfig, options: Any
) -> Row:
    """Time an epoch of one model in every way."""
    encoder = models.init(config, 0).params
    head = models.init_task_head(config, task.outputs, 0)
    rows = Rows(task.train, task.train.labels.astype(np.int64))
    setting = fixed_setting(task, settings, config.max_positions)
    with tempfile.TemporaryDirectory() as directory:
        runners: dict[str, Any] = {KDJAX: KdjaxEpoch(config, encoder, task, settings)}
        for way, length, sampling in (
            (FIXED, LENGTH, "random"),
            (GROUPED, None, "group_by_length"),
        ):
            model = classifier(config, {**encoder, "task_head": head}, task)
            collator = Collator(length)
            trainer = make_trainer(
                model,
                rows,
                collator,
                settings,
                setting,
                seed=0,
                directory=Path(directory),
                sampling=sampling,
            )
            runners[way] = TrainerEpoch(trainer, collator)
        matmuls = MatmulRate(
            {"XLA": xla_product("float32"), "PyTorch": torch_product("cpu", torch.float32)}, MATMULS
        )
        times = epochs_in_turn(runners, options.rounds, lambda: matmuls(1))
    flops = {way: epoch_flops(config, runner.shapes()) for way, runner in runners.items()}
    return Row(name, task.name, settings.batch_size, len(rows), times, flops, matmuls.best)


def measure_grid(
    name: str, config: ModelConfig, task: Task, settings: FinetuneConfig, options: Any
) -> list[str]:
    """Time a task's grid with lanes and without."""
    encoder = models.init(config, 0).params
    ways = {}
    for lanes in (1, options.lanes):
        ways[lanes] = Grid(config, encoder, task, dataclasses.replace(settings, lanes=lanes))
    times = epochs_in_turn(ways, options.rounds)
    alone = times[1].wall
    together = times[options.lanes].wall
    trials = len(settings.learning_rates) * len(settings.batch_sizes)
    return [
        name,
        task.name,
        str(trials),
        str(options.lanes),
        f"{float(np.median(alone)):.1f} s",
        f"{float(np.median(together)):.1f} s",
        str(ratio(alone, together)),
    ]


def run(options: argparse.Namespace) -> None:
    """Measure what the command line asks for, print the tables and write them."""
    memory.configure_malloc()  # as kdjax's commands do, for both
    torch.set_num_threads(restrict(options.threads))
    tasks = glue.read(options.glue, (options.task,), options.words, LENGTH)
    task = glue.first_rows(tasks[options.task], options.rows)
    settings = FinetuneConfig(
        epochs=1,
        batch_size=options.batch,
        epoch_counts=(1,),
        learning_rates=(1e-4, 3e-4, 1e-3, 3e-3),
    )
    rows: list[Row] = []
    grid_rows = []
    machine = describe()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.models:
        config = dataclasses.replace(get(name), vocab_size=options.vocabulary, max_positions=LENGTH)
        if options.grid:
            grid_rows.append(measure_grid(name, config, task, settings, options))
            continue
        rows.append(measure(name, config, task, settings, options))
        everything = {
            "machine": {**machine, "load after": describe()["load"]},
            "command": " ".join(["python -m benchmarks.trainer_speed", *sys.argv[1:]]),
            "rows": [asdict(row) for row in rows],
        }
        path = options.out / "trainer_speed.json"
        path.write_text(json.dumps(everything, indent=1), encoding="utf-8")
    if grid_rows:
        print(tables.markdown(GRID_HEADER, grid_rows))
    if rows:
        print(tables.markdown(SPEED_HEADER, [row.speed() for row in rows]), end="\n\n")
        print(tables.markdown(SHARE_HEADER, [row.shares() for row in rows]))


def main() -> None:
    """Read the command line; what it gets wrong is one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("glue", type=Path, help="directory with GLUE's files")
    add("--models", nargs="+", default=["2x64", "4x256"], metavar="LAYERSxWIDTH")
    add("--task", default="mrpc")
    add("--words", type=int, default=8192, help="entries learned from the training texts")
    add("--vocabulary", type=int, default=8192, help="entries of the models; at least --words")
    add("--batch", type=int, default=32, help="rows of a step")
    add("--rows", type=int, default=640, help="training rows of an epoch; 0: all")
    add("--rounds", type=int, default=5, help="epochs of each way")
    add("--threads", type=int, help="cores to use, of those this process may; default: all")
    add("--grid", action="store_true", help="time a grid of 4 learning rates and 2 batch sizes")
    add("--lanes", type=int, default=4, help="trials side by side in a grid")
    add("--out", type=Path, default=Path("runs/trainer"))
    try:
        run(parser.parse_args())
    except InputError as e:
        print(f"benchmarks.trainer_speed: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
