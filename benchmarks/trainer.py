"""Compare fine-tuning by kdjax with transformers' Trainer on GLUE's tasks: what both score.

    python -m benchmarks.trainer GLUE [--tasks mrpc sst2] [--seeds 5] [--out runs/trainer]

GLUE is a directory as `evaluation.glue` takes it. Both start from the same weights, encoder and
head, anew for each seed, and have the same batch size, epochs, learning rates, AdamW and dropout
rates. The order of rows and the numbers of dropout are their own: of one seed's two scores the
difference is noise, and the mean over seeds is what is compared. Scores are of the dev rows. Prints
a Markdown table, and writes trainer.json to --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import glue, tables
from benchmarks.huggingface import Collator, Rows, classifier, make_trainer, predict
from benchmarks.machine import describe, threads
from kdjax import models
from kdjax.config import FinetuneConfig, ModelConfig
from kdjax.data.tasks.task import Task
from kdjax.errors import InputError
from kdjax.evaluation import finetuning
from kdjax.evaluation.finetuning.protocols import fixed_setting
from kdjax.evaluation.metric import scores
from kdjax.evaluation.statistics import interval
from kdjax.models.zoo import get
from kdjax.runtime import memory

LENGTH = 128
"""Most tokens of a row."""
CONFIDENCE = 0.95
HEADER = ("task", "metric", "kdjax", "Trainer", "difference [95%]", "spread over seeds")


@dataclass(frozen=True)
class Row:
    """A metric's values, a seed at a time.

    Attributes:
        task, metric: what was measured.
        kdjax, trainer: the values, in the order of the seeds.
    """

    task: str
    metric: str
    kdjax: list[float]
    trainer: list[float]

    def cells(self) -> list[str]:
        """Return the row of the table; values are in percent."""
        ours = 100 * np.asarray(self.kdjax)
        theirs = 100 * np.asarray(self.trainer)
        mean, low, high = interval(ours - theirs, CONFIDENCE)
        return [
            self.task,
            self.metric,
            f"{ours.mean():.2f}",
            f"{theirs.mean():.2f}",
            f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]",
            f"{ours.std(ddof=1):.2f}, {theirs.std(ddof=1):.2f}",
        ]


def tune_kdjax(
    config: ModelConfig, encoder: Any, task: Task, settings: FinetuneConfig, seed: int
) -> dict[str, float]:
    """Fine-tune by kdjax, and score the dev rows."""
    setting = fixed_setting(task, settings, config.max_positions)
    setup = finetuning.EncoderSetup(config)
    trained = finetuning.finetune_one(setup, encoder, task, settings, setting, seed=seed)
    dev = task.reported[task.name]
    return scores(task.metrics, finetuning.predict(trained, dev), dev.labels)


def tune_trainer(
    config: ModelConfig, encoder: Any, task: Task, settings: FinetuneConfig, seed: int
) -> dict[str, float]:
    """Fine-tune by Trainer, from the weights that kdjax begins with, and score the dev rows."""
    head = models.init_task_head(config, task.outputs, seed)
    model = classifier(config, {**encoder, "task_head": head}, task)
    setting = fixed_setting(task, settings, config.max_positions)
    rows = Rows(task.train, task.train.labels.astype(np.int64))
    with tempfile.TemporaryDirectory() as directory:
        trainer = make_trainer(
            model, rows, Collator(), settings, setting, seed=seed, directory=Path(directory)
        )
        trainer.train()
    dev = task.reported[task.name]
    outputs = predict(model, Rows(dev, dev.labels.astype(np.int64)))
    return scores(task.metrics, outputs.argmax(1), dev.labels)


def compare(
    config: ModelConfig, task: Task, settings: FinetuneConfig, seeds: int
) -> Iterator[list[Row]]:
    """Yield the rows of a task after each seed."""
    rows = [Row(task.name, metric, [], []) for metric in task.metrics]
    for seed in range(seeds):
        encoder = models.init(config, seed).params
        started = time.perf_counter()
        ours = tune_kdjax(config, encoder, task, settings, seed)
        middle = time.perf_counter()
        theirs = tune_trainer(config, encoder, task, settings, seed)
        ended = time.perf_counter()
        for row in rows:
            row.kdjax.append(ours[row.metric])
            row.trainer.append(theirs[row.metric])
        print(
            f"{task.name}, seed {seed}: kdjax {ours}, {middle - started:.0f} s; "
            f"Trainer {theirs}, {ended - middle:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        yield rows


def run(options: argparse.Namespace) -> None:
    """Compare what the command line asks for, and print and write the table."""
    memory.configure_malloc()  # as kdjax's commands do, for both
    torch.set_num_threads(threads())
    if options.seeds < 2:
        raise InputError(f"--seeds is {options.seeds}, expected at least 2")
    tasks = glue.read(options.glue, tuple(options.tasks), options.vocabulary, LENGTH)
    config = dataclasses.replace(
        get(options.model), vocab_size=options.vocabulary, max_positions=LENGTH
    )
    settings = FinetuneConfig(
        epochs=options.epochs, batch_size=options.batch, learning_rate=options.rate
    )

    options.out.mkdir(parents=True, exist_ok=True)
    finished: list[Row] = []
    for task in tasks.values():
        chosen = glue.first_rows(task, options.rows)
        of_task: list[Row] = []
        for of_task in compare(config, chosen, settings, options.seeds):
            write(options, [*finished, *of_task])
        finished += of_task
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, PyTorch {torch.__version__}\n")
    print(tables.markdown(HEADER, [row.cells() for row in finished]))


def write(options: argparse.Namespace, rows: list[Row]) -> None:
    """Write trainer.json: after every seed, so that what is done is kept."""
    everything = {
        "machine": describe(),
        "command": " ".join(["python -m benchmarks.trainer", *sys.argv[1:]]),
        "rows": [asdict(row) for row in rows],
    }
    path = options.out / "trainer.json"
    path.write_text(json.dumps(everything, indent=1), encoding="utf-8")


def main() -> None:
    """Read the command line; what it gets wrong is one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("glue", type=Path, help="directory with GLUE's files")
    add("--tasks", nargs="+", default=["mrpc", "sst2"], metavar="TASK")
    add("--model", default="2x64", metavar="LAYERSxWIDTH")
    add("--vocabulary", type=int, default=8192, help="entries, learned from the training texts")
    add("--seeds", type=int, default=5, help="at least 2")
    add("--epochs", type=int, default=3)
    add("--batch", type=int, default=32, help="rows of a step")
    add("--rate", type=float, default=1e-3, help="peak learning rate")
    add("--rows", type=int, default=0, help="training rows of a task; 0: all")
    add("--out", type=Path, default=Path("runs/trainer"))
    try:
        run(parser.parse_args())
    except InputError as e:
        print(f"benchmarks.trainer: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
