"""Measure fine-tuning: trials side by side against one after another, and batches of rows of like
length against rows padded to one length.

    python -m benchmarks.finetuning [--models 2x64 4x256] [--lanes 2 4 8] [--dtype bfloat16]

Lanes: a step of N trials, by the program of one trial N times or by the program of N lanes once.
Both ways run in turn, a ratio is of neighbours, its interval that of the median. Buckets: rows a
second over an epoch of steps, batches made and placed, compiling left out. Rows have lengths as
short sentences have (log-normal, median 22 tokens, 8 to 128). Prints two Markdown tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from benchmarks import tables
from benchmarks.timing import in_turn, ratio
from kdjax import models
from kdjax.config import FinetuneConfig, ModelConfig
from kdjax.data.tasks.task import Split, Task
from kdjax.evaluation.finetuning.batches import Order
from kdjax.evaluation.finetuning.labels import LabelScale
from kdjax.evaluation.finetuning.results import Setting
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.evaluation.finetuning.step import StepKey, compiled_step, init_state, state_sharding
from kdjax.evaluation.finetuning.trial import EncoderSetup, make_batch, step_key_of, train_lanes
from kdjax.evaluation.length_buckets import Bucket
from kdjax.models.zoo import get
from kdjax.parallel.layout import Layout
from kdjax.runtime import memory
from kdjax.training.lanes import stack

BATCH = 32
FIXED = 128
"""Tokens to which rows are padded where they are not in buckets."""
LANES_HEADER = (
    "model",
    "rows",
    "lanes",
    "one by one",
    "at once",
    "ratio",
    "processor, one by one",
    "processor, at once",
    "ratio",
)
BUCKETS_HEADER = ("model", f"rows/s, length {FIXED}", "rows/s, buckets", "ratio", "padding")


def sentences(rows: int, vocab_size: int) -> Task:
    """Make a task of two classes, whose rows have lengths as short sentences have."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.round(np.exp(rng.normal(np.log(22), 0.5, rows))), 8, FIXED)
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    tokens = rng.integers(5, vocab_size, offsets[-1]).astype(np.int32)
    split = Split(tokens, offsets, None, rng.integers(0, 2, rows).astype(np.int32))
    return Task("sentences", ("no", "yes"), ("accuracy",), split, split, {"sentences": split})


@dataclass
class Trials:
    """Trials in groups of as many as the program takes.

    Attributes:
        step_key: what the program depends on.
        states: the state of each group.
        batch: the batch of a group, on the host.
        rates: the learning rates of a group.
        lanes: trials of a group.
    """

    step_key: StepKey
    states: list[Any]
    batch: dict[str, np.ndarray]
    rates: Any
    lanes: int

    def step(self) -> None:
        """Begin a step of each trial."""
        program = compiled_step(self.step_key, self.lanes)
        for number, state in enumerate(self.states):
            self.states[number], _ = program(state, self.batch, self.rates)

    def wait(self) -> None:
        """Wait until the devices are done."""
        jax.block_until_ready(self.states)


def trials(step_key: StepKey, task: Task, length: int, count: int, lanes: int) -> Trials:
    """Start so many trials in groups of `lanes`."""
    params = models.init(step_key.model, 0).params
    states = []
    for first in range(0, count, lanes):
        starts = [init_state(step_key, params, seed) for seed in range(first, first + lanes)]
        state = stack(starts) if lanes > 1 else starts[0]
        states.append(step_key.layout.place(state, state_sharding(step_key, lanes)))
    # The same rows at one length, whichever way they are computed.
    rows = np.flatnonzero(task.train.lengths <= length)[:BATCH]
    order = Order((Bucket(length, rows),), BATCH)
    (step_rows,) = order.iterate(range(lanes), 0, 1)
    batch = make_batch(task.train, task.train.labels, step_rows, step_key.layout.batch_parts)
    rates = np.full(lanes, 1e-4, np.float32) if lanes > 1 else np.float32(1e-4)
    return Trials(step_key, states, batch, rates, lanes)


def lanes_row(step_key: StepKey, task: Task, name: str, count: int, options: Any) -> list[str]:
    """Measure both ways to do a step of so many trials."""
    ways = {
        "one by one": trials(step_key, task, options.length, count, 1),
        "at once": trials(step_key, task, options.length, count, count),
    }
    times = in_turn(ways, options.rounds, options.seconds)
    alone = times["one by one"]
    together = times["at once"]
    return [
        name,
        f"{BATCH} x {options.length}",
        str(count),
        f"{1000 * float(np.median(alone.wall)) / count:.2f} ms",
        f"{1000 * float(np.median(together.wall)) / count:.2f} ms",
        str(ratio(alone.wall, together.wall)),
        f"{1000 * float(np.median(alone.processor)) / count:.2f} ms",
        f"{1000 * float(np.median(together.processor)) / count:.2f} ms",
        str(ratio(alone.processor, together.processor)),
    ]


def rows_per_second(step_key: StepKey, task: Task, longest: int) -> float:
    """Return how many rows a second an epoch takes, by its second run."""
    step_key = dataclasses.replace(step_key)
    order = Order.from_split(task.train, BATCH, longest)
    spec = TrialSpec(Setting(1e-4, BATCH, 1, order.steps_per_epoch), 0)
    params = models.init(step_key.model, 0).params
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        (trained,) = train_lanes(step_key, params, task.train, LabelScale(), [spec], 0.1)
        jax.block_until_ready(trained.params)
        seconds = time.perf_counter() - started
    return len(task.train) / seconds


def buckets_row(step_key: StepKey, task: Task, name: str) -> list[str]:
    """Measure an epoch of rows in buckets, and of rows padded to one length."""
    order = Order.from_split(task.train, BATCH, FIXED)
    tokens = sum(bucket.length * len(bucket.rows) for bucket in order.buckets)
    in_buckets = rows_per_second(step_key, task, FIXED)
    # Rows as long as the longest may be, padding included.
    padded_tokens = task.train.batch(np.arange(len(task.train)), FIXED)["tokens"].reshape(-1)
    offsets = FIXED * np.arange(len(task.train) + 1)
    fixed_split = Split(padded_tokens, offsets, None, task.train.labels)
    fixed = rows_per_second(step_key, dataclasses.replace(task, train=fixed_split), FIXED)
    padding = 1 - task.train.lengths.sum() / tokens
    return [
        name,
        f"{fixed:,.0f}",
        f"{in_buckets:,.0f}",
        f"{in_buckets / fixed:.2f}",
        f"{100 * padding:.0f}%",
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", nargs="+", default=["2x64", "4x256"], metavar="LAYERSxWIDTH")
    add("--lanes", type=int, nargs="*", default=[2, 4], metavar="N")
    add("--vocab", type=int, default=8192, help="entries of the vocabulary")
    add("--length", type=int, default=32, help="tokens of a row in the table of lanes")
    add("--rows", type=int, default=2000, help="training rows in the table of buckets; 0: none")
    add("--dtype", default="float32", choices=("float32", "bfloat16"))
    add("--rounds", type=int, default=9, help="blocks of each")
    add("--seconds", type=float, default=1.0, help="of a block")
    options = parser.parse_args()
    memory.configure_malloc()  # as kdjax's commands do
    device = jax.devices()[0].device_kind
    print(f"{device}, JAX {jax.__version__}, {options.dtype}\n")

    layout = Layout.from_config(devices=jax.devices()[:1])
    task = sentences(max(options.rows, 1000), options.vocab)
    recipes = {}
    for name in options.models:
        config = model(name, options.vocab)
        recipes[name] = step_key_of(
            EncoderSetup(config, layout, options.dtype), task, FinetuneConfig()
        )
    if options.lanes:
        print(tables.head(LANES_HEADER))
    for name, step_key in recipes.items():
        for count in options.lanes:
            print(tables.row(lanes_row(step_key, task, name, count, options)), flush=True)
    if options.rows:
        print(f"\n{tables.head(BUCKETS_HEADER)}")
        for name, step_key in recipes.items():
            print(tables.row(buckets_row(step_key, task, name)), flush=True)


def model(size: str, vocab_size: int) -> ModelConfig:
    """Return a model of LAYERSxWIDTH with BERT's dropout."""
    return dataclasses.replace(get(size), vocab_size=vocab_size, max_positions=FIXED)


if __name__ == "__main__":
    main()
