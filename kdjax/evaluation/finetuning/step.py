"""The step of fine-tuning and the prediction, as pure functions jitted over a mesh.

B rows of a batch, L tokens, D width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax.config import ComputeConfig, Dtype, ModelConfig, OptimizerConfig, Pooling
from kdjax.models import abstract_params, init_task_head, pooled_state, task_scores
from kdjax.models.features import Batch
from kdjax.models.ops.dropout import DropoutKey
from kdjax.parallel.layout import Layout
from kdjax.parallel.unsharded import Unsharded
from kdjax.training.lanes import BATCH_AXIS, stacked_sharding
from kdjax.training.optimizer import adamw, apply_update
from kdjax.training.step_dropout import step_dropout_key


@dataclass(frozen=True)
class StepKey:
    """The key of a compiled step: all that it depends on besides shapes; hashable.

    Attributes:
        model: configuration of the encoder.
        outputs: outputs of the head: one per class, or one number.
        regression: whether the loss is the squared error; else the cross-entropy.
        pool: what the head reads.
        weight_decay, eps, clip: settings of AdamW.
        dtype: type of activations and matmuls of the encoder; the head computes in float32.
        layout: devices, and where arrays lie on them.
    """

    model: ModelConfig
    outputs: int
    regression: bool
    pool: Pooling
    weight_decay: float
    eps: float
    clip: float
    dtype: Dtype
    layout: Layout

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Return AdamW over all parameters; betas as BERT's (Devlin et al. 2019, arXiv
        1810.04805)."""
        config = OptimizerConfig(
            weight_decay=self.weight_decay, b1=0.9, b2=0.999, eps=self.eps, clip=self.clip
        )
        return adamw(config)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FinetuneState:
    """The state of fine-tuning: all that a step changes.

    What is saved of it goes by the names of fields.

    Attributes:
        step: steps done, int32.
        seed: seed of dropout, uint32.
        diverged_step: first step, from 1, whose loss is not finite, int32; 0: none.
        params: {"model": the encoder's parameters, and the head's as "task_head"}.
        opt: the optimiser's state.
    """

    step: jax.Array
    seed: jax.Array
    diverged_step: jax.Array
    params: dict[str, Any]
    opt: Any


def init_state(step_key: StepKey, encoder: Mapping[str, Any], seed: int) -> FinetuneState:
    """Return the state before the first step; the head's start is a pure function of the seed.

    Args:
        step_key: what the step depends on.
        encoder: parameters of the encoder; copied, without an MLM head.
        seed: fine-tuning seed.
    """
    # A copy, since the step takes the memory of what it is given.
    model = {name: jax.tree.map(jnp.array, part) for name, part in encoder.items() if name != "mlm"}
    model["task_head"] = init_task_head(step_key.model, step_key.outputs, seed)
    params = {"model": model}
    zero = jnp.int32(0)
    return FinetuneState(
        zero, jnp.uint32(seed), jnp.int32(0), params, step_key.optimizer.init(params)
    )


def abstract_state(step_key: StepKey) -> FinetuneState:
    """Return a state as shapes."""
    encoder = abstract_params(step_key.model, mlm=False)
    state: FinetuneState = jax.eval_shape(lambda params: init_state(step_key, params, 0), encoder)
    return state


def abstract_batch(step_key: StepKey, rows: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the arrays of a step's batch as shapes, `[rows, length]` and `[rows]`; of pairs.

    Args:
        step_key: what the step's program depends on.
        rows: rows of the batch.
        length: tokens that the rows are padded to.
    """
    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    numbers = jax.ShapeDtypeStruct((rows,), jnp.float32)
    targets = numbers if step_key.regression else jax.ShapeDtypeStruct((rows,), jnp.int32)
    return {
        "tokens": tokens,
        "segments": tokens,
        "positions": tokens,
        "types": tokens,
        "valid": jax.ShapeDtypeStruct((rows, length), jnp.bool_),
        "targets": targets,
        "weights": numbers,
    }


def make_step(
    step_key: StepKey, dropout_impl: str = "threefry2x32", layout: Layout | Unsharded | None = None
) -> Callable[..., tuple[FinetuneState, jax.Array]]:
    """Build the step `(state, batch, learning_rate) -> (state, loss)`, a pure function.

    The batch has the encoder's arrays `[B, L]`, `targets` `[B]` (class indices, or standardised
    numbers) and `weights` float32 `[B]`, 1 for a row and 0 for what fills the batch up. The loss is
    the mean over rows.

    Args:
        step_key: what the step depends on.
        dropout_impl: JAX PRNG implementation of dropout, a name such as threefry2x32.
        layout: stands in for the key's layout where the step is only counted; None: that.
    """
    layout = layout or step_key.layout
    forward = make_forward(step_key, layout)

    def loss_fn(params: dict[str, Any], batch: Batch, dropout_key: DropoutKey) -> jax.Array:
        outputs = forward(params, batch, dropout_key)
        if step_key.regression:
            losses = jnp.square(outputs[:, 0] - batch["targets"])
        else:
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs, batch["targets"])
        weights = batch["weights"]
        return jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1)

    def step(
        state: FinetuneState, batch: Batch, learning_rate: jax.Array
    ) -> tuple[FinetuneState, jax.Array]:
        dropout_key = step_dropout_key(state.seed, state.step, len(batch["tokens"]), dropout_impl)
        with layout.mesh_context():
            loss, grads = jax.value_and_grad(loss_fn)(state.params, batch, dropout_key)
        grads = layout.constrain_as_stored(grads)
        params, opt_state = apply_update(
            step_key.optimizer, grads, state.opt, state.params, learning_rate
        )

        # The first step that went wrong is kept, so that the host need not look at every loss.
        number = state.step + 1
        went_wrong = (state.diverged_step == 0) & ~jnp.isfinite(loss)
        diverged_step = jnp.where(went_wrong, number, state.diverged_step)
        after = FinetuneState(number, state.seed, diverged_step, params, opt_state)
        return after, loss

    return step


def make_forward(step_key: StepKey, layout: Layout | Unsharded) -> Callable[..., jax.Array]:
    """Build the forward pass `(params, batch, dropout_key) -> outputs` over the devices.

    Outputs are the task's scores, float32 `[B, outputs]`. With None for the key there is no
    dropout.

    Args:
        step_key: what the forward pass depends on.
        layout: the key's layout, or what stands in for it.
    """
    compute = ComputeConfig(dtype=step_key.dtype)

    def pooled(encoder: Any, batch: Batch, **arrays: jax.Array) -> jax.Array:
        return pooled_state(
            step_key.model, encoder, batch, pool=step_key.pool, compute=compute, **arrays
        )

    pooled_forward = layout.shard_forward(pooled, step_key.dtype)

    def forward(params: dict[str, Any], batch: Batch, dropout_key: DropoutKey) -> jax.Array:
        encoder = dict(params["model"])
        # The head is small, and computed whole in float32 whatever the encoder is computed in.
        head = layout.constrain_gathered(encoder.pop("task_head"))
        arrays = {} if dropout_key is None else {"dropout_key": dropout_key}
        inputs = {name: batch[name] for name in batch if name not in ("targets", "weights")}
        states = pooled_forward(encoder, inputs, **arrays)
        return task_scores(step_key.model, head, states, dropout_key=dropout_key)

    return forward


@functools.cache
def compiled_step(step_key: StepKey, lanes: int) -> Any:
    """Return the jitted step of several lanes: `(states, batch, rates) -> (states, losses)`.

    States, learning rates and losses are stacked along a new first axis, batches along a new second
    one, since devices split the first. One lane is not stacked. It is compiled once a shape, for
    all trials of a process.

    Args:
        step_key: what the step is compiled for: model, task and layout of the devices.
        lanes: number of trials that take the step together.
    """
    layout = step_key.layout
    step = make_step(step_key)
    sharding = state_sharding(step_key, lanes)
    if lanes > 1:
        step = jax.vmap(step, in_axes=(0, BATCH_AXIS, 0))
    return jax.jit(
        step,
        in_shardings=(sharding, layout.batch_sharding, layout.replicated),
        out_shardings=(sharding, layout.replicated),
        donate_argnums=0,
    )


@functools.cache
def state_sharding(step_key: StepKey, lanes: int) -> Any:
    """Return how a step's state lies on the devices, or the stacked states of several lanes.

    Args:
        step_key: what the step is compiled for; its layout has the devices.
        lanes: number of trials that take the step together; 1: nothing is stacked.
    """
    sharding = step_key.layout.param_sharding(abstract_state(step_key))
    if lanes == 1:
        return sharding
    return stacked_sharding(sharding)


@functools.cache
def compiled_forward(step_key: StepKey) -> Any:
    """Return the jitted forward pass `(params, batch) -> outputs`, float32 `[B, outputs]`, without
    dropout."""
    layout = step_key.layout
    forward = make_forward(step_key, layout)

    def predict(params: dict[str, Any], batch: Batch) -> jax.Array:
        with layout.mesh_context():
            return forward(params, batch, None)

    params_sharding = layout.param_sharding(abstract_state(step_key).params)
    return jax.jit(
        predict,
        in_shardings=(params_sharding, layout.batch_sharding),
        out_shardings=layout.replicated,
    )
