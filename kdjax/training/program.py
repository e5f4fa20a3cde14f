"""A phase compiled: the fused step over the devices, of one run or of several that go side by
side."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.budget.hardware import hardware_flops, memory
from kdjax.config import ComputeConfig
from kdjax.hlo.fusion import repeated_flops
from kdjax.hlo.kernels import kernels
from kdjax.parallel import hosts
from kdjax.parallel.layout import Layout
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.step import ScheduleInputs, State, Step, compile_step, init_state
from kdjax.training.vmapped import beside, compile_seeds, nth, stacked


class Program:
    """A phase compiled for a layout and a batch shape; it does not depend on the budget, the seed
    or the learning rate.

    Attributes:
        phase: the phase.
        shape: of a batch.
        layout: of the devices.
        seeds: runs whose steps it does together.
        compile_seconds: what compiling took.
        hardware_flops: FLOPs that all devices together do in a step of one run, rematerialisation
            and what every device does for itself included (`kdjax.budget.hardware.hardware_flops`);
            None where XLA does not say.
        kernels: FLOPs of the Pallas kernels in it (`kdjax.hlo.kernels.kernels`).
        memory: bytes a device needs for all of its runs, by the compiler
            (`kdjax.budget.hardware.memory`).
    """

    def __init__(
        self,
        phase: Phase,
        shape: BatchShape,
        layout: Layout,
        *,
        microbatches: int = 1,
        compute: ComputeConfig = ComputeConfig(),
        seeds: int = 1,
    ):
        """Compiles.

        Args:
            phase: the phase.
            shape: of a batch.
            layout: of the devices.
            microbatches: parts in which a batch is taken.
            compute: how the models are computed.
            seeds: runs whose steps it does together.

        Raises:
            InputError: a batch that does not split over the devices and the microbatches.
        """
        layout.check_batch(shape.batch_size, microbatches)
        layout.check_model(phase.student, "the student")
        if phase.teacher:
            layout.check_model(phase.teacher, "the teacher")
        self.phase = phase
        self.shape = shape
        self.layout = layout
        self.seeds = seeds
        self._compute = compute
        self._batch = phase.abstract_batch(shape)
        started = time.perf_counter()
        step = phase.step(microbatches=microbatches, compute=compute, layout=layout)
        traced = self._traced(step)
        self.kernels = kernels(traced.jaxpr)
        self._compiled = traced.lower().compile()
        if seeds > 1:
            self._compile_moves()
        self.compile_seconds = time.perf_counter() - started
        repeated = repeated_flops(self.text)
        flops = hardware_flops(self._compiled, traced.jaxpr, layout.devices, repeated=repeated)
        self.hardware_flops = None if flops is None else round(flops / seeds)
        self.memory = memory(self._compiled)

    def _traced(self, step: Step) -> Any:
        """The step, of as many runs as there are."""
        state = self.abstract_state()
        batch = self._batch
        teacher = self._abstract_teacher()
        if self.seeds == 1:
            jitted = compile_step(step, self.layout, state, teacher)
            states = state
        else:
            jitted = compile_seeds(step, self.layout, state, teacher)
            states = self._abstract_states()
            batch = jax.eval_shape(functools.partial(stacked, axis=1), [batch] * self.seeds)
        placed = jax.tree.map(lambda x: _placed(x, self.layout.batch_sharding), batch)
        return jitted.trace(
            states, teacher, placed, ScheduleInputs.abstract(self.layout.replicated)
        )

    def _compile_moves(self) -> None:
        """What puts states together, and takes one out again."""
        state = self.abstract_state()
        alone = self.layout.param_sharding(state)
        together = beside(alone)
        join = jax.jit(lambda *states: stacked(states), out_shardings=together)
        part = jax.jit(nth, in_shardings=(together, None), out_shardings=alone)
        self._join = join.lower(*[state] * self.seeds).compile()
        self._part = part.lower(
            self._abstract_states(), jax.ShapeDtypeStruct((), jnp.int32)
        ).compile()

    def _abstract_states(self) -> State:
        states: State = jax.eval_shape(stacked, [self.abstract_state()] * self.seeds)
        return states

    @property
    def text(self) -> str:
        """What the compiler made of the step, for `kdjax.hlo.collectives`."""
        return str(self._compiled.as_text())

    def abstract_state(self) -> State:
        """The state as shapes with shardings; the same for all phases of an arm."""
        state = jax.eval_shape(
            lambda p: init_state(p, self.phase.transformation, 0), self.phase.abstract_params()
        )
        placed: State = jax.tree.map(_placed, state, self.layout.param_sharding(state))
        return placed

    def start(self, model: Any, seed: int) -> State:
        """The state before the first step, from the student's starting parameters."""
        # Donated
        params = jax.tree.map(
            jnp.array, {"model": model, "objective": self.phase.init_objective(seed)}
        )
        state = init_state(params, self.phase.transformation, seed)
        placed: State = self.layout.place(state, self.layout.param_sharding(state))
        return placed

    def place_teacher(self, params: Any) -> Any:
        """What the step takes of a teacher's parameters, on the devices in the type that is
        computed in; nothing where no teacher runs."""
        taken = jax.tree.map(
            lambda x: x.astype(self._compute.dtype), self.phase.teacher_part(params)
        )
        return self.layout.place(taken, self.layout.teacher_sharding(taken))

    def _abstract_teacher(self) -> Any:
        """What the step takes of a teacher, as shapes with shardings."""
        given = self.phase.abstract_teacher()
        cast = functools.partial(_placed, dtype=self._compute.dtype)
        return jax.tree.map(cast, given, self.layout.teacher_sharding(given))

    def place(self, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        """A batch on the devices: from this process its rows (`Layout.rows`)."""
        return self.layout.place_batch(
            {name: batch[name] for name in self._batch}, self.shape.batch_size
        )

    def joined(self, batches: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The batches of as many runs as the step takes, as it takes them; where they were, on the
        host."""
        if self.seeds == 1:
            return {name: batches[0][name] for name in self._batch}
        return {name: np.stack([one[name] for one in batches], axis=1) for name in self._batch}

    def step(
        self, state: State, teacher: Any, batch: Mapping[str, Any], schedule_inputs: ScheduleInputs
    ) -> tuple[State, dict[str, jax.Array]]:
        """One step.

        Args:
            state: of the run, or of all runs (`together`); used up.
            teacher: the teacher's parameters, placed.
            batch: of the run, or of all runs (`joined`); placed, or of a process that is the only
                one on the host: the call itself then places it, in a fraction of the time.
            schedule_inputs: the same for all runs.

        Returns:
            The state after it, and its figures: scalars, or `[seeds]`.
        """
        when = jax.tree.map(np.float32, schedule_inputs)
        if hosts.is_multiprocess():
            when = self.layout.place(when, self.layout.replicated)
        after = self._compiled(state, teacher, batch, when)
        hosts.serialize_on_cpu(after)
        return after  # type: ignore[no-any-return]

    def together(self, states: Sequence[State]) -> State:
        """The states of as many runs as the step takes, as it takes them."""
        return states[0] if self.seeds == 1 else self._join(*states)

    def own(self, states: State, number: int) -> State:
        """The state of one run, from 0, of those that the step takes."""
        return states if self.seeds == 1 else self._part(states, np.int32(number))

    def __call__(
        self, state: State, teacher: Any, batch: Mapping[str, Any], schedule_inputs: ScheduleInputs
    ) -> tuple[State, dict[str, jax.Array]]:
        """One step of one run on a batch that is on the host, and may have more arrays than the
        step takes."""
        return self.step(state, teacher, self.place(batch), schedule_inputs)


@functools.cache
def _program(
    phase: Phase,
    shape: BatchShape,
    layout: Layout,
    microbatches: int,
    compute: ComputeConfig,
    seeds: int,
) -> Program:
    return Program(phase, shape, layout, microbatches=microbatches, compute=compute, seeds=seeds)


def program_of(
    phase: Phase,
    shape: BatchShape,
    layout: Layout,
    microbatches: int = 1,
    compute: ComputeConfig = ComputeConfig(),
    seeds: int = 1,
) -> Program:
    """A phase compiled, or as it was compiled before in this process: runs that differ in budget,
    seed, learning rate or the arm's name share it."""
    return _program(phase.compile_key, shape, layout, microbatches, compute, seeds)


def _placed(
    x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding, dtype: str | None = None
) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=sharding)
