"""A phase of an arm: its models, objective and optimiser as pure functions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax.config import ComputeConfig, ModelConfig, OptimizerConfig
from kdjax.config.train import SCHEDULE_SETTINGS
from kdjax.errors import InputError
from kdjax.models import abstract_params, forward
from kdjax.objectives.base import FeatureNeeds
from kdjax.objectives.objective import Objective
from kdjax.parallel.layout import Layout
from kdjax.parallel.unsharded import UNSHARDED, Unsharded
from kdjax.training.learning_rate import learning_rate
from kdjax.training.optimizer import transformation
from kdjax.training.partition import Flat, flatten, name_of, parameters_in_use
from kdjax.training.step import (
    Forward,
    LossFn,
    Step,
    make_step,
)
from kdjax.training.teacher.source import TeacherSource
from kdjax.training.teacher_cache.manifest import Field


@dataclass(frozen=True)
class BatchShape:
    """The shape of a batch.

    Attributes:
        batch_size: number of sequences.
        seq_len: tokens of a sequence.
        max_predictions: largest number of masked positions in a sequence.
    """

    batch_size: int
    seq_len: int
    max_predictions: int

    @property
    def tokens_per_step(self) -> int:
        """Return batch x length, padding included."""
        return self.batch_size * self.seq_len

    def with_fields(self, fields: Sequence[Field]) -> dict[str, jax.ShapeDtypeStruct]:
        """Return the batch as shapes and types, with what it holds besides.

        Args:
            fields: further arrays of a sequence.
        """
        batch = self.abstract()
        for field in fields:
            shape = (self.batch_size, *field.shape)
            batch[field.name] = jax.ShapeDtypeStruct(shape, jnp.dtype(field.dtype))
        return batch

    def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Return the batch as shapes and types."""
        tokens = (self.batch_size, self.seq_len)
        slots = (self.batch_size, self.max_predictions)
        return {
            "tokens": jax.ShapeDtypeStruct(tokens, jnp.int32),
            "segments": jax.ShapeDtypeStruct(tokens, jnp.int32),
            "positions": jax.ShapeDtypeStruct(tokens, jnp.int32),
            "valid": jax.ShapeDtypeStruct(tokens, jnp.bool_),
            "slots": jax.ShapeDtypeStruct(slots, jnp.int32),
            "labels": jax.ShapeDtypeStruct(slots, jnp.int32),
            "label_weights": jax.ShapeDtypeStruct(slots, jnp.float32),
        }


@dataclass(frozen=True)
class Phase:
    """A stretch of an arm's budget with its own objective: all that its step depends on but shapes.

    Attributes:
        name: name of the arm in the recipe.
        student_config: configuration of the student.
        teacher_config: configuration of the teacher; None when no term looks at one.
        teacher_source: source of the teacher's features; None without a teacher.
        objective: weighted sum of terms that is minimised.
        optimizer: settings of the optimiser.
        until: share of the arm's budget at which the phase ends.
        batch_size: sequences of a step; None: as many as the recipe says.
        other_objectives: objectives of the arm's other phases, whose projections travel along in
            the state.
        other_teacher_config: the teacher that `other_objectives` look at; None where none of
            them does. A phase without a teacher may stand beside one whose projection has the
            teacher's width.
        frozen_encoder: whether the MLM head alone is trained.
    """

    name: str
    student_config: ModelConfig
    teacher_config: ModelConfig | None
    teacher_source: TeacherSource | None
    objective: Objective
    optimizer: OptimizerConfig
    until: float = 1.0
    batch_size: int | None = None
    other_objectives: tuple[Objective, ...] = ()
    other_teacher_config: ModelConfig | None = None
    frozen_encoder: bool = False

    def student_forward(self, compute: ComputeConfig = ComputeConfig()) -> Forward:
        """Build the student's forward pass, `(params, batch, dropout_key=None) -> Features`.

        It computes what the objective needs and nothing else.
        """
        return functools.partial(
            forward, self.student_config, request=self.needs.student, compute=compute
        )

    def teacher_forward(self, compute: ComputeConfig = ComputeConfig()) -> Forward | None:
        """Build the teacher's `(teacher_params, batch) -> Features`; None: no term looks at one."""
        if self.teacher_source is None:
            return None
        return self.teacher_source.forward(self.needs.teacher, compute)

    def batch_shape(self, recipe_shape: BatchShape) -> BatchShape:
        """Return the shape of the phase's batches, from the recipe's."""
        return replace(recipe_shape, batch_size=self.batch_size or recipe_shape.batch_size)

    def abstract_batch(self, batch_shape: BatchShape) -> dict[str, jax.ShapeDtypeStruct]:
        """Return a batch of the phase as shapes, with what it holds of the teacher."""
        if self.teacher_source is None:
            return batch_shape.abstract()
        fields = self.teacher_source.fields(batch_shape.seq_len, batch_shape.max_predictions)
        return batch_shape.with_fields(fields)

    def abstract_teacher(self) -> Any:
        """Return the teacher's parameters that the step is given, as shapes; None: none runs."""
        if self.teacher_source is None:
            return None
        return self.teacher_source.params(self.needs.teacher)

    def teacher_part(self, params: Any) -> Any:
        """Return the part of a teacher's parameters that the step is given.

        Raises:
            InputError: the objective needs logits and the teacher has no MLM head.
        """
        # The teacher's other parameters are not put on the devices.
        needed = self.abstract_teacher()
        if needed is None:
            return None
        missing = needed.keys() - params.keys()
        if missing:
            raise InputError(
                f"arms.{self.name}: found a teacher without an MLM head ({', '.join(missing)}), "
                "expected one: the objective asks for logits; teacher.head.budget fits a head"
            )
        return {name: params[name] for name in needed}

    @property
    def uses_dropout(self) -> bool:
        """Return whether the student has dropout."""
        return self.student_config.drops_out

    def init_objective(self, seed: int) -> dict[str, Any]:
        """Make the first projections of all the arm's phases.

        A term that comes again under the same name goes on with its own.
        """
        projections: dict[str, Any] = {}
        for objective in reversed(self.other_objectives):
            teacher_config = self.other_teacher_config if objective.needs_teacher else None
            projections |= objective.init(self.student_config, teacher_config, seed)
        # The phase's own come last: of several under one name these count.
        projections |= self.objective.init(self.student_config, self.teacher_config, seed)
        return projections

    def abstract_params(self) -> dict[str, Any]:
        """Return the parameters of a state, as shapes."""
        projections = jax.eval_shape(lambda: self.init_objective(0))
        return {"model": abstract_params(self.student_config), "objective": projections}

    def loss_fn(
        self,
        compute: ComputeConfig = ComputeConfig(),
        layout: Layout | Unsharded = UNSHARDED,
    ) -> LossFn:
        """Build the loss of a batch, `(params, teacher_params, batch, ...) -> (loss, terms)`.

        Args:
            compute: way in which both models are computed.
            layout: layout of the parameters on the devices.
        """
        student_forward = layout.shard_forward(self.student_forward(compute), compute.dtype)
        teacher_forward = self.teacher_forward(compute)
        if teacher_forward is not None:
            teacher_forward = layout.shard_forward(teacher_forward, compute.dtype, of_teacher=True)
        return LossFn(student_forward, teacher_forward, self.objective, layout)

    def check_splits(self) -> None:
        """Raise InputError if a term looks at a batch as a whole, so that it has no parts."""
        try:
            batch = self.abstract_batch(BatchShape(1, 8, 1))
            jax.eval_shape(self.objective.normalizers, batch)
        except InputError as e:
            raise InputError(f"arms.{self.name}: {e}") from None

    @cached_property
    def gradient_mask(self) -> Any:
        """Trace which parameters are trained, as the objective depends on them: a tree of
        booleans."""
        return _gradient_mask(self.compile_key)

    @property
    def transformation(self) -> optax.GradientTransformation:
        """Build the optimiser, but for the learning rate."""
        optimizer = transformation(self.optimizer)
        if self.frozen_encoder:
            # What is never trained has no moments, on the devices or in a checkpoint.
            return optimizer._replace(init=lambda params: optimizer.init(_mlm_head_of(params)))
        return optimizer

    @property
    def compile_key(self) -> Phase:
        """Return the phase without what neither its compiled step nor its price depends on."""
        # The learning rate and its schedule reach the step as its schedule inputs.
        defaults = {name: getattr(OptimizerConfig, name) for name in SCHEDULE_SETTINGS}
        optimizer = replace(self.optimizer, **defaults)
        return replace(self, name="", optimizer=optimizer, until=1.0, batch_size=None)

    def learning_rate(self, before: float, after: float, used: float = 0.0) -> float:
        """Return a step's learning rate from the shares of the budget spent before and after it,
        and the amount that those after it are."""
        return learning_rate(self.optimizer, before, after, used)

    def build_step(
        self,
        *,
        grad_accum_steps: int = 1,
        dropout_impl: str = "threefry2x32",
        compute: ComputeConfig = ComputeConfig(),
        group_norms: bool = True,
        layout: Layout | Unsharded = UNSHARDED,
    ) -> Step:
        """Build `(state, teacher_params, batch, schedule_inputs) -> (state, metrics)`, a pure step.

        Args:
            grad_accum_steps: parts in which a batch is taken, one after another.
            dropout_impl: JAX PRNG implementation of dropout, a name such as threefry2x32.
            compute: way in which both models are computed.
            group_norms: whether metrics have the gradient norms of groups of parameters.
            layout: layout of the parameters on the devices.
        """
        return make_step(
            self.loss_fn(compute, layout),
            self.transformation,
            self.gradient_mask,
            dropout_impl=dropout_impl if self.uses_dropout else None,
            grad_accum_steps=grad_accum_steps,
            group_norms=group_norms,
        )

    @cached_property
    def needs(self) -> FeatureNeeds:
        """Return the features that the objective asks of both models."""
        return self.objective.needs(self.student_config, self.teacher_config)


@cache
def _gradient_mask(phase: Phase) -> Any:
    """Trace the loss of a phase once, for `Phase.gradient_mask` of all that compute the same."""
    batch = phase.abstract_batch(BatchShape(1, 8, 1))
    in_use = parameters_in_use(
        phase.loss_fn(), phase.abstract_params(), phase.abstract_teacher(), batch
    )
    if not phase.frozen_encoder:
        return in_use
    head = _mlm_head_of(flatten(in_use))
    return jax.tree_util.tree_map_with_path(lambda path, _: head.get(name_of(path), False), in_use)


def _mlm_head_of(params: Flat) -> Flat:
    """Return the MLM head's of a state's flat parameters."""
    return {name: leaf for name, leaf in params.items() if name.startswith("model.mlm.")}
