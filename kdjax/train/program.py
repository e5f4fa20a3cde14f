"""A phase compiled: the fused step over a mesh."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from kdjax.budget.ledger import Stretch
from kdjax.parallel.mesh import by_batch, check_batch, replicated
from kdjax.train.phase import Phase, Shape
from kdjax.train.step import State, compile_step, init_state


class Program:
    """A phase compiled for a mesh, a batch shape and its place in a budget; runs of several seeds share it.

    Attributes:
        phase: the phase.
        shape: of a batch.
        stretch: where its steps lie.
        mesh: the devices.
        compile_seconds: what compiling took.
    """

    def __init__(self, phase: Phase, shape: Shape, stretch: Stretch, steps: int, mesh: Mesh, *, microbatches: int = 1):
        """Compiles.

        Args:
            phase: the phase.
            shape: of a batch.
            stretch: where its steps lie.
            steps: of all the arm's phases: the schedule's length.
            mesh: the devices.
            microbatches: parts in which a batch is taken.

        Raises:
            InputError: a batch that does not split over the devices and the microbatches.
        """
        check_batch(shape.batch, mesh, microbatches)
        self.phase, self.shape, self.stretch, self.mesh = phase, shape, stretch, mesh
        self._transformation = phase.transformation(steps)
        self._batch = phase.abstract_batch(shape)
        started = time.perf_counter()
        everywhere, split = replicated(mesh), by_batch(mesh)
        lowered = compile_step(phase.step(steps, stretch, microbatches=microbatches), mesh).lower(
            self.abstract_state(),
            jax.tree.map(lambda x: _placed(x, everywhere), phase.abstract_teacher()),
            jax.tree.map(lambda x: _placed(x, split), self._batch),
        )
        self._compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - started

    def abstract_state(self) -> State:
        """The state as shapes with shardings; the same for all phases of an arm."""
        state = jax.eval_shape(lambda p: init_state(p, self._transformation, 0), self.phase.abstract_params())
        placed: State = jax.tree.map(lambda x: _placed(x, replicated(self.mesh)), state)
        return placed

    def start(self, model: Any, seed: int) -> State:
        """The state before the first step, from the student's starting parameters."""
        params = jax.tree.map(jnp.array, {"model": model, "objective": self.phase.init_objective(seed)})  # donated
        state = init_state(params, self._transformation, seed)
        placed: State = jax.device_put(state, replicated(self.mesh))
        return placed

    def place_teacher(self, params: Any) -> Any:
        """What the step takes of a teacher's parameters, on every device; nothing where no teacher runs."""
        return jax.device_put(self.phase.teacher_part(params), replicated(self.mesh))

    def __call__(self, state: State, teacher: Any, batch: Mapping[str, Any]) -> tuple[State, dict[str, jax.Array]]:
        """One step; the batch is on the host. The state given is used up."""
        placed = jax.device_put({name: batch[name] for name in self._batch}, by_batch(self.mesh))
        return self._compiled(state, teacher, placed)  # type: ignore[no-any-return]


def _placed(x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
