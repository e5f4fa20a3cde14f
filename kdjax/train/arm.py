"""An arm made ready: its models and objective, its price, and the compiled step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from kdjax.budget.price import Price, measure, settle
from kdjax.config import ArmConfig, ModelConfig, OptimizerConfig
from kdjax.errors import InputError
from kdjax.models import abstract_params, forward
from kdjax.models.features import Features
from kdjax.objectives.base import Needs
from kdjax.objectives.objective import Objective
from kdjax.objectives.presets import objective_of
from kdjax.parallel.mesh import by_batch, check_batch, replicated
from kdjax.train import optimizer as adamw
from kdjax.train.step import Loss, State, Step, compile_step, global_norm, init_state, make_loss, make_step, trained

CANONICAL_BITS = "rbg"
"""Dropout bits in the canonical program: XLA's own generator counts as no FLOPs; mixing integers is not arithmetic."""


@dataclass(frozen=True)
class Shape:
    """Shapes of a batch: sequences, tokens of a sequence, masked slots of a sequence."""

    batch: int
    length: int
    slots: int

    def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The batch as shapes and types."""
        tokens, slots = (self.batch, self.length), (self.batch, self.slots)
        return {
            **{name: jax.ShapeDtypeStruct(tokens, jnp.int32) for name in ("tokens", "segments", "positions")},
            "valid": jax.ShapeDtypeStruct(tokens, jnp.bool_),
            "slots": jax.ShapeDtypeStruct(slots, jnp.int32),
            "labels": jax.ShapeDtypeStruct(slots, jnp.int32),
            "label_weights": jax.ShapeDtypeStruct(slots, jnp.float32),
        }


@dataclass(frozen=True)
class Arm:
    """One way to spend the budget: models, objective and optimiser, fully determined.

    Attributes:
        name: as the recipe calls it.
        student: the student.
        teacher: the teacher, or None when no term looks at one.
        objective: what is minimised.
        optimizer: the optimiser's settings.
    """

    name: str
    student: ModelConfig
    teacher: ModelConfig | None
    objective: Objective
    optimizer: OptimizerConfig

    def see(self, params: Any, teacher_params: Any, batch: Any, dropout_key: jax.Array | None) -> Features:
        """The student's features: those the objective needs, and nothing else is computed."""
        return forward(self.student, params, batch, self._needs.student, dropout_key=dropout_key)

    def target(self, teacher_params: Any, batch: Any) -> Features:
        """The teacher's features: those the objective needs."""
        if self.teacher is None:
            return Features()
        return forward(self.teacher, teacher_params, batch, self._needs.teacher)

    def abstract_model(self) -> Any:
        """The student's trained parameters, as shapes."""
        return abstract_params(self.student)

    def abstract_teacher(self) -> Any:
        """What the step is given and does not train, as shapes; None for an arm without a teacher."""
        return None if self.teacher is None else abstract_params(self.teacher, mlm=self._needs.teacher.logits)

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
                f"arms.{self.name}: found a teacher without an MLM head ({', '.join(missing)}), expected one: the "
                "objective asks for logits; teacher.head.budget fits a head"
            )
        return {name: params[name] for name in wanted}

    @property
    def drops(self) -> bool:
        """Whether the student has dropout."""
        return self.student.dropout > 0 or self.student.attention_dropout > 0

    def abstract_params(self) -> dict[str, Any]:
        """All the arm trains, as shapes."""
        own = jax.eval_shape(lambda: self.objective.init(self.student, self.teacher, 0))
        return {"model": self.abstract_model(), "objective": own}

    def loss(self) -> Loss:
        """The pure loss (`kdjax.train.step.make_loss`)."""
        return make_loss(self.see, self.target, self.objective)

    @cached_property
    def trained(self) -> Any:
        """Which parameters the objective gives a gradient: a tree of booleans."""
        return trained(self.loss(), self.abstract_params(), self.abstract_teacher(), Shape(1, 8, 1).abstract(), None)

    def transformation(self, steps: int) -> optax.GradientTransformation:
        """The optimiser with its schedule sized to `steps`."""
        return adamw.adamw(self.optimizer, steps, adamw.decays(self.trained))

    def step(self, steps: int, *, bits: str = "threefry2x32") -> Step:
        """The pure step of a run of `steps` steps."""
        return make_step(self.loss(), self.transformation(steps), dropout=self.drops, bits=bits)

    @cached_property
    def _needs(self) -> Needs:
        return self.objective.needs(self.student, self.teacher)


def resolve(
    name: str, config: ArmConfig, student: ModelConfig, teacher: ModelConfig, optimizer: OptimizerConfig
) -> Arm:
    """An arm of a recipe.

    Raises:
        InputError: an unknown preset or term, or an objective these two models do not allow.
    """
    objective = objective_of(name, config)
    seen = teacher if objective.needs_teacher else None
    try:
        objective.needs(student, seen)
    except InputError as e:
        raise InputError(f"arms.{name}: {e}") from None
    return Arm(name, student, seen, objective, optimizer)


def price(arm: Arm, shape: Shape) -> Price:
    """FLOPs of one step of `arm`, by part: XLA's count of the canonical program, checked by the witness.

    Needs no weights and no data. See `kdjax.budget.price`.
    """
    params, teacher, batch = arm.abstract_params(), arm.abstract_teacher(), shape.abstract()
    transformation = arm.transformation(2)
    state = jax.eval_shape(lambda p: init_state(p, transformation, 0), params)
    key = jax.eval_shape(lambda: jax.random.key(0, impl=CANONICAL_BITS)) if arm.drops else None

    def forward_and_backward(p: Any, t: Any, b: Any, k: Any, cotangent: Features) -> Any:
        seen, pull = jax.vjp(lambda q: arm.see(q, t, b, k), p)
        return seen, pull(cotangent)

    def objective(seen: Features, own: Any, target: Features, b: Any) -> Any:
        return jax.value_and_grad(arm.objective, argnums=(0, 3), has_aux=True)(seen, target, b, own)

    def update(grads: Any, opt: Any, p: Any) -> Any:
        updates, opt = transformation.update(grads, opt, p)
        return optax.apply_updates(p, updates), opt, global_norm(grads)

    model = params["model"]
    seen = jax.eval_shape(arm.see, model, teacher, batch, key)
    target = jax.eval_shape(arm.target, teacher, batch)
    forward_flops = measure(arm.see, model, teacher, batch, key).flops
    return settle(
        measure(arm.step(2, bits=CANONICAL_BITS), state, teacher, batch),
        student_forward=forward_flops,
        student_backward=measure(forward_and_backward, model, teacher, batch, key, seen).flops - forward_flops,
        teacher_forward=measure(arm.target, teacher, batch).flops,
        objective=measure(objective, seen, params["objective"], target, batch).flops,
        optimizer=measure(update, params, state.opt, params).flops,
    )


class Program:
    """An arm compiled for a mesh, a batch shape and a number of steps; runs of several seeds share it.

    Attributes:
        arm: the arm.
        shape: of a batch.
        steps: the schedule's length.
        mesh: the devices.
        compile_seconds: what compiling took.
    """

    def __init__(self, arm: Arm, shape: Shape, steps: int, mesh: Mesh):
        check_batch(shape.batch, mesh)
        self.arm, self.shape, self.steps, self.mesh = arm, shape, steps, mesh
        self._transformation = arm.transformation(steps)
        started = time.perf_counter()
        everywhere, split = replicated(mesh), by_batch(mesh)
        lowered = compile_step(arm.step(steps), mesh).lower(
            self.abstract_state(),
            jax.tree.map(lambda x: _placed(x, everywhere), arm.abstract_teacher()),
            jax.tree.map(lambda x: _placed(x, split), shape.abstract()),
        )
        self._compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - started

    def abstract_state(self) -> State:
        """The state as shapes with shardings."""
        state = jax.eval_shape(lambda p: init_state(p, self._transformation, 0), self.arm.abstract_params())
        placed: State = jax.tree.map(lambda x: _placed(x, replicated(self.mesh)), state)
        return placed

    def start(self, model: Any, seed: int) -> State:
        """The state before the first step, from the student's starting parameters."""
        own = self.arm.objective.init(self.arm.student, self.arm.teacher, seed)
        params = jax.tree.map(jnp.array, {"model": model, "objective": own})  # a copy: the step donates its state
        state = init_state(params, self._transformation, seed)
        placed: State = jax.device_put(state, replicated(self.mesh))
        return placed

    def place_teacher(self, params: Any) -> Any:
        """What the step takes of a teacher's parameters, on every device; nothing for an arm without a teacher."""
        return jax.device_put(self.arm.teacher_part(params), replicated(self.mesh))

    def __call__(self, state: State, teacher: Any, batch: Mapping[str, Any]) -> tuple[State, dict[str, jax.Array]]:
        """One step; the batch is on the host. The state given is used up."""
        names = self.shape.abstract()
        placed = jax.device_put({name: batch[name] for name in names}, by_batch(self.mesh))
        return self._compiled(state, teacher, placed)  # type: ignore[no-any-return]


def _placed(x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
