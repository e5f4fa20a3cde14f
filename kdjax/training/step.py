"""The fused step: teacher's forward, student's forward and backward, and the update, in one pure
function."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend import core

from kdjax.models.features import Features
from kdjax.models.ops.dropout import sequence_seeds
from kdjax.objectives.objective import Objective
from kdjax.parallel.layout import Layout
from kdjax.training.optimizer import apply
from kdjax.training.partition import (
    Flat,
    combine,
    flat,
    merge_optimizer_state,
    partition,
    select_optimizer_state,
)

Batch = Mapping[str, jax.Array]
Forward = Callable[..., Features]
Loss = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
Step = Callable[["State", Any, Batch, "ScheduleInputs"], tuple["State", dict[str, Any]]]

GRAD_SQUARES = "grad_squares"
"""Among a step's metrics, before it is compiled: the sum of squares of each parameter's gradient,
by dotted path."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScheduleInputs:
    """Where a step stands in its run: all that changes from step to step besides the batch, float32
    scalars.

    Attributes:
        budget_fraction: share of the budget spent before the step, which schedules go by.
        learning_rate: of the step.
    """

    budget_fraction: Any
    learning_rate: Any

    @staticmethod
    def abstract(sharding: jax.sharding.Sharding | None = None) -> ScheduleInputs:
        """Its scalars as shapes."""
        scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=sharding)
        return ScheduleInputs(scalar, scalar)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What training changes, and nothing else: the teacher is not in it.

    Attributes:
        step: steps done, int32.
        seed: of dropout, uint32.
        params: {"model": the student's, "objective": the terms' own}.
        opt: the optimiser's state, over the parameters as one flat mapping.
    """

    step: jax.Array
    seed: jax.Array
    params: dict[str, Any]
    opt: Any


def init_state(params: dict[str, Any], optimizer: optax.GradientTransformation, seed: int) -> State:
    """The state before the first step."""
    return State(jnp.int32(0), jnp.uint32(seed), params, optimizer.init(flat(params)))


def make_loss(
    student_features: Forward,
    teacher_features: Forward,
    objective: Objective,
    *,
    dtype: str = "float32",
    layout: Layout | None = None,
) -> Loss:
    """The loss `(params, teacher_params, batch, dropout_key, budget_fraction, shares) -> (loss,
    terms)`.

    Args:
        student_features: the student's features, `(params["model"], teacher_params, batch,
            dropout_key) -> Features`.
        teacher_features: the teacher's features, `(teacher_params, batch) -> Features`; no gradient
            flows into them.
        objective: what is minimised.
        dtype: of activations and matmuls.
        layout: where parameters lie, for a step over several devices; changes the result by
            rounding alone.
    """

    def student(
        params: Any, teacher_params: Any, batch: Batch, dropout_key: jax.Array | None
    ) -> Features:
        return student_features(params["model"], teacher_params, batch, dropout_key)

    def teacher(params: None, teacher_params: Any, batch: Batch, dropout_key: None) -> Features:
        return teacher_features(teacher_params, batch)

    if layout is not None:
        student = layout.shard_forward(student, dtype)
        teacher = layout.shard_forward(teacher, dtype)

    def loss(
        params: dict[str, Any],
        teacher_params: Any,
        batch: Batch,
        dropout_key: jax.Array | None,
        budget_fraction: jax.Array | float,
        shares: Mapping[str, jax.Array] | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        own = params["objective"] if layout is None else layout.all_gather(params["objective"])
        seen = student({"model": params["model"]}, teacher_params, batch, dropout_key)
        wanted = jax.lax.stop_gradient(teacher(None, teacher_params, batch, None))
        return objective(seen, wanted, batch, own, budget_fraction, shares)

    return loss


over_whole: Callable[[Loss], Callable[..., Any]] = functools.partial(
    jax.value_and_grad, has_aux=True
)
"""The loss of a whole batch and its gradients."""


def accumulated(objective: Objective, parts: int, loss: Loss) -> Callable[..., Any]:
    """As `over_whole`, over a batch taken in parts, one after another, to save memory.

    Each term's value in a part counts by what it is a mean over there (`Term.normalizer`), so the
    result is that of the whole batch, whatever the parts hold, dropout included. Part i takes
    sequences i, i + `parts`, …: of each device the same number.
    """
    graded = over_whole(loss)

    def run(
        params: Any, teacher_params: Any, batch: Batch, key: jax.Array | None, budget_fraction: Any
    ) -> Any:
        whole = objective.normalizers(batch)
        pieces = jax.tree.map(
            lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), (dict(batch), key)
        )

        def add(total: Any, taken: tuple[Any, Any]) -> tuple[Any, None]:
            piece, own = taken
            counts = objective.normalizers(piece)
            shares = {name: counts[name] / jnp.maximum(whole[name], 1e-9) for name in counts}
            return jax.tree.map(
                jnp.add, total, graded(params, teacher_params, piece, own, budget_fraction, shares)
            ), None

        nothing = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype),
            jax.eval_shape(graded, params, teacher_params, batch, key, budget_fraction, whole),
        )
        return jax.lax.scan(add, nothing, pieces)[0]

    return run


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    trained: Any,
    *,
    dropout: bool,
    differentiate: Callable[[Loss], Callable[..., Any]] = over_whole,
    bits: str = "threefry2x32",
    layout: Layout | None = None,
) -> Step:
    """The step `(state, teacher_params, batch, schedule_inputs) -> (state, metrics)`: one pure
    function, for `compile_step`.

    Args:
        loss: from `make_loss`.
        optimizer: an Optax transformation of the parameters as one flat mapping
            (`kdjax.training.partition`), without the learning rate.
        trained: from `trained`. What gets no gradient stays as it is, and nothing is computed for
            it.
        dropout: whether the loss takes a dropout key, made anew from (seed, step).
        differentiate: makes the loss and its gradients of the loss: `over_whole`, or `accumulated`.
        bits: the generator of dropout's random bits (a name JAX knows).
        layout: where parameters lie, for a step over several devices; changes the result by
            rounding alone.

    Returns:
        A function whose metrics are float32 scalars: `loss`, `grad_norm` and each term by its key.
            Beside them
        `GRAD_SQUARES`, a mapping of scalars: what the gradient norm is the root of the sum of. They
        are computed anyway, so handing them out adds nothing to the price; `compile_step` makes
        norms of groups of them.
    """

    def step(
        state: State, teacher_params: Any, batch: Batch, schedule_inputs: ScheduleInputs
    ) -> tuple[State, dict[str, Any]]:
        key = (
            jax.random.fold_in(jax.random.key(state.seed, impl=bits), state.step)
            if dropout
            else None
        )
        key = sequence_seeds(key, len(batch["tokens"]))
        params, frozen = partition(state.params, trained)

        def loss_of_trainable(params: Flat, *rest: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            return loss(combine(params, frozen, trained), *rest)

        with contextlib.nullcontext() if layout is None else layout.mesh_context():
            (value, terms), grads = differentiate(loss_of_trainable)(
                params, teacher_params, batch, key, schedule_inputs.budget_fraction
            )
        grads = grads if layout is None else layout.reduce_scatter(grads)
        params, opt = apply(
            optimizer,
            grads,
            select_optimizer_state(state.opt, params),
            params,
            schedule_inputs.learning_rate,
        )
        squares = sums_of_squares(grads)
        metrics = {"loss": value, "grad_norm": root_of_sum(squares), GRAD_SQUARES: squares, **terms}
        after = combine(params, frozen, trained)
        return State(
            state.step + 1, state.seed, after, merge_optimizer_state(state.opt, opt)
        ), metrics

    return step


def global_norm(tree: Flat) -> jax.Array:
    """The Euclidean norm over all leaves, a float32 scalar."""
    return root_of_sum(sums_of_squares(tree))


def sums_of_squares(tree: Flat) -> Flat:
    """Of each leaf, a float32 scalar."""
    return {name: jnp.sum(jnp.square(leaf)) for name, leaf in tree.items()}


def root_of_sum(squares: Flat) -> jax.Array:
    """Of scalars, in the order of their names."""
    return jnp.sqrt(sum(jax.tree.leaves(squares), start=jnp.float32(0)))


def group_norms(squares: Flat) -> dict[str, jax.Array]:
    """The norms of groups of parameters: `grad_norm/` and embeddings, layer_1, …, head or
    projections.

    Args:
        squares: sums of squares, by the parameters' dotted paths.
    """
    groups: dict[str, Flat] = {}
    for name, square in squares.items():
        groups.setdefault(_group(name), {})[name] = square
    return {f"grad_norm/{group}": root_of_sum(members) for group, members in groups.items()}


def _group(name: str) -> str:
    """What a parameter belongs to, by its dotted path."""
    owner, section, *rest = name.split(".")
    if owner == "objective":
        return "projections"
    return f"layer_{rest[0]}" if section == "layers" else {"mlm": "head"}.get(section, section)


def compile_step(step: Step, layout: Layout, state: State, teacher: Any) -> Any:
    """The step jitted over a layout: the batch split, state and teacher as they are stored, the
    state donated.

    Its metrics are scalars alone: besides those of `make_step` the gradient norms of `group_norms`.
    """
    kept = layout.param_sharding(state)
    return jax.jit(
        with_group_norms(step),
        in_shardings=(
            kept,
            layout.teacher_sharding(teacher),
            layout.batch_sharding,
            layout.replicated,
        ),
        out_shardings=(kept, layout.replicated),
        donate_argnums=0,
    )


def with_group_norms(step: Step) -> Step:
    """The step with norms of groups of parameters in the place of `GRAD_SQUARES`."""

    def grouped(*args: Any) -> tuple[State, dict[str, jax.Array]]:
        state, metrics = step(*args)
        squares = metrics.pop(GRAD_SQUARES)
        return state, {**metrics, **group_norms(squares)}

    return grouped


def trained(loss: Loss, params: Any, *args: Any) -> Any:
    """Which parameters the loss depends on: a tree like `params` of booleans.

    Read from the traced program: a parameter no equation mentions gets no gradient. Arguments are
        shapes.
    """
    traced = jax.make_jaxpr(loss)(params, *args).jaxpr
    used = {v for eqn in traced.eqns for v in eqn.invars if isinstance(v, core.Var)}
    leaves, tree = jax.tree.flatten(params)
    return jax.tree.unflatten(tree, [v in used for v in traced.invars[: len(leaves)]])
