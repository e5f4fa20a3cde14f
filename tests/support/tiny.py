"""Models and batches small enough for a test."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from kdjax import models
from kdjax.config import ArmConfig, CheckpointConfig, ModelConfig, OptimizerConfig
from kdjax.training.arm import Arm, resolve
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.input_pipeline import Stream
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.phase_price import price
from kdjax.training.program import Program
from kdjax.training.step import ScheduleInputs

VOCABULARY = 53
STUDENT = ModelConfig(
    layers=2,
    width=16,
    heads=2,
    ffn=32,
    vocab_size=VOCABULARY,
    max_positions=24,
    dropout=0.0,
    attention_dropout=0.0,
)
TEACHER = ModelConfig(layers=4, width=24, heads=2, ffn=48, vocab_size=VOCABULARY, max_positions=24)
SHALLOW_STUDENT = replace(STUDENT, layers=1)
SHALLOW_TEACHER = replace(TEACHER, layers=2)
"""For what does not depend on the number of layers: they compile in half the time."""
SHAPE = BatchShape(batch_size=8, seq_len=12, max_predictions=3)
EVERY_STEP = 0.0
AT_THE_END = 1e9
"""Seconds between checkpoints."""


def saving(stop_at: int | None) -> CheckpointConfig:
    """Save after every step of a run that will be interrupted, and only at the end of another."""
    return CheckpointConfig(seconds=AT_THE_END if stop_at is None else EVERY_STEP)


@functools.cache
def _drawn(config: ModelConfig, seed: int) -> Any:
    return models.init(config, seed).params


def params(config: ModelConfig, seed: int) -> Any:
    """Return a model's start parameters, drawn once in a process."""
    return jax.tree.map(lambda leaf: leaf, _drawn(config, seed))


def arm(
    name: str = "scratch",
    /,
    student: ModelConfig = STUDENT,
    teacher: ModelConfig = TEACHER,
    **optimizer: Any,
) -> Arm:
    """Resolve a preset between the tiny models."""
    return resolve(
        name, ArmConfig(), student, teacher, OptimizerConfig(**{"learning_rate": 1e-2, **optimizer})
    )


def phase(
    name: str = "scratch",
    /,
    student: ModelConfig = STUDENT,
    teacher: ModelConfig = TEACHER,
    **optimizer: Any,
) -> Phase:
    """Return a preset's only phase."""
    (only,) = arm(name, student, teacher, **optimizer).phases
    return only


def spread(params: Any, factor: float = 8.0) -> Any:
    """Return a model's parameters with larger matrices, so that no distribution of it is nearly
    uniform.

    At the start the attention and the relations of any two models are nearly the same, and a
    divergence between them is a difference that rounding covers.
    """
    return jax.tree.map(lambda x: x * np.float32(factor) if x.ndim > 1 else x, params)


def schedule_inputs(phase: Phase, step: int, steps: int) -> ScheduleInputs:
    """Return where step `step` of a phase stands in a run of `steps` steps of the same price."""
    return ScheduleInputs(step / steps, phase.learning_rate(step / steps, (step + 1) / steps))


def compiled_phase(
    phase: Phase, program: Program, stream: Stream, teacher: Any = None
) -> CompiledPhase:
    """Make a phase of a run, at its price."""
    return CompiledPhase(phase, program, price(phase, program.batch_shape), stream, teacher)


def batch(seed: int = 0, shape: BatchShape = SHAPE) -> dict[str, np.ndarray]:
    """Make a random batch: two packed segments and some padding in every sequence, and now and then
    an unused slot."""
    rng = np.random.default_rng(seed)
    b = shape.batch_size
    length = shape.seq_len
    slots = shape.max_predictions
    # Where the first segment ends, and where padding begins.
    cut = rng.integers(2, length - 3, (b, 1))
    end = rng.integers(length - 2, length + 1, (b, 1))
    place = np.broadcast_to(np.arange(length), (b, length))
    segments = np.where(place < cut, 1, 2) * (place < end)
    # Positions count from 0 in each segment.
    positions = np.where(place < cut, place, place - cut) * (place < end)
    return {
        "tokens": rng.integers(0, VOCABULARY, (b, length)).astype(np.int32) * (segments > 0),
        "segments": segments.astype(np.int32),
        "positions": positions.astype(np.int32),
        "valid": segments > 0,
        "slots": np.stack([rng.permutation(length - 2)[:slots] for _ in range(b)]).astype(np.int32),
        "labels": rng.integers(0, VOCABULARY, (b, slots)).astype(np.int32),
        "label_weights": (rng.random((b, slots)) < 0.8).astype(np.float32),
    }


class Batches:
    """Batches like the loader's, without a corpus: the n-th is of its number."""

    def __init__(self, seed: int = 0, shape: BatchShape = SHAPE, sequences: int = 40) -> None:
        self.seed = seed
        self.shape = shape
        self.sequences = sequences

    def iterate(self, seen: int, rows: Any = slice(None)) -> Any:
        for step in itertools.count(seen // self.shape.batch_size):
            # Batches of a seed have numbers of their own, far from another seed's.
            whole = batch(1000 * self.seed + step, self.shape)
            yield (
                step * self.shape.batch_size,
                {name: values[rows] for name, values in whole.items()},
            )
