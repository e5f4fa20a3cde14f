"""A phase compiled: the fused step over a mesh."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kdjax.budget.hardware import hardware_flops, memory
from kdjax.config import ComputeConfig
from kdjax.parallel.mesh import by_batch, check_batch, replicated
from kdjax.train.phase import Phase, Shape
from kdjax.train.step import Moment, State, compile_step, init_state


class Program:
    """A phase compiled for a mesh and a batch shape; it does not depend on the budget, the seed or the learning rate.

    Attributes:
        phase: the phase.
        shape: of a batch.
        mesh: the devices.
        compile_seconds: what compiling took.
        hardware_flops: FLOPs that all devices together do in a step, rematerialisation and what every device does for
            itself included; None where XLA does not say.
        memory: bytes a device needs, by the compiler (`kdjax.budget.hardware.memory`).
    """

    def __init__(
        self,
        phase: Phase,
        shape: Shape,
        mesh: Mesh,
        *,
        microbatches: int = 1,
        compute: ComputeConfig = ComputeConfig(),
    ):
        """Compiles.

        Args:
            phase: the phase.
            shape: of a batch.
            mesh: the devices.
            microbatches: parts in which a batch is taken.
            compute: how the models are computed.

        Raises:
            InputError: a batch that does not split over the devices and the microbatches.
        """
        check_batch(shape.batch, mesh, microbatches)
        self.phase, self.shape, self.mesh, self._compute = phase, shape, mesh, compute
        self._batch = phase.abstract_batch(shape)
        started = time.perf_counter()
        everywhere, split = replicated(mesh), by_batch(mesh)
        traced = compile_step(phase.step(microbatches=microbatches, compute=compute), mesh).trace(
            self.abstract_state(),
            jax.tree.map(lambda x: _placed(x, everywhere, compute.dtype), phase.abstract_teacher()),
            jax.tree.map(lambda x: _placed(x, split), self._batch),
            Moment.abstract(everywhere),
        )
        self._compiled = traced.lower().compile()
        self.compile_seconds = time.perf_counter() - started
        self.hardware_flops = hardware_flops(self._compiled, traced.jaxpr, mesh.size)
        self.memory = memory(self._compiled)

    def abstract_state(self) -> State:
        """The state as shapes with shardings; the same for all phases of an arm."""
        state = jax.eval_shape(lambda p: init_state(p, self.phase.transformation, 0), self.phase.abstract_params())
        placed: State = jax.tree.map(lambda x: _placed(x, replicated(self.mesh)), state)
        return placed

    def start(self, model: Any, seed: int) -> State:
        """The state before the first step, from the student's starting parameters."""
        params = jax.tree.map(jnp.array, {"model": model, "objective": self.phase.init_objective(seed)})  # donated
        state = init_state(params, self.phase.transformation, seed)
        placed: State = jax.device_put(state, replicated(self.mesh))
        return placed

    def place_teacher(self, params: Any) -> Any:
        """What the step takes of a teacher's parameters, on every device in the type that is computed in; nothing
        where no teacher runs."""
        taken = jax.tree.map(lambda x: x.astype(self._compute.dtype), self.phase.teacher_part(params))
        return jax.device_put(taken, replicated(self.mesh))

    def __call__(
        self, state: State, teacher: Any, batch: Mapping[str, Any], moment: Moment
    ) -> tuple[State, dict[str, jax.Array]]:
        """One step; the batch is on the host. The state given is used up."""
        placed = jax.device_put({name: batch[name] for name in self._batch}, by_batch(self.mesh))
        when = jax.device_put(jax.tree.map(np.float32, moment), replicated(self.mesh))
        return self._compiled(state, teacher, placed, when)  # type: ignore[no-any-return]


@functools.cache
def _program(phase: Phase, shape: Shape, mesh: Mesh, microbatches: int, compute: ComputeConfig) -> Program:
    return Program(phase, shape, mesh, microbatches=microbatches, compute=compute)


def program_of(
    phase: Phase, shape: Shape, mesh: Mesh, microbatches: int = 1, compute: ComputeConfig = ComputeConfig()
) -> Program:
    """A phase compiled, or as it was compiled before in this process: runs that differ in budget, seed, learning rate
    or the arm's name share it."""
    return _program(phase.essence, shape, mesh, microbatches, compute)


def _placed(x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding, dtype: str | None = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=sharding)
