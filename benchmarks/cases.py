"""What the speed benchmarks run: pairs of models, batches, and an arm's step as kdjax runs it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from kdjax import models
from kdjax.budget.price import Price
from kdjax.config import (
    ArmConfig,
    ComputeConfig,
    ModelConfig,
    ModelSpec,
    OptimizerConfig,
    TermConfig,
)
from kdjax.models import zoo
from kdjax.parallel.layout import Layout
from kdjax.training.arm import resolve
from kdjax.training.phase import BatchShape, Phase, price
from kdjax.training.program import Program
from kdjax.training.step import ScheduleInputs

ARMS = ("scratch", "logit", "tinybert", "minilm")
VOCABULARY = 30522
OPTIMIZER = OptimizerConfig()
RATE = 1e-4
"""Learning rate of every step that is timed."""
BATCHES = 4
"""Different batches that steps go through in turn."""


@dataclass(frozen=True)
class Pair:
    """A student and its teacher, and what their batches are like.

    Attributes:
        student: the student.
        teacher: the teacher, with the student's vocabulary.
        length: tokens of a sequence.
        slots: masked positions of a sequence.
        relation_heads: of MiniLM; 0: as many as its authors take.
    """

    student: ModelConfig
    teacher: ModelConfig
    length: int = 128
    slots: int = 20
    relation_heads: int = 0

    def dropped(self, rate: float) -> Pair:
        """With this dropout in the student, in all its places."""
        return replace(self, student=replace(self.student, dropout=rate, attention_dropout=rate))


TINY = zoo.resolve(
    ModelSpec(
        size="2x64",
        heads=4,
        vocab_size=512,
        max_positions=32,
        norm="pre",
        embedding_norm=False,
        positions="rotary",
        rotary_base=100.0,
        init="by_width",
    )
)
"""The demo's student."""

PAIRS = {
    "tiny": Pair(TINY, replace(TINY, layers=4), length=32, slots=6, relation_heads=4),
    "small": Pair(
        ModelConfig(layers=3, width=192, heads=12, ffn=768, vocab_size=VOCABULARY),
        replace(zoo.get("minilm-l6"), vocab_size=VOCABULARY),
    ),
    "large": Pair(zoo.get("6x768"), zoo.get("base")),
}


@dataclass(frozen=True)
class Case:
    """One comparison: an arm between two models, the shape of a batch, and how it is computed."""

    arm: str
    pair: Pair
    shape: BatchShape
    compute: ComputeConfig = ComputeConfig()

    @cached_property
    def phase(self) -> Phase:
        """The arm's only phase, as the recipe's preset makes it."""
        settings = ArmConfig()
        if self.arm == "minilm":
            heads = {"relation_heads": self.pair.relation_heads}
            settings = ArmConfig(terms=(TermConfig("relation", options=heads),))
        arm = resolve(self.arm, settings, self.pair.student, self.pair.teacher, OPTIMIZER)
        return arm.phases[0]

    @cached_property
    def price(self) -> Price:
        """FLOPs of a step."""
        return price(self.phase, self.shape)


def batch(shape: BatchShape, vocabulary: int, seed: int) -> dict[str, np.ndarray]:
    """A batch of random tokens in full sequences, each two packed segments, with every slot in
    use."""
    rng = np.random.default_rng(seed)
    tokens = (shape.batch_size, shape.seq_len)
    slots = (shape.batch_size, shape.max_predictions)
    cut = rng.integers(shape.seq_len // 4, 3 * shape.seq_len // 4, (shape.batch_size, 1))
    place = np.broadcast_to(np.arange(shape.seq_len), tokens)
    return {
        "tokens": rng.integers(0, vocabulary, tokens, np.int32),
        "segments": np.where(place < cut, 1, 2).astype(np.int32),
        "positions": np.where(place < cut, place, place - cut).astype(np.int32),
        "valid": np.ones(tokens, np.bool_),
        "slots": np.sort(
            rng.random(tokens).argsort(axis=1)[:, : shape.max_predictions], axis=1
        ).astype(np.int32),
        "labels": rng.integers(0, vocabulary, slots, np.int32),
        "label_weights": np.ones(slots, np.float32),
    }


def start(config: ModelConfig, seed: int) -> Any:
    """A model's parameters."""
    return models.init(config, seed).params


class Same:
    """One batch for ever, and never seen before."""

    sequences = 10**9

    def __init__(self, batch: Mapping[str, np.ndarray], size: int) -> None:
        self._batch = batch
        self._size = size

    def iterate(
        self, seen: int, rows: Any = slice(None)
    ) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        for before in itertools.count(seen, self._size):
            yield before, {name: array[rows] for name, array in self._batch.items()}


class Kdjax:
    """An arm's step as a run takes it: compiled, its state donated, its batches placed.

    Attributes:
        program: the compiled step.
        state: what training changes.
        teacher: what the step is given of the teacher.
        batches: placed.
        placing: seconds that placing a batch took, the median.
    """

    name = "kdjax"

    def __init__(
        self, case: Case, params: Any, teacher: Any, batches: list[Mapping[str, np.ndarray]]
    ) -> None:
        """Compiles, and places all it needs.

        Args:
            case: what to run.
            params: the student's.
            teacher: the teacher's, whole.
            batches: on the host.
        """
        self.program = Program(
            case.phase, case.shape, Layout.of(devices=jax.devices()[:1]), compute=case.compute
        )
        self.state = self.program.start(params, seed=0)
        self.teacher = self.program.place_teacher(teacher)
        taken = []
        self.batches = []
        for one in batches:
            started = time.perf_counter()
            self.batches.append(jax.block_until_ready(self.program.place(one)))
            taken.append(time.perf_counter() - started)
        self.placing = float(np.median(taken))
        self._done = 0

    def step(self) -> dict[str, jax.Array]:
        """One step on the next batch; it may still run when this returns."""
        here = self.batches[self._done % len(self.batches)]
        self.state, metrics = self.program.step(
            self.state, self.teacher, here, ScheduleInputs(0.5, RATE)
        )
        self._done += 1
        return metrics

    def wait(self) -> None:
        """Until all steps are done."""
        jax.block_until_ready(self.state)
