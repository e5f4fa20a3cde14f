"""The price of a phase: FLOPs of one step by part, counted from shapes alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax

from kdjax.budget.jaxpr_count import FlopCountError
from kdjax.budget.price import Price, count_program_flops, reconcile
from kdjax.models.features import Features
from kdjax.training.optimizer import apply_update
from kdjax.training.partition import Flat, combine, partition, select_opt_state
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.step import ScheduleInputs, global_norm, init_state

REFERENCE_DROPOUT = "rbg"
"""JAX PRNG implementation of dropout in the reference program: XLA's own generator counts as no
FLOPs; mixing integers is not arithmetic."""


def price(phase: Phase, batch_shape: BatchShape) -> Price:
    """Count the FLOPs of a step by part: XLA's count, checked by the jaxpr count.

    Needs no weights and no data. See `kdjax.budget.price`.

    Raises:
        FlopCountError: XLA's count cannot be trusted: a term with a loop or a branch, or a JAX that
            counts otherwise.
    """
    try:
        return _price(phase.compile_key, batch_shape)
    except FlopCountError as e:
        raise FlopCountError(f"arms.{phase.name}: {e}") from None


@cache
def _price(phase: Phase, batch_shape: BatchShape) -> Price:
    """Count the FLOPs for `price`, once for all phases that compute the same."""
    # The arguments of a step and of its parts, as shapes
    parts = _StepParts(phase)
    params = phase.abstract_params()
    teacher_params = phase.abstract_teacher()
    batch = phase.abstract_batch(batch_shape)
    state = jax.eval_shape(lambda params: init_state(params, phase.transformation, 0), params)
    schedule_inputs = ScheduleInputs.abstract()
    dropout_key = None
    if phase.uses_dropout:
        dropout_key = jax.eval_shape(lambda: jax.random.key(0, impl=REFERENCE_DROPOUT))
    student_trainable, student_frozen = partition(params["model"], phase.gradient_mask["model"])
    student_inputs = (student_trainable, student_frozen, batch, dropout_key)
    trainable, _ = partition(params, phase.gradient_mask)
    opt_state = select_opt_state(phase.transformation, state.opt, trainable)

    # A backward pass is counted with its forward pass, which is then taken off.
    forward_count = count_program_flops(parts.student_forward, *student_inputs)
    forward_and_backward_count = count_program_flops(
        parts.student_forward_and_backward, *student_inputs, forward_count.outputs
    )
    teacher_flops = 0
    teacher_features = Features()
    teacher_forward = phase.teacher_forward()
    if teacher_forward is not None:
        teacher_count = count_program_flops(teacher_forward, teacher_params, batch)
        teacher_flops = teacher_count.flops
        teacher_features = teacher_count.outputs
    objective_count = count_program_flops(
        parts.objective,
        forward_count.outputs,
        params["objective"],
        teacher_features,
        batch,
        schedule_inputs.budget_fraction,
    )
    update_count = count_program_flops(
        parts.update, trainable, opt_state, trainable, schedule_inputs.learning_rate
    )

    # The parts must add up to the whole step, traced as one.
    step = phase.build_step(dropout_impl=REFERENCE_DROPOUT, group_norms=False)
    return reconcile(
        count_program_flops(step, state, teacher_params, batch, schedule_inputs),
        student_forward=forward_count.flops,
        student_backward=forward_and_backward_count.flops - forward_count.flops,
        teacher_forward=teacher_flops,
        objective=objective_count.flops,
        optimizer=update_count.flops,
    )


class _StepParts:
    """The parts of a phase's step that no other function computes by itself, each a pure one."""

    def __init__(self, phase: Phase):
        self._phase = phase
        self._student_forward = phase.student_forward()

    def student_forward(
        self, trainable: Flat, frozen: Flat, batch: Any, dropout_key: Any
    ) -> Features:
        """Compute the student's features."""
        params = combine(trainable, frozen, self._phase.gradient_mask["model"])
        return self._student_forward(params, batch, dropout_key=dropout_key)

    def student_forward_and_backward(
        self, trainable: Flat, frozen: Flat, batch: Any, dropout_key: Any, cotangent: Features
    ) -> Any:
        """Compute the student's features, and pull a gradient of them back to what is trained."""
        features, pull_back = jax.vjp(
            lambda trainable: self.student_forward(trainable, frozen, batch, dropout_key), trainable
        )
        return features, pull_back(cotangent)

    def objective(
        self,
        student: Features,
        projections: Any,
        teacher: Features,
        batch: Any,
        budget_fraction: Any,
    ) -> Any:
        """Compute the loss and its gradients by the student's features and the projections."""
        loss = jax.value_and_grad(self._phase.objective, argnums=(0, 3), has_aux=True)
        return loss(student, teacher, batch, projections, budget_fraction)

    def update(self, grads: Any, opt_state: Any, params: Any, rate: Any) -> Any:
        """Update the parameters, and compute the norm of their gradients."""
        updated = apply_update(self._phase.transformation, grads, opt_state, params, rate)
        return updated, global_norm(grads)
