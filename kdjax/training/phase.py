"""A phase of an arm: its models, objective and optimiser as pure functions, and the price of its
step."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax.budget.jaxpr_count import FlopCountError
from kdjax.budget.price import Price, measure, reconcile
from kdjax.config import ComputeConfig, ModelConfig, OptimizerConfig
from kdjax.errors import InputError
from kdjax.models import abstract_params, forward
from kdjax.models.features import Features
from kdjax.objectives.base import FeatureNeeds
from kdjax.objectives.objective import Objective
from kdjax.parallel.layout import Layout
from kdjax.training.optimizer import adamw, apply, learning_rate
from kdjax.training.partition import partition, select_optimizer_state
from kdjax.training.step import (
    Loss,
    ScheduleInputs,
    Step,
    accumulated,
    global_norm,
    init_state,
    make_loss,
    make_step,
    over_whole,
    trained,
)
from kdjax.training.teacher_source import TeacherSource

REFERENCE_BITS = "rbg"
"""Dropout bits in the reference program: XLA's own generator counts as no FLOPs; mixing integers is
not arithmetic."""


@dataclass(frozen=True)
class BatchShape:
    """The shape of a batch.

    Attributes:
        batch_size: sequences.
        seq_len: tokens of a sequence.
        max_predictions: masked positions of a sequence, at most.
    """

    batch_size: int
    seq_len: int
    max_predictions: int

    @property
    def tokens_per_step(self) -> int:
        """Places of a batch, padding included."""
        return self.batch_size * self.seq_len

    def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The batch as shapes and types."""
        tokens = (self.batch_size, self.seq_len)
        slots = (self.batch_size, self.max_predictions)
        return {
            **{
                name: jax.ShapeDtypeStruct(tokens, jnp.int32)
                for name in ("tokens", "segments", "positions")
            },
            "valid": jax.ShapeDtypeStruct(tokens, jnp.bool_),
            "slots": jax.ShapeDtypeStruct(slots, jnp.int32),
            "labels": jax.ShapeDtypeStruct(slots, jnp.int32),
            "label_weights": jax.ShapeDtypeStruct(slots, jnp.float32),
        }


@dataclass(frozen=True)
class Phase:
    """A stretch of an arm with its own objective: all that its step depends on besides shapes.

    Attributes:
        name: the arm's, as the recipe calls it.
        student: the student.
        teacher: the teacher, or None when no term looks at one.
        teacher_source: where the teacher's features come from.
        objective: what is minimised.
        optimizer: the optimiser's settings.
        until: share of the arm's budget at which the phase ends.
        batch: sequences of a step, where not the recipe's; 0: those.
        others: the arm's objectives in its other phases, whose projections travel along in the
            state.
        others_teacher: the teacher that `others` look at; None where none of them does. A phase
            without a teacher may stand beside one whose projection has the teacher's width.
    """

    name: str
    student: ModelConfig
    teacher: ModelConfig | None
    teacher_source: TeacherSource
    objective: Objective
    optimizer: OptimizerConfig
    until: float = 1.0
    batch: int = 0
    others: tuple[Objective, ...] = ()
    others_teacher: ModelConfig | None = None

    def student_features(
        self,
        params: Any,
        teacher_params: Any,
        batch: Any,
        dropout_key: jax.Array | None,
        compute: ComputeConfig = ComputeConfig(),
    ) -> Features:
        """The student's features: those the objective needs, and nothing else is computed."""
        return forward(
            self.student,
            params,
            batch,
            self.needs.student,
            dropout_key=dropout_key,
            compute=compute,
        )

    def teacher_features(
        self, teacher_params: Any, batch: Any, compute: ComputeConfig = ComputeConfig()
    ) -> Features:
        """The teacher's features: those the objective needs."""
        return self.teacher_source.features(teacher_params, batch, self.needs.teacher, compute)

    def shape(self, shape: BatchShape) -> BatchShape:
        """The shape of its batches, from the recipe's."""
        return replace(shape, batch_size=self.batch or shape.batch_size)

    def abstract_batch(self, shape: BatchShape) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch of this phase, as shapes."""
        stored = self.teacher_source.fields(shape.seq_len, shape.max_predictions)
        return shape.abstract() | {
            field.name: jax.ShapeDtypeStruct(
                (shape.batch_size, *field.shape), jnp.dtype(field.dtype)
            )
            for field in stored
        }

    def abstract_model(self) -> Any:
        """The student's trained parameters, as shapes."""
        return abstract_params(self.student)

    def abstract_teacher(self) -> Any:
        """What the step is given and does not train, as shapes; None where no teacher runs."""
        return self.teacher_source.params(self.needs.teacher)

    def teacher_part(self, params: Any) -> Any:
        """Of a teacher's parameters, those the step is given.

        Raises:
            InputError: the objective needs logits and the teacher has no MLM head.
        """
        wanted = self.abstract_teacher()
        if wanted is None:
            return None
        if missing := wanted.keys() - params.keys():
            raise InputError(
                f"arms.{self.name}: found a teacher without an MLM head ({', '.join(missing)}), "
                "expected one: the "
                "objective asks for logits; teacher.head.budget fits a head"
            )
        return {name: params[name] for name in wanted}

    @property
    def uses_dropout(self) -> bool:
        """Whether the student has dropout."""
        return self.student.dropout > 0 or self.student.attention_dropout > 0

    def init_objective(self, seed: int) -> dict[str, Any]:
        """The projections of all the arm's phases; a term that comes again under the same name goes
        on with its own."""
        projections: dict[str, Any] = {}
        for objective in reversed(self.others):
            teacher = self.others_teacher if objective.needs_teacher else None
            projections |= objective.init(self.student, teacher, seed)
        # The phase's own come last: of several under one name these count.
        projections |= self.objective.init(self.student, self.teacher, seed)
        return projections

    def abstract_params(self) -> dict[str, Any]:
        """All the arm trains, as shapes."""
        return {
            "model": self.abstract_model(),
            "objective": jax.eval_shape(lambda: self.init_objective(0)),
        }

    def loss(self, compute: ComputeConfig = ComputeConfig(), layout: Layout | None = None) -> Loss:
        """The pure loss (`kdjax.training.step.make_loss`)."""
        see, target = (
            functools.partial(run, compute=compute)
            for run in (self.student_features, self.teacher_features)
        )
        return make_loss(see, target, self.objective, dtype=compute.dtype, layout=layout)

    def check_splits(self) -> None:
        """Raises InputError if a term looks at a batch as a whole, so that it cannot be taken in
        parts."""
        try:
            jax.eval_shape(self.objective.counts, BatchShape(1, 8, 1).abstract())
        except InputError as e:
            raise InputError(f"arms.{self.name}: {e}") from None

    @cached_property
    def trained(self) -> Any:
        """Which parameters the objective gives a gradient: a tree of booleans."""
        return _trained(self.compile_key)

    @property
    def transformation(self) -> optax.GradientTransformation:
        """The optimiser, but for the learning rate."""
        return adamw(self.optimizer)

    @property
    def compile_key(self) -> Phase:
        """The phase without what neither its compiled step nor its price depends on."""
        optimizer = replace(
            self.optimizer,
            learning_rate=OptimizerConfig.learning_rate,
            warmup=OptimizerConfig.warmup,
        )
        return replace(self, name="", optimizer=optimizer, until=1.0, batch=0)

    def learning_rate(self, before: float, after: float) -> float:
        """Of a step, from the shares of the budget spent before and after it."""
        return learning_rate(self.optimizer, before, after)

    def step(
        self,
        *,
        microbatches: int = 1,
        bits: str = "threefry2x32",
        compute: ComputeConfig = ComputeConfig(),
        layout: Layout | None = None,
    ) -> Step:
        """The pure step."""
        return make_step(
            self.loss(compute, layout),
            self.transformation,
            self.trained,
            dropout=self.uses_dropout,
            differentiate=over_whole
            if microbatches == 1
            else functools.partial(accumulated, self.objective, microbatches),
            bits=bits,
            layout=layout,
        )

    @cached_property
    def needs(self) -> FeatureNeeds:
        """The features the objective asks of both models."""
        return self.objective.needs(self.student, self.teacher)


@cache
def _trained(phase: Phase) -> Any:
    """Trace the loss of a phase once; `Phase.trained` of every phase that computes the same has the
    answer."""
    batch = phase.abstract_batch(BatchShape(1, 8, 1))
    return trained(
        phase.loss(), phase.abstract_params(), phase.abstract_teacher(), batch, None, 0.0
    )


def price(phase: Phase, shape: BatchShape) -> Price:
    """FLOPs of one step of `phase`, by part: XLA's count of the reference program, checked by the
    jaxpr count.

    Needs no weights and no data. See `kdjax.budget.price`.

    Raises:
        FlopCountError: XLA's count cannot be trusted: a term with a loop or a branch, or a JAX that
            counts otherwise.
    """
    try:
        return _price(phase.compile_key, shape)
    except FlopCountError as e:
        raise FlopCountError(f"arms.{phase.name}: {e}") from None


@cache
def _price(phase: Phase, shape: BatchShape) -> Price:
    params = phase.abstract_params()
    teacher = phase.abstract_teacher()
    batch = phase.abstract_batch(shape)
    transformation = phase.transformation
    state = jax.eval_shape(lambda p: init_state(p, transformation, 0), params)
    key = (
        jax.eval_shape(lambda: jax.random.key(0, impl=REFERENCE_BITS))
        if phase.uses_dropout
        else None
    )
    schedule_inputs = ScheduleInputs.abstract()

    def forward_and_backward(p: Any, t: Any, b: Any, k: Any, cotangent: Features) -> Any:
        seen, pull = jax.vjp(lambda q: phase.student_features(q, t, b, k), p)
        return seen, pull(cotangent)

    def objective(seen: Features, own: Any, target: Features, b: Any, budget_fraction: Any) -> Any:
        return jax.value_and_grad(phase.objective, argnums=(0, 3), has_aux=True)(
            seen, target, b, own, budget_fraction
        )

    def renew(grads: Any, opt: Any, p: Any, rate: Any) -> Any:
        return apply(transformation, grads, opt, p, rate), global_norm(grads)

    trainable, _ = partition(params, phase.trained)
    model = params["model"]
    seen = jax.eval_shape(phase.student_features, model, teacher, batch, key)
    target = jax.eval_shape(phase.teacher_features, teacher, batch)
    forward_flops = measure(phase.student_features, model, teacher, batch, key).flops
    return reconcile(
        measure(phase.step(bits=REFERENCE_BITS), state, teacher, batch, schedule_inputs),
        student_forward=forward_flops,
        student_backward=measure(forward_and_backward, model, teacher, batch, key, seen).flops
        - forward_flops,
        teacher_forward=measure(phase.teacher_features, teacher, batch).flops,
        objective=measure(
            objective, seen, params["objective"], target, batch, schedule_inputs.budget_fraction
        ).flops,
        optimizer=measure(
            renew,
            trainable,
            select_optimizer_state(state.opt, trainable),
            trainable,
            schedule_inputs.learning_rate,
        ).flops,
    )
