"""The MLM probe's head: its parameters, its logits and a step of its fit.

The head sees one masked position at a time, so it can read what the model's states say of the token
there, and cannot look at its neighbours itself. It reads a learned mix of all layers (ELMo's scalar
mix: Peters et al. 2018, arXiv 1802.05365, equation 1; as a probe: Tenney et al. 2019, arXiv
1905.05950), because an objective may leave the last layers untrained. The states of each layer are
standardised, so that their scale decides nothing and one learning rate serves all models. Then
follow BERT's transform (dense, GELU, LayerNorm) and an output matrix.

Letters in shapes: B batch, S slots, K layers that are read, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from kdjax.config import ModelConfig
from kdjax.evaluation.mlm import sum_over_slots
from kdjax.models import forward
from kdjax.models.features import FeatureRequest
from kdjax.models.ops import cross_entropy, gelu, log_softmax
from kdjax.objectives.reductions import weighted_mean
from kdjax.training.optimizer import apply_update

HEAD_SEED = 20240420
"""Seed of the head's start in every study."""
EPSILON = 1e-5
"""Added to a variance before its root is taken."""

Params = dict[str, Any]
ProbeState = tuple[Params, Any]
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

    def start(self) -> ProbeState:
        """Make a new head and its optimiser's state, which the first step donates."""
        head = self.init()
        return head, OPTIMIZER.init(head)

    def states(self, encoder: Params, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Compute the frozen encoder's standardised states at the masked slots.

        Args:
            encoder: parameters of the encoder.
            batch: a batch of `[B, L]` tokens with `slots` `[B, S]`.

        Returns:
            `[B, S, K, D]`, of the K layers that the head reads.
        """
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
        state: ProbeState,
        states: jax.Array,
        word: jax.Array,
        batch: Mapping[str, jax.Array],
        rate: jax.Array,
    ) -> tuple[ProbeState, jax.Array]:
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
        return apply_update(OPTIMIZER, grads, moments, head, rate), loss

    def sums(
        self, head: Params, encoder: Params, batch: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """Sum a held-out batch's losses over its slots, as `kdjax.evaluation.mlm.sum_over_slots`.

        Args:
            head: parameters of the head.
            encoder: parameters of the frozen model.
            batch: a batch with fixed masks.
        """
        word = encoder["embeddings"]["word"]["embedding"]
        logits = self.logits(head, self.states(encoder, batch), word)
        return sum_over_slots(log_softmax(logits), batch, None)


# The methods stay plain, since the FLOP counter traces them in their reference form.
compute_states = jax.jit(ProbeHead.states, static_argnums=0)
"""`ProbeHead.states`, compiled."""
take_step = jax.jit(ProbeHead.update, static_argnums=0, donate_argnums=1)
"""`ProbeHead.update`, compiled; it uses up the state."""
compute_sums = jax.jit(ProbeHead.sums, static_argnums=0)
"""`ProbeHead.sums`, compiled."""


def standardized(x: jax.Array) -> jax.Array:
    """Shift and scale the last axis to mean 0 and variance 1: LayerNorm without parameters."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred / jnp.sqrt(variance + EPSILON)
