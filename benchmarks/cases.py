"""Pairs of models, batches, and an arm's step as kdjax runs it."""

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
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.phase_price import price
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
        relation_heads: MiniLM's number of relation heads; 0: as many as its authors take.
        arms: those of `ARMS` that the two models allow.
    """

    student: ModelConfig
    teacher: ModelConfig
    length: int = 128
    slots: int = 20
    relation_heads: int = 0
    arms: tuple[str, ...] = ARMS

    def dropped(self, rate: float) -> Pair:
        """Return the pair with this dropout everywhere in the student."""
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
    # TinyBERT learns from scores, which local layers have no use for beyond their window.
    "modernbert": Pair(
        zoo.resolve(ModelSpec(family="modernbert", size="6x384")),
        zoo.resolve(ModelSpec(family="modernbert", size="modernbert-base")),
        length=256,
        slots=77,
        arms=("scratch", "logit", "minilm"),
    ),
}


@dataclass(frozen=True)
class Case:
    """An arm between two models, the shape of a batch, and how a step is computed."""

    arm: str
    pair: Pair
    shape: BatchShape
    compute: ComputeConfig = ComputeConfig()

    @cached_property
    def phase(self) -> Phase:
        """Resolve the arm's only phase from its preset."""
        settings = ArmConfig()
        # MiniLM's heads have to divide both widths, which tiny models' do not by default.
        if self.arm == "minilm":
            heads = {"relation_heads": self.pair.relation_heads}
            settings = ArmConfig(terms=(TermConfig("relation", options=heads),))
        arm = resolve(self.arm, settings, self.pair.student, self.pair.teacher, OPTIMIZER)
        return arm.phases[0]

    @cached_property
    def price(self) -> Price:
        """Count the FLOPs of a step."""
        return price(self.phase, self.shape)

    @property
    def student_params(self) -> Any:
        """Draw the student's parameters."""
        return start(self.pair.student, 0)

    @property
    def teacher_params(self) -> Any:
        """Draw the teacher's parameters."""
        return start(self.pair.teacher, 1)

    def batches(self, number: int) -> list[dict[str, np.ndarray]]:
        """Draw several batches."""
        return [batch(self.shape, self.pair.student.vocab_size, seed) for seed in range(number)]


def batch(shape: BatchShape, vocabulary: int, seed: int) -> dict[str, np.ndarray]:
    """Draw a batch of full sequences, each two packed segments, with every slot in use."""
    rng = np.random.default_rng(seed)
    tokens = (shape.batch_size, shape.seq_len)
    slots = (shape.batch_size, shape.max_predictions)

    # Each sequence is cut in two somewhere in its middle half; position ids restart at the cut.
    cut = rng.integers(shape.seq_len // 4, 3 * shape.seq_len // 4, (shape.batch_size, 1))
    place = np.broadcast_to(np.arange(shape.seq_len), tokens)
    token_ids = rng.integers(0, vocabulary, tokens, np.int32)
    # The first places of a random order are slots drawn without replacement.
    drawn = rng.random(tokens).argsort(axis=1)[:, : shape.max_predictions]
    return {
        "tokens": token_ids,
        "segments": np.where(place < cut, 1, 2).astype(np.int32),
        "positions": np.where(place < cut, place, place - cut).astype(np.int32),
        "valid": np.ones(tokens, np.bool_),
        "slots": np.sort(drawn, axis=1).astype(np.int32),
        "labels": rng.integers(0, vocabulary, slots, np.int32),
        "label_weights": np.ones(slots, np.float32),
    }


def start(config: ModelConfig, seed: int) -> Any:
    """Draw a model's parameters."""
    return models.init(config, seed).params


class Same:
    """A stream that repeats one batch for ever."""

    sequences = 10**9
    """More than any run reads, so that no sequence counts as seen before."""

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
        state: the training state.
        teacher: the teacher's parameters on the device, or None.
        batches: the batches on the device.
        placing: median seconds of placing a batch.
    """

    def __init__(
        self, case: Case, params: Any, teacher: Any, batches: list[Mapping[str, np.ndarray]]
    ) -> None:
        """Compile the step, and place all that it reads.

        Args:
            case: what to run.
            params: the student's parameters.
            teacher: all of the teacher's parameters.
            batches: batches on the host.
        """
        layout = Layout.from_config(devices=jax.devices()[:1])
        self.program = Program(case.phase, case.shape, layout, compute=case.compute)
        self.state = self.program.start(params, seed=0)
        self.teacher = self.program.place_teacher(teacher)

        # Placing is timed batch by batch: the first one may be slower.
        seconds = []
        self.batches = []
        for host_batch in batches:
            started = time.perf_counter()
            self.batches.append(jax.block_until_ready(self.program.place(host_batch)))
            seconds.append(time.perf_counter() - started)
        self.placing = float(np.median(seconds))
        self._steps = 0

    def step(self) -> dict[str, jax.Array]:
        """Begin a step on the next batch; it may still run when this returns."""
        batch = self.batches[self._steps % len(self.batches)]
        schedule_inputs = ScheduleInputs(0.5, RATE)
        # The state is donated: only the new one may be used from here.
        self.state, metrics = self.program.step(self.state, self.teacher, batch, schedule_inputs)
        self._steps += 1
        return metrics

    def wait(self) -> None:
        """Wait until all steps are done."""
        jax.block_until_ready(self.state)


def runner(case: Case) -> Kdjax:
    """Compile a case's step, on two batches."""
    return Kdjax(case, case.student_params, case.teacher_params, case.batches(2))
