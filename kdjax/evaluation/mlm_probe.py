"""The MLM probe: held-out loss of a fresh MLM head on a frozen model, fitted alike on every model.

The head sees one masked position at a time, so it can read what the model's states say of the token
there, and cannot look at its neighbours itself. It reads a learned mix of all layers (ELMo's scalar
mix: Peters et al. 2018, arXiv 1802.05365, equation 1; as a probe: Tenney et al. 2019, arXiv
1905.05950), because an objective may leave the last layers untrained. The states of each layer are
standardised, so that their scale decides nothing and one learning rate serves all models. Then
follow BERT's transform (dense, GELU, LayerNorm) and an output matrix.

Letters in shapes: B batch, S slots, K layers that are read, D width, V vocabulary.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax.budget.price import check_agreement, measure
from kdjax.config import MlmProbeConfig, ModelConfig, OptimizerConfig
from kdjax.errors import InputError
from kdjax.evaluation.mlm import HeldOut, MlmResult, mean_of, over_slots
from kdjax.models import abstract_params, forward
from kdjax.models.features import FeatureRequest
from kdjax.models.ops import cross_entropy, gelu, log_softmax
from kdjax.objectives.reductions import weighted_mean
from kdjax.training.optimizer import apply, learning_rate
from kdjax.training.phase import BatchShape

HEAD_SEED = 20240420
"""Seed of the head's start in every study."""
EPSILON = 1e-5
"""Added to a variance before its root is taken."""
CURVE_POINTS = 20
"""Points of a probe's loss curve, at most."""
WARMUP = 0.1
"""Share of the steps that warm up."""

Params = dict[str, Any]
State = tuple[Params, Any]
"""A head's parameters and its optimiser's state."""

OPTIMIZER = optax.scale_by_adam(b1=0.9, b2=0.98, eps=1e-8)
"""Adam without weight decay: text that is read once needs none."""


@dataclass(frozen=True)
class ProbeHead:
    """A probe's MLM head: what its compiled functions depend on besides shapes.

    Attributes:
        model: configuration of the frozen model.
        decoder: `free`: an output matrix of the head's own; `tied`: the model's word embedding.
        features: `mix`: a learned mix of all layers; `last`: the last layer alone.
    """

    model: ModelConfig
    decoder: Literal["free", "tied"]
    features: Literal["mix", "last"]

    @property
    def layers(self) -> tuple[int, ...]:
        """Return the layers that the head reads; 0 is the embedding output."""
        last = self.model.layers
        if self.features == "last":
            return (last,)
        return tuple(range(last + 1))

    def init(self) -> Params:
        """Make the head's first parameters, the same for all models of one width.

        The mix is even and the output matrix 0, so that the first prediction is uniform.
        """
        width = self.model.width
        vocabulary = self.model.vocab_size
        normal = jax.nn.initializers.truncated_normal(stddev=1 / math.sqrt(width))
        kernel = normal(jax.random.key(HEAD_SEED), (width, width), jnp.float32)
        head: Params = {
            "dense": {"kernel": kernel, "bias": jnp.zeros(width)},
            "norm": {"scale": jnp.ones(width), "bias": jnp.zeros(width)},
            "bias": jnp.zeros(vocabulary),
        }
        if self.features == "mix":
            head["mix"] = jnp.zeros(len(self.layers))
        if self.decoder == "free":
            head["decoder"] = jnp.zeros((vocabulary, width))
        return head

    def start(self) -> State:
        """Make a new head and its optimiser's state, which the first step donates."""
        head = self.init()
        return head, OPTIMIZER.init(head)

    def states(self, encoder: Params, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Compute the standardised states `[B, S, K, D]` at the slots, of the layers to read."""
        request = FeatureRequest(hidden=frozenset(self.layers))
        hidden = forward(self.model, encoder, batch, request).hidden
        slots = batch["slots"][..., None]
        at_slots = [jnp.take_along_axis(hidden[layer], slots, axis=1) for layer in self.layers]
        return standardized(jnp.stack(at_slots, axis=2))

    def logits(self, head: Params, states: jax.Array, word: jax.Array) -> jax.Array:
        """Compute logits `[B, S, V]`.

        Args:
            head: parameters of the head.
            states: `[B, S, K, D]`: standardised states at the slots.
            word: `[V, D]`: the model's word embedding; a tied decoder alone reads it.
        """
        if self.features == "mix":
            mixed = jnp.einsum("K,BSKD->BSD", jax.nn.softmax(head["mix"]), states)
        else:
            mixed = states[:, :, 0]
        x = gelu(mixed @ head["dense"]["kernel"] + head["dense"]["bias"], self.model.gelu)
        x = standardized(x) * head["norm"]["scale"] + head["norm"]["bias"]
        # A tied head has no output matrix of its own.
        decoder = head.get("decoder", word)
        logits: jax.Array = jnp.einsum("BSD,VD->BSV", x, decoder) + head["bias"]
        return logits

    def update(
        self,
        state: State,
        states: jax.Array,
        word: jax.Array,
        batch: Mapping[str, jax.Array],
        rate: jax.Array,
    ) -> tuple[State, jax.Array]:
        """Take one step of the head.

        Args:
            state: parameters of the head and the optimiser's state.
            states: `[B, S, K, D]`: standardised states at the batch's slots.
            word: `[V, D]`: the model's word embedding.
            batch: `labels` and `label_weights`, `[B, S]`.
            rate: learning rate of the step.

        Returns:
            The new state, and the batch's loss in nats before the step.
        """
        head, moments = state

        def loss_of(params: Params) -> jax.Array:
            losses = cross_entropy(self.logits(params, states, word), batch["labels"])
            return weighted_mean(losses, batch["label_weights"])

        loss, grads = jax.value_and_grad(loss_of)(head)
        return apply(OPTIMIZER, grads, moments, head, rate), loss


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
        sums = [_measure(self.form, head, self.encoder, batch) for batch in held_out.batches]
        return mean_of(sums, "the probe's held-out")

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
        """Yield the batches after `seen` sequences, each with how many sequences came before."""


@dataclass(frozen=True)
class MlmProbe:
    """The probe of a study, fitted on every model alike.

    Attributes:
        settings: tokens, batch, optimiser and layers of the fit, from the recipe.
        text: training text; each fit begins at its beginning.
        shape: shape of a batch.
    """

    settings: MlmProbeConfig
    text: TrainingText
    shape: BatchShape

    def fit(self, model: ModelConfig, params: Params) -> FittedProbe:
        """Fit a head on a model's frozen states, with the probe's settings and text.

        Raises:
            InputError: fewer tokens than two steps take.
        """
        batches = self.text.iterate(0)
        return fit(self.settings, model, params, (batch for _, batch in batches), self.shape)

    def cost(self, model: ModelConfig) -> ProbeCost:
        """Count the FLOPs of a fit on a model, from shapes alone.

        Raises:
            InputError: fewer tokens than two steps take.
            FlopCountError: XLA and the independent count disagree.
        """
        return cost_of(self.settings, model, self.shape)


def fit(
    settings: MlmProbeConfig,
    model: ModelConfig,
    params: Params,
    batches: Iterable[Mapping[str, Any]],
    shape: BatchShape,
) -> FittedProbe:
    """Fit a head on the frozen model; a pure function of its arguments.

    A twin that shares the frozen forward passes stops half-way, its own learning rate decayed to 0:
    what the second half of the tokens brought is then measured and not extrapolated.

    Args:
        settings: settings of the probe.
        model: configuration of the frozen model.
        params: parameters of the frozen model; an MLM head among them is not used.
        batches: MLM batches of the training text, the same for every model; `steps_of` says how
            many are read.
        shape: shape of a batch.

    Raises:
        InputError: fewer tokens than two steps take.
    """
    form = ProbeHead(model, settings.decoder, settings.features)
    encoder = {name: jax.device_put(part) for name, part in params.items() if name != "mlm"}
    word = encoder["embeddings"]["word"]["embedding"]
    steps = steps_of(settings, shape)
    half_steps = steps // 2

    # Two heads on the same states: the half-way twin takes part in the first half of the steps.
    whole = form.start()
    half = form.start()
    losses: list[jax.Array] = []
    for number, batch in enumerate(itertools.islice(batches, steps)):
        states = _states(form, encoder, batch)
        whole, loss = _update(form, whole, states, word, batch, _rate(settings, number, steps))
        if number < half_steps:
            rate = _rate(settings, number, half_steps)
            half, _ = _update(form, half, states, word, batch, rate)
        # A few steps ahead at most, so that their states do not pile up on the device.
        jax.block_until_ready(losses[-2:-1])
        losses.append(loss)
    # Not stacked on the device: that would compile a program with an operand a step.
    values = np.asarray(jax.device_get(losses), np.float64)
    return FittedProbe(form, encoder, whole[0], half[0], tuple(values.tolist()))


def steps_of(settings: MlmProbeConfig, shape: BatchShape) -> int:
    """Count the steps that the probe's tokens allow.

    Raises:
        InputError: fewer than two steps.
    """
    steps = int(settings.tokens // shape.tokens_per_step)
    if steps < 2:
        raise InputError(
            f"evaluation.mlm_probe.tokens is {settings.tokens:g}, expected 0, or at least two "
            "steps of evaluation.mlm_probe.batch_size x data.seq_len, "
            f"{2 * shape.tokens_per_step} tokens"
        )
    return steps


def cost_of(settings: MlmProbeConfig, model: ModelConfig, shape: BatchShape) -> ProbeCost:
    """Count a probe's FLOPs from shapes alone, by the FLOP counter that prices training steps.

    Args:
        settings: settings of the probe.
        model: configuration of the frozen model.
        shape: shape of a batch.

    Raises:
        InputError: fewer tokens than two steps take.
        FlopCountError: XLA and the independent count disagree.
    """
    form = ProbeHead(model, settings.decoder, settings.features)
    forward_flops, update_flops = _flops(form, shape)
    return ProbeCost(forward_flops, update_flops, steps_of(settings, shape))


def standardized(x: jax.Array) -> jax.Array:
    """Shift and scale the last axis to mean 0 and variance 1: LayerNorm without parameters."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred / jnp.sqrt(variance + EPSILON)


def _rate(settings: MlmProbeConfig, number: int, steps: int) -> np.float32:
    """Compute the learning rate of a step, counted from 0."""
    schedule = OptimizerConfig(learning_rate=settings.learning_rate, warmup=WARMUP)
    return np.float32(learning_rate(schedule, number / steps, (number + 1) / steps))


@functools.cache
def _flops(form: ProbeHead, shape: BatchShape) -> tuple[int, int]:
    """Count FLOPs of the frozen forward pass on a batch, and of one step of a head."""
    # Shapes alone: nothing is computed.
    encoder = abstract_params(form.model, mlm=False)
    batch = shape.abstract()
    state = jax.eval_shape(form.start)
    states = jax.eval_shape(form.states, encoder, batch)
    word = encoder["embeddings"]["word"]["embedding"]
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    forward_count = measure(form.states, encoder, batch)
    update_count = measure(form.update, state, states, word, batch, rate)
    forward_flops = check_agreement(forward_count, "an MLM probe's forward")
    update_flops = check_agreement(update_count, "an MLM probe's step")
    return forward_flops, update_flops


@functools.partial(jax.jit, static_argnums=0)
def _states(form: ProbeHead, encoder: Params, batch: Mapping[str, jax.Array]) -> jax.Array:
    return form.states(encoder, batch)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _update(
    form: ProbeHead,
    state: State,
    states: jax.Array,
    word: jax.Array,
    batch: Mapping[str, jax.Array],
    rate: jax.Array,
) -> tuple[State, jax.Array]:
    return form.update(state, states, word, batch, rate)


@functools.partial(jax.jit, static_argnums=0)
def _measure(
    form: ProbeHead, head: Params, encoder: Params, batch: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    word = encoder["embeddings"]["word"]["embedding"]
    logits = form.logits(head, form.states(encoder, batch), word)
    return over_slots(log_softmax(logits), batch, None)
