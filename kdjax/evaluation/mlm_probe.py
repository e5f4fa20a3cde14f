"""The MLM probe: held-out loss of a fresh MLM head on a frozen model, fitted alike on every model.

`kdjax.evaluation.mlm_probe_head` has the head; here are its fit and what that costs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.budget.price import check_agreement, count_program_flops
from kdjax.config import MlmProbeConfig, ModelConfig, OptimizerConfig
from kdjax.errors import InputError
from kdjax.evaluation.mlm import HeldOut, MlmResult, means_of_sums
from kdjax.evaluation.mlm_probe_head import (
    Params,
    ProbeHead,
    compute_states,
    compute_sums,
    take_step,
)
from kdjax.models import abstract_params
from kdjax.training.learning_rate import learning_rate
from kdjax.training.phase import BatchShape

CURVE_POINTS = 20
"""Points of a probe's loss curve, at most."""
WARMUP = 0.1
"""Share of the steps that warm up."""


@dataclass(frozen=True)
class ProbeCost:
    """FLOPs of a probe, by XLA's count of the reference program; transcendentals do not count.

    Attributes:
        forward: FLOPs of the frozen model on one batch, up to the highest layer that is read.
        update: FLOPs of one step of a head: forward, backward and optimiser.
        steps: number of steps of the whole probe.
    """

    forward: int
    update: int
    steps: int

    @property
    def total(self) -> int:
        """Sum the frozen forward passes, the head's steps, and those of its half-way twin."""
        return self.steps * self.forward + (self.steps + self.steps // 2) * self.update


@dataclass(frozen=True)
class FittedProbe:
    """A head fitted on a frozen model, and its twin that had half of the tokens.

    Attributes:
        form: kind of head that was fitted.
        encoder: the model's parameters without its own MLM head, on the device.
        head: parameters of the head.
        half: parameters of the twin, whose learning rate fell to 0 after half of the steps.
        losses: training loss before each step, in nats.
    """

    form: ProbeHead
    encoder: Params
    head: Params
    half: Params
    losses: tuple[float, ...]

    @property
    def layer_weights(self) -> list[float]:
        """Compute the weight of each layer, from the embeddings on; they add up to 1."""
        if self.form.features == "last":
            return [0.0] * self.form.model.layers + [1.0]
        return [float(weight) for weight in jax.nn.softmax(self.head["mix"])]

    def measure(self, held_out: HeldOut, *, half: bool = False) -> MlmResult:
        """Measure the head on held-out masks.

        Args:
            held_out: batches with fixed masks.
            half: whether the half-way twin is measured instead.

        Raises:
            InputError: no slot has a weight above 0, or the loss is not finite.
        """
        head = self.half if half else self.head
        sums = [compute_sums(self.form, head, self.encoder, batch) for batch in held_out.batches]
        return means_of_sums(sums, "the probe's held-out")

    def curve(self, tokens: float) -> list[dict[str, float]]:
        """Average the training losses over `CURVE_POINTS` even parts of the steps.

        Args:
            tokens: tokens of one step.

        Returns:
            A row for each part: `tokens` read by its end, and its mean `loss` in nats.
        """
        parts = np.array_split(np.asarray(self.losses), min(CURVE_POINTS, len(self.losses)))
        ends = np.cumsum([len(part) for part in parts])
        return [
            {"tokens": float(end * tokens), "loss": float(part.mean())}
            for end, part in zip(ends, parts, strict=True)
        ]


class TrainingText(Protocol):
    """The training text as batches without end (`kdjax.data.loader.Batches`)."""

    def iterate(self, seen: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the batches that follow the first `seen` sequences.

        Args:
            seen: sequences to pass over.

        Yields:
            The number of sequences before a batch, and the batch.
        """


@dataclass(frozen=True)
class MlmProbe:
    """The probe of a study, fitted on every model alike.

    Attributes:
        settings: tokens, batch, optimiser and layers of the fit, from the recipe.
        text: training text; each fit begins at its beginning.
        batch_shape: shape of a batch.
    """

    settings: MlmProbeConfig
    text: TrainingText
    batch_shape: BatchShape

    def fit(self, model: ModelConfig, params: Params) -> FittedProbe:
        """Fit a head on a model's frozen states; a pure function of the probe and the arguments.

        A twin that shares the frozen forward passes stops half-way, its own learning rate decayed
        to 0: what the second half of the tokens brought is then measured and not extrapolated.

        Args:
            model: configuration of the frozen model.
            params: parameters of the frozen model; an MLM head among them is not used.

        Raises:
            InputError: fewer tokens than two steps take.
        """
        settings = self.settings
        form = ProbeHead(model, settings.decoder, settings.features)
        encoder = {name: jax.device_put(part) for name, part in params.items() if name != "mlm"}
        word = encoder["embeddings"]["word"]["embedding"]
        steps = steps_of(settings, self.batch_shape)
        half_steps = steps // 2

        # Two heads on the same states: the half-way twin takes part in the first half of the steps.
        whole = form.start()
        half = form.start()
        losses: list[jax.Array] = []
        batches = itertools.islice(self.text.iterate(0), steps)
        for number, (_, batch) in enumerate(batches):
            states = compute_states(form, encoder, batch)
            learning_rate = _learning_rate(settings, number, steps)
            whole, loss = take_step(form, whole, states, word, batch, learning_rate)
            if number < half_steps:
                learning_rate = _learning_rate(settings, number, half_steps)
                half, _ = take_step(form, half, states, word, batch, learning_rate)
            # A few steps ahead at most, so that their states do not pile up on the device.
            jax.block_until_ready(losses[-2:-1])
            losses.append(loss)
        # Not stacked on the device: that would compile a program with an operand a step.
        values = np.asarray(jax.device_get(losses), np.float64)
        return FittedProbe(form, encoder, whole[0], half[0], tuple(values.tolist()))


def steps_of(settings: MlmProbeConfig, batch_shape: BatchShape) -> int:
    """Count the whole steps of a probe's fit that its tokens allow.

    Args:
        settings: settings of the probe, with its `tokens`.
        batch_shape: shape of its batches.

    Raises:
        InputError: fewer than two steps.
    """
    tokens_per_step = batch_shape.tokens_per_step
    steps = int(settings.tokens // tokens_per_step)
    if steps < 2:
        raise InputError(
            f"evaluation.mlm_probe.tokens is {settings.tokens:g}, expected 0, or at least two "
            f"steps of evaluation.mlm_probe.batch_size x data.seq_len, {2 * tokens_per_step} "
            "tokens"
        )
    return steps


def cost_of(settings: MlmProbeConfig, model: ModelConfig, batch_shape: BatchShape) -> ProbeCost:
    """Count a probe's FLOPs from shapes alone, by the FLOP counter that prices training steps.

    Args:
        settings: settings of the probe.
        model: configuration of the frozen model.
        batch_shape: shape of a batch.

    Raises:
        InputError: fewer tokens than two steps take.
        FlopCountError: XLA and the independent count disagree.
    """
    form = ProbeHead(model, settings.decoder, settings.features)
    forward_flops, update_flops = _flops(form, batch_shape)
    return ProbeCost(forward_flops, update_flops, steps_of(settings, batch_shape))


def _learning_rate(settings: MlmProbeConfig, number: int, steps: int) -> np.float32:
    """Compute the learning rate of a step, counted from 0."""
    schedule = OptimizerConfig(learning_rate=settings.learning_rate, warmup=WARMUP)
    return np.float32(learning_rate(schedule, number / steps, (number + 1) / steps))


@functools.cache
def _flops(form: ProbeHead, batch_shape: BatchShape) -> tuple[int, int]:
    """Count FLOPs of the frozen forward pass on a batch, and of one step of a head."""
    # Shapes alone: nothing is computed.
    encoder = abstract_params(form.model, mlm=False)
    batch = batch_shape.abstract()
    state = jax.eval_shape(form.start)
    states = jax.eval_shape(form.states, encoder, batch)
    word = encoder["embeddings"]["word"]["embedding"]
    learning_rate = jax.ShapeDtypeStruct((), jnp.float32)
    forward_count = count_program_flops(form.states, encoder, batch)
    update_count = count_program_flops(form.update, state, states, word, batch, learning_rate)
    forward_flops = check_agreement(forward_count, "an MLM probe's forward")
    update_flops = check_agreement(update_count, "an MLM probe's step")
    return forward_flops, update_flops
