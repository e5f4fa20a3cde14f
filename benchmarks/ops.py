"""Optimized operations against their reference forms, forward and backward.

    python -m benchmarks.ops                                       operations, and the demo's steps
    python -m benchmarks.ops --only steps --pair small             steps of another pair
    python -m benchmarks.ops --only single --arms scratch          which operation a step gains from

Both forms take turns in one process, and a ratio is of neighbours: processor time of the reference
form over that of the optimized one, so above 1 is a gain; its interval is that of the median.
`single` gives one operation after another its reference form within a step that is optimized
otherwise. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import tables
from benchmarks.cases import ARMS, PAIRS, TINY, Case, Pair, batch, runner
from benchmarks.machine import threads
from benchmarks.timing import Ratio, in_turn, ratio
from kdjax.config import ModelConfig
from kdjax.models import ops, zoo
from kdjax.models.ops.dispatch import trace_reference
from kdjax.models.ops.dropout import sequence_seeds
from kdjax.runtime import memory
from kdjax.training.phase import BatchShape

SINGLE = {
    "linear": ("linear", "optimized"),
    "linear_each": ("linear", "linear_joined"),
    "embed": ("embedding", "optimized"),
    "tied_logits": ("embedding", "tied_logits_optimized"),
    "layer_norm": ("layer_norm", "optimized"),
    "gelu": ("gelu", "optimized"),
    "attention": ("attention", "optimized"),
    "cross_entropy": ("cross_entropy", "optimized"),
    "kl": ("kl", "optimized"),
}
"""Operations, and where their optimized forms are: module and function."""
SEQUENCES = {"tiny": 32, "small": 8}
"""Sequences of a step, by pair of models."""
REFERENCES = {"linear_joined": "linear_apart", "tied_logits_optimized": "tied_logits_reference"}
"""Reference forms that are not called `reference`."""


@dataclass(frozen=True)
class Size:
    """What operations are measured on: a model's sizes and a batch.

    Attributes:
        model: the model.
        shape: the batch.
        relation_heads: MiniLM's number of relation heads.
    """

    model: ModelConfig
    shape: BatchShape
    relation_heads: int


SIZES = {
    "2 x 64": Size(TINY, BatchShape(32, 32, 6), 4),
    "6 x 384": Size(zoo.get("6x384"), BatchShape(4, 128, 20), 48),
}


@dataclass(frozen=True)
class Operation:
    """An operation on some arrays.

    Attributes:
        function: takes `arrays` and then `fixed`.
        arrays: arguments that it is differentiated by.
        fixed: all other arguments.
    """

    function: Callable[..., jax.Array]
    arrays: tuple[jax.Array, ...]
    fixed: tuple[Any, ...] = ()


class Differentiated:
    """An operation with its backward pass, compiled in one form."""

    def __init__(self, operation: Operation) -> None:
        def run(arrays: Any, fixed: Any) -> Any:
            out, pull = jax.vjp(lambda *arrays: operation.function(*arrays, *fixed), *arrays)
            # The output stands in for a gradient: any array of its shape will do.
            return out, pull(out)

        self._args = (operation.arrays, operation.fixed)
        self._compiled = jax.jit(run).lower(*self._args).compile()
        self._results: Any = None

    def step(self) -> None:
        self._results = self._compiled(*self._args)

    def wait(self) -> None:
        jax.block_until_ready(self._results)


def operations(size: Size) -> dict[str, Operation]:
    """Return every operation that has two forms, on arrays of a model of this size."""
    model = size.model
    sequences = size.shape.batch_size
    length = size.shape.seq_len
    width = model.width
    tokens = (sequences, length)
    slots = (sequences, size.shape.max_predictions)
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> jax.Array:
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    # The arrays that several operations read.
    hidden = drawn(*tokens, width)
    logits = (*slots, model.vocab_size)
    table = drawn(model.vocab_size, width)
    bias = drawn(width)
    kernels = tuple(drawn(width, width) for _ in range(3))
    # Scores and relations are compared head by head.
    in_heads = (sequences, model.heads, length, model.head_width)
    values = batch(size.shape, model.vocab_size, 0)
    mask = ops.segment_mask(jnp.asarray(values["segments"]))
    seeds = sequence_seeds(jax.random.key(0), sequences)

    # Operations of several results or arguments, as functions of arrays with one result.
    def linear_each(x: jax.Array, *kernels: jax.Array) -> jax.Array:
        return jnp.stack(ops.linear_each(x, kernels, [bias] * len(kernels)))

    def attention(*projected: jax.Array, rate: float = 0.0) -> jax.Array:
        context, _ = ops.attention(
            *projected, mask, model.heads, dropout_rate=rate, dropout_key=seeds
        )
        return context

    def scores(*projected: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        return ops.attention(*projected, mask, model.heads, with_scores=True)

    return {
        "linear": Operation(ops.linear, (hidden, drawn(width, model.ffn), drawn(model.ffn))),
        "linear_each (query, key, value)": Operation(linear_each, (hidden, *kernels)),
        "embed": Operation(ops.embed, (table,), (jnp.asarray(values["tokens"]),)),
        "tied_logits": Operation(
            ops.tied_logits, (drawn(*slots, width), table, drawn(model.vocab_size))
        ),
        "layer_norm": Operation(
            lambda *arrays: ops.layer_norm(*arrays, 1e-12), (hidden, drawn(width), bias)
        ),
        "gelu": Operation(lambda x: ops.gelu(x, "exact"), (drawn(*tokens, model.ffn),)),
        "gated_gelu": Operation(
            lambda x, gate: ops.gated_gelu(x, gate, "exact"),
            (drawn(*tokens, model.ffn), drawn(*tokens, model.ffn)),
        ),
        "attention": Operation(attention, tuple(drawn(*tokens, width) for _ in range(3))),
        "attention, scores read": Operation(scores, tuple(drawn(*tokens, width) for _ in range(3))),
        "attention, dropout 0.1": Operation(
            lambda *projected: attention(*projected, rate=0.1),
            tuple(drawn(*tokens, width) for _ in range(3)),
        ),
        "cross_entropy": Operation(
            ops.cross_entropy, (drawn(*logits),), (jnp.asarray(values["labels"]),)
        ),
        "kl over the vocabulary": Operation(ops.kl, (drawn(*logits),), (drawn(*logits),)),
        "kl over positions": Operation(
            ops.kl,
            (drawn(*in_heads[:2], length, length),),
            (drawn(*in_heads[:2], length, length), mask.allowed),
        ),
        "relation_kl": Operation(
            lambda student, teacher: ops.relation_kl(student, teacher, size.relation_heads, mask),
            (drawn(*in_heads),),
            (drawn(*in_heads),),
        ),
    }


def gain(make: Callable[[], Any], rounds: int, seconds: float, reference: Any = None) -> Ratio:
    """Return the processor time of the reference form over that of the optimized one.

    Args:
        make: compiles what is timed.
        rounds: blocks of each form.
        seconds: how long a block lasts.
        reference: the context in which the reference form is compiled; all of it unless given.
    """
    # What is compiled within the context keeps its form when it is run outside.
    with reference or trace_reference():
        runners = {"reference": make()}
    runners["optimized"] = make()
    times = in_turn(runners, rounds, seconds)
    return ratio(times["reference"].processor, times["optimized"].processor)


@contextmanager
def reference_of(operation: str) -> Iterator[None]:
    """Give one operation its reference form."""
    module_name, name = SINGLE[operation]
    module = importlib.import_module(f"kdjax.models.ops.{module_name}")
    optimized = getattr(module, name)
    setattr(module, name, getattr(module, REFERENCES.get(name, "reference")))
    # What JAX has traced of the optimized form must not stand in for the other.
    jax.clear_caches()
    try:
        yield
    finally:
        setattr(module, name, optimized)
        jax.clear_caches()


def table(columns: list[str], rows: dict[str, list[str]]) -> str:
    """Return a Markdown table of rows by their names."""
    return tables.markdown(columns, [[name, *cells] for name, cells in rows.items()])


def operations_table(options: argparse.Namespace) -> str:
    """Measure every operation at every size."""
    rows: dict[str, list[str]] = {}
    for size in SIZES.values():
        for name, operation in operations(size).items():
            compile_operation = functools.partial(Differentiated, operation)
            gained = gain(compile_operation, options.rounds, options.seconds)
            rows.setdefault(name, []).append(str(gained))
    return table(["operation", *SIZES], rows)


def steps_table(options: argparse.Namespace, pair: Pair, shape: BatchShape) -> str:
    """Measure whole steps."""
    rows = {}
    for arm in options.arms:
        compile_step = functools.partial(runner, Case(arm, pair, shape))
        rows[arm] = [str(gain(compile_step, options.rounds, options.seconds))]
    return table(["arm", f"{options.pair}, whole step"], rows)


def single_table(options: argparse.Namespace, pair: Pair, shape: BatchShape) -> str:
    """Measure steps with one operation in its reference form."""
    rows: dict[str, list[str]] = {}
    for operation in SINGLE:
        for arm in options.arms:
            compile_step = functools.partial(runner, Case(arm, pair, shape))
            context = reference_of(operation)
            gained = gain(compile_step, options.rounds, options.seconds, context)
            rows.setdefault(operation, []).append(str(gained))
    return table([f"{options.pair}, only this by reference", *options.arms], rows)


def main() -> None:
    """Print the tables that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("operations", "steps", "single")
    parser.add_argument("--only", nargs="+", choices=kinds, default=["operations", "steps"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="NAME")
    parser.add_argument("--pair", choices=SEQUENCES, default="tiny")
    parser.add_argument("--rounds", type=int, default=15, help="blocks of each form")
    parser.add_argument("--seconds", type=float, default=0.02, help="how long a block lasts")
    options = parser.parse_args()
    memory.configure_malloc()  # as kdjax's commands do
    # Without dropout, of which the forms draw different numbers.
    pair = PAIRS[options.pair].dropped(0.0)
    shape = BatchShape(SEQUENCES[options.pair], pair.length, pair.slots)
    print(f"{threads()} cores ({jax.devices()[0].platform}), JAX {jax.__version__}")
    if "operations" in options.only:
        print(f"\n{operations_table(options)}")
    if "steps" in options.only:
        print(f"\n{steps_table(options, pair, shape)}")
    if "single" in options.only:
        print(f"\n{single_table(options, pair, shape)}")


if __name__ == "__main__":
    main()
