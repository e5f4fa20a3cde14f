"""The training step: both forward passes, the objective, gradients and the update, as one pure
function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from kdjax.models.features import Batch, Features
from kdjax.models.ops.dropout import DropoutKey
from kdjax.objectives.objective import Objective
from kdjax.parallel.layout import Layout
from kdjax.parallel.unsharded import UNSHARDED, Unsharded
from kdjax.training.optimizer import apply_update
from kdjax.training.partition import (
    Flat,
    combine,
    flatten,
    merge_opt_state,
    partition,
    select_opt_state,
)
from kdjax.training.step_dropout import step_dropout_key

Forward = Callable[..., Features]

SMALLEST_TOTAL = 1e-9
"""Stands for a total of 0: where a batch has nothing that a term is a mean over (no masked token),
the shares of its parts are 0 / `SMALLEST_TOTAL`, which is 0, and not NaN."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScheduleInputs:
    """All that changes from step to step besides the batch: float32 scalars.

    Attributes:
        budget_fraction: share of the budget spent before the step, which schedules go by.
        learning_rate: learning rate of the step.
    """

    budget_fraction: Any
    learning_rate: Any

    @staticmethod
    def abstract(sharding: jax.sharding.Sharding | None = None) -> ScheduleInputs:
        """Return the scalars as shapes."""
        scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=sharding)
        return ScheduleInputs(scalar, scalar)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What training changes, and nothing else: the teacher is not in it.

    Checkpoints and their checksums go by the names of fields and keys.

    Attributes:
        step: steps done, int32.
        seed: seed of dropout, uint32.
        params: {"model": the student's parameters, "objective": the projections, which are the
            parameters of the objective's terms}.
        opt: the optimiser's state, over the parameters as one flat mapping.
    """

    step: jax.Array
    seed: jax.Array
    params: dict[str, Any]
    opt: Any


LossAndTerms = tuple[jax.Array, dict[str, jax.Array]]
"""The loss and each of its terms by itself, float32 scalars."""


class Step(Protocol):
    """One step of training; pure."""

    def __call__(
        self,
        state: State,
        teacher_params: Any,
        batch: Batch,
        schedule_inputs: ScheduleInputs,
        /,
    ) -> tuple[State, dict[str, jax.Array]]:
        """Compute the state after a step, and the step's metrics.

        Args:
            state: state before the step.
            teacher_params: the teacher's parameters; None: no teacher runs.
            batch: arrays of the whole batch, `[B, ...]`.
            schedule_inputs: place of the step in its run.

        Returns:
            The new state, and float32 scalars: `loss`, each term by its key, `grad_norm` and
            `grad_norm/GROUP`.
        """


class GradFn(Protocol):
    """The loss of a batch with its gradients, as `jax.value_and_grad` makes it; pure."""

    def __call__(
        self,
        trainable: Flat,
        batch: Batch,
        dropout_key: DropoutKey,
        shares: Mapping[str, jax.Array] | None = None,
        /,
    ) -> tuple[LossAndTerms, Flat]:
        """Compute the loss, its terms, and the gradients of what is trained.

        Args:
            trainable: parameters that are trained, dotted path -> array.
            batch: a batch, or a part of one.
            dropout_key: a seed for each sequence, int32 `[B, 2]`; None: no dropout.
            shares: term -> the share of its normalizer that lies in this part of a batch; None: a
                whole batch.
        """


def init_state(params: dict[str, Any], optimizer: optax.GradientTransformation, seed: int) -> State:
    """Return the state before the first step."""
    return State(jnp.int32(0), jnp.uint32(seed), params, optimizer.init(flatten(params)))


@dataclass(frozen=True)
class LossFn:
    """The loss of a batch: both forward passes and the objective, as a pure function.

    Attributes:
        student_forward: `(params, batch, dropout_key=...)` to the student's features.
        teacher_forward: `(teacher_params, batch)` to the teacher's features; None: there is
            none.
        objective: the weighted sum of terms that is minimised.
        layout: layout of the parameters; changes results by rounding alone.
    """

    student_forward: Forward
    teacher_forward: Forward | None
    objective: Objective
    layout: Layout | Unsharded = UNSHARDED

    def __call__(
        self,
        params: dict[str, Any],
        teacher_params: Any,
        batch: Batch,
        dropout_key: DropoutKey = None,
        budget_fraction: float | jax.Array = 0.0,
        shares: Mapping[str, jax.Array] | None = None,
    ) -> LossAndTerms:
        """Compute the loss and each term by itself, float32 scalars.

        Args:
            params: parameters as in a `State`.
            teacher_params: the teacher's parameters; None: no teacher runs.
            batch: a batch, or a part of one.
            dropout_key: a seed for each sequence, int32 `[B, 2]`, or a JAX key; None: no dropout.
            budget_fraction: share of the budget spent before the step, from 0 to 1.
            shares: term -> the share of its normalizer that lies in this part of a batch; None: a
                whole batch.
        """
        # Both forward passes, each as far as the objective needs it
        teacher_features = Features()
        if self.teacher_forward is not None:
            teacher_features = jax.lax.stop_gradient(self.teacher_forward(teacher_params, batch))
        student_features = self.student_forward(params["model"], batch, dropout_key=dropout_key)

        # Projections are stored split; the objective needs them whole.
        projections = self.layout.constrain_gathered(params["objective"])
        return self.objective(
            student_features, teacher_features, batch, projections, budget_fraction, shares
        )


def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    gradient_mask: Any,
    *,
    dropout_impl: str | None = None,
    grad_accum_steps: int = 1,
    group_norms: bool = True,
) -> Step:
    """Build the step `(state, teacher_params, batch, schedule_inputs) -> (state, metrics)`.

    Args:
        loss_fn: the loss of a batch.
        optimizer: an Optax transformation of the parameters as one flat mapping
            (`kdjax.training.partition`), without the learning rate.
        gradient_mask: a tree like the parameters, True for those that are trained; the others stay
            as they are, and nothing is computed for them.
        dropout_impl: JAX PRNG implementation of dropout, a name such as threefry2x32; None: no
            dropout.
        grad_accum_steps: parts in which a batch is taken, one after another.
        group_norms: whether metrics have the gradient norms of groups of parameters; a price is
            counted without them.

    Returns:
        A pure function; `Step` says what it takes and returns.
    """
    layout = loss_fn.layout

    def step(
        state: State, teacher_params: Any, batch: Batch, schedule_inputs: ScheduleInputs
    ) -> tuple[State, dict[str, jax.Array]]:
        # The loss as a function of what is trained; its gradients, from one part of the batch after
        # another
        trainable, frozen = partition(state.params, gradient_mask)
        dropout_key = step_dropout_key(state.seed, state.step, len(batch["tokens"]), dropout_impl)
        budget_fraction = schedule_inputs.budget_fraction

        def loss_of(
            trainable: Flat,
            part: Batch,
            part_key: DropoutKey,
            shares: Mapping[str, jax.Array] | None = None,
        ) -> LossAndTerms:
            params = combine(trainable, frozen, gradient_mask)
            return loss_fn(params, teacher_params, part, part_key, budget_fraction, shares)

        grad_fn = jax.value_and_grad(loss_of, has_aux=True)
        with layout.mesh_context():
            (loss, terms), grads = accumulate_gradients(
                grad_fn, trainable, loss_fn.objective, grad_accum_steps, batch, dropout_key
            )
        grads = layout.constrain_as_stored(grads)

        # What is frozen keeps its moments, whatever momentum an earlier phase gave it.
        opt_state = select_opt_state(optimizer, state.opt, trainable)
        trainable, opt_state = apply_update(
            optimizer, grads, opt_state, trainable, schedule_inputs.learning_rate
        )
        params = combine(trainable, frozen, gradient_mask)
        opt_state = merge_opt_state(state.opt, opt_state)

        # Squares are needed for the norm anyway, so the norms of groups cost next to nothing.
        squares = sums_of_squares(grads)
        metrics = {"loss": loss, "grad_norm": root_of_sum(squares), **terms}
        if group_norms:
            metrics |= gradient_norms(squares)
        return State(state.step + 1, state.seed, params, opt_state), metrics

    return step


def accumulate_gradients(
    grad_fn: GradFn,
    trainable: Flat,
    objective: Objective,
    grad_accum_steps: int,
    batch: Batch,
    dropout_key: DropoutKey,
) -> tuple[LossAndTerms, Flat]:
    """Compute the result of `grad_fn` for a batch from its parts, one after another, to save
    memory.

    Each term's value in a part counts by what it is a mean over there (`Objective.normalizers`), so
    the result is that of the whole batch, whatever the parts hold, dropout included. Part i takes
    sequences i, i + `grad_accum_steps`, …: of each device the same number.

    Args:
        grad_fn: the loss of a part, its terms and gradients.
        trainable: parameters that are trained, dotted path -> array.
        objective: the objective, whose terms say what they are means over.
        grad_accum_steps: number of parts; it divides the batch. Of one part nothing is added up.
        batch: arrays of the whole batch, `[B, ...]`.
        dropout_key: a seed for each sequence, int32 `[B, 2]`; None: no dropout.
    """
    if grad_accum_steps == 1:
        return grad_fn(trainable, batch, dropout_key)

    totals = objective.normalizers(batch)

    def share_of_batch(part: Batch) -> dict[str, jax.Array]:
        shares = {}
        for name, normalizer in objective.normalizers(part).items():
            shares[name] = normalizer / jnp.maximum(totals[name], SMALLEST_TOTAL)
        return shares

    # From zeros of the result's shapes, the sum over parts
    shapes = jax.eval_shape(grad_fn, trainable, batch, dropout_key, totals)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add_part(
        total: tuple[LossAndTerms, Flat], part: tuple[Batch, DropoutKey]
    ) -> tuple[tuple[LossAndTerms, Flat], None]:
        part_batch, part_key = part
        result = grad_fn(trainable, part_batch, part_key, share_of_batch(part_batch))
        return jax.tree.map(jnp.add, total, result), None

    def in_parts(x: jax.Array) -> jax.Array:
        return x.reshape(-1, grad_accum_steps, *x.shape[1:]).swapaxes(0, 1)

    parts = jax.tree.map(in_parts, (dict(batch), dropout_key))
    total: tuple[LossAndTerms, Flat] = jax.lax.scan(add_part, zeros, parts)[0]
    return total


def jit_step(step: Step, layout: Layout, state_sharding: Any, teacher_params: Any) -> Any:
    """Jit the step over a layout: the batch split over devices, the state donated.

    Args:
        step: step from `make_step`, or several lanes of it (`kdjax.training.lanes.vmap_step`).
        layout: layout of arrays on the devices.
        state_sharding: shardings of the state.
        teacher_params: the teacher's parameters, as shapes.
    """
    return jax.jit(
        step,
        in_shardings=(
            state_sharding,
            layout.teacher_sharding(teacher_params),
            layout.batch_sharding,
            layout.replicated,
        ),
        out_shardings=(state_sharding, layout.replicated),
        donate_argnums=0,
    )


def global_norm(tree: Flat) -> jax.Array:
    """Compute the Euclidean norm over all leaves, a float32 scalar."""
    return root_of_sum(sums_of_squares(tree))


def sums_of_squares(tree: Flat) -> Flat:
    """Compute the sum of squares of each leaf, a float32 scalar."""
    return {name: jnp.sum(jnp.square(leaf)) for name, leaf in tree.items()}


def root_of_sum(squares: Flat) -> jax.Array:
    """Compute the root of a sum of scalars, added in the order of their names."""
    return jnp.sqrt(sum(jax.tree.leaves(squares), start=jnp.float32(0)))


def gradient_norms(squares: Flat) -> dict[str, jax.Array]:
    """Compute the gradient norms of groups of parameters.

    Args:
        squares: sums of squares, by the parameters' dotted paths.

    Returns:
        `grad_norm/` and embeddings, layer_1, …, head or projections.
    """
    groups: dict[str, Flat] = {}
    for name, square in squares.items():
        groups.setdefault(_parameter_group(name), {})[name] = square
    return {f"grad_norm/{group}": root_of_sum(members) for group, members in groups.items()}


def _parameter_group(name: str) -> str:
    """Return the group that a parameter belongs to, by its dotted path."""
    owner, section, *rest = name.split(".")
    if owner == "objective":
        return "projections"
    if section == "layers":
        return f"layer_{rest[0]}"
    if section == "mlm":
        return "head"
    return section
