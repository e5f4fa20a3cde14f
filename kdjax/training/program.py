"""A phase compiled: its step over the devices, for one run or for several lanes."""

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
from kdjax.hlo.kernels import kernel_flops
from kdjax.models import abstract_params
from kdjax.parallel import hosts
from kdjax.parallel.layout import Layout
from kdjax.training.lanes import BATCH_AXIS, stack, stacked_sharding, unstack, vmap_step
from kdjax.training.partition import flatten
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.step import ScheduleInputs, State, Step, init_state, jit_step


class Program:
    """A phase compiled for a layout and a batch shape.

    It does not depend on the budget, the seed or the learning rate.

    Attributes:
        phase: phase whose step is compiled: objective, student and teacher source.
        batch_shape: shape of a batch.
        layout: layout of the devices.
        lanes: runs whose steps it does at once.
        batch_fields: names of the arrays of a batch that the step takes.
        compile_seconds: wall-clock seconds that compiling took.
        hardware_flops: FLOPs that all devices together do in a step of one run, rematerialisation
            and what every device does for itself included (`kdjax.budget.hardware.hardware_flops`);
            None where XLA does not say.
        kernels: FLOPs of the Pallas kernels in it (`kdjax.hlo.kernels.kernel_flops`).
        memory: bytes a device needs for all lanes, by the compiler
            (`kdjax.budget.hardware.memory`).
    """

    def __init__(
        self,
        phase: Phase,
        batch_shape: BatchShape,
        layout: Layout,
        *,
        grad_accum_steps: int = 1,
        compute: ComputeConfig = ComputeConfig(),
        lanes: int = 1,
    ):
        """Compile the step.

        Args:
            phase: phase whose step is compiled: objective, student and teacher source.
            batch_shape: shape of a batch.
            layout: layout of the devices.
            grad_accum_steps: parts in which a batch is taken.
            compute: way in which the models are computed.
            lanes: runs whose steps it does at once.

        Raises:
            InputError: a batch does not split over the devices and accumulation steps, a model's
                heads do not, or a rule of the mesh is of no parameter.
        """
        layout.check_batch(batch_shape.batch_size, grad_accum_steps)
        layout.check_model(phase.student_config, "the student")
        if phase.teacher_config:
            layout.check_model(phase.teacher_config, "the teacher")
        layout.check_rules(_ranks(phase))
        self.phase = phase
        self.batch_shape = batch_shape
        self.layout = layout
        self.lanes = lanes
        self.batch_fields = tuple(phase.abstract_batch(batch_shape))
        self._compute = compute

        # What is timed is paid for by a budget of hours whose clock counts compiling.
        started = time.perf_counter()
        step = phase.build_step(grad_accum_steps=grad_accum_steps, compute=compute, layout=layout)
        traced = self._trace(step)
        self.kernels = kernel_flops(traced.jaxpr)
        self._compiled = traced.lower().compile()
        if lanes > 1:
            self._compile_stacking()
        self.compile_seconds = time.perf_counter() - started

        repeated = repeated_flops(self.text)
        flops = hardware_flops(self._compiled, traced.jaxpr, layout.device_count, repeated=repeated)
        self.hardware_flops = None if flops is None else round(flops / lanes)
        self.memory = memory(self._compiled)

    def _trace(self, step: Step) -> Any:
        """Trace the jitted step of all lanes."""
        # What the step of one run takes, then of all lanes
        state = self.abstract_state()
        state_sharding = self.layout.param_sharding(state)
        batch = self.phase.abstract_batch(self.batch_shape)
        if self.lanes > 1:
            step = vmap_step(step)
            state = self._abstract_stack()
            state_sharding = stacked_sharding(state_sharding)
            stack_batches = functools.partial(stack, axis=BATCH_AXIS)
            batch = jax.eval_shape(stack_batches, [batch] * self.lanes)

        # Teacher and schedule inputs are the same for all lanes.
        teacher_params = self._abstract_teacher()
        placed = jax.tree.map(lambda x: _placed(x, self.layout.batch_sharding), batch)
        schedule_inputs = ScheduleInputs.abstract(self.layout.replicated)
        jitted = jit_step(step, self.layout, state_sharding, teacher_params)
        return jitted.trace(state, teacher_params, placed, schedule_inputs)

    def _compile_stacking(self) -> None:
        """Compile what puts states into lanes, and takes one out again."""
        state = self.abstract_state()
        one_run_sharding = self.layout.param_sharding(state)
        all_lanes_sharding = stacked_sharding(one_run_sharding)
        stacking = jax.jit(lambda *states: stack(states), out_shardings=all_lanes_sharding)
        unstacking = jax.jit(
            unstack, in_shardings=(all_lanes_sharding, None), out_shardings=one_run_sharding
        )
        lane = jax.ShapeDtypeStruct((), jnp.int32)
        self._stack = stacking.lower(*[state] * self.lanes).compile()
        self._unstack = unstacking.lower(self._abstract_stack(), lane).compile()

    def _abstract_stack(self) -> State:
        """Return the states of all lanes as shapes."""
        states: State = jax.eval_shape(stack, [self.abstract_state()] * self.lanes)
        return states

    @property
    def text(self) -> str:
        """Return the compiled step as HLO text, for `kdjax.hlo.collectives`."""
        return str(self._compiled.as_text())

    def abstract_state(self) -> State:
        """Return a run's state as shapes with shardings, the same for all phases of an arm."""
        optimizer = self.phase.transformation
        params = self.phase.abstract_params()
        state = jax.eval_shape(lambda params: init_state(params, optimizer, 0), params)
        placed: State = jax.tree.map(_placed, state, self.layout.param_sharding(state))
        return placed

    def start(self, model: Any, seed: int) -> State:
        """Build a run's state before its first step, from the student's starting parameters."""
        params = {"model": model, "objective": self.phase.init_objective(seed)}
        # A copy: the first step takes the memory of what it is given.
        params = jax.tree.map(jnp.array, params)
        state = init_state(params, self.phase.transformation, seed)
        placed: State = self.layout.place(state, self.layout.param_sharding(state))
        return placed

    def place_teacher(self, params: Any) -> Any:
        """Place what the step takes of a teacher on the devices; None where no teacher runs.

        The parameters are cast to the type that is computed in.
        """
        # Cast once here, and not in every step
        needed = self.phase.teacher_part(params)
        needed = jax.tree.map(lambda x: x.astype(self._compute.dtype), needed)
        return self.layout.place(needed, self.layout.teacher_sharding(needed))

    def _abstract_teacher(self) -> Any:
        """Return the teacher's parameters that the step takes, as shapes with shardings."""
        params = self.phase.abstract_teacher()
        cast = functools.partial(_placed, dtype=self._compute.dtype)
        return jax.tree.map(cast, params, self.layout.teacher_sharding(params))

    def place(self, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Put a batch on the devices.

        Args:
            batch: arrays, of which this process has its rows (`Layout.rows`); there may be more
                than the step takes.
        """
        fields = {name: batch[name] for name in self.batch_fields}
        return self.layout.place_batch(fields, self.batch_shape.batch_size)

    def step(
        self,
        state: State,
        teacher_params: Any,
        batch: Mapping[str, Any],
        schedule_inputs: ScheduleInputs,
    ) -> tuple[State, dict[str, jax.Array]]:
        """Do one step.

        Args:
            state: state of the run, or of all lanes (`stack`); used up.
            teacher_params: the teacher's parameters, placed.
            batch: the arrays of `batch_fields`, with several lanes stacked along `BATCH_AXIS`;
                placed, or on the host where there is one process: the call then places them, in a
                fraction of the time.
            schedule_inputs: place of the step in its run, the same for all lanes.

        Returns:
            The state after it, and its metrics: scalars, or `[lanes]`.
        """
        # Placed by the call itself, as the batch is, where there is one process
        scalars = jax.tree.map(np.float32, schedule_inputs)
        if hosts.is_multiprocess():
            scalars = self.layout.place(scalars, self.layout.replicated)
        after = self._compiled(state, teacher_params, batch, scalars)
        hosts.serialize_on_cpu(after)
        return after  # type: ignore[no-any-return]

    def stack(self, states: Sequence[State]) -> State:
        """Return the states of as many runs as there are lanes, as the step takes them."""
        if self.lanes == 1:
            return states[0]
        return self._stack(*states)  # type: ignore[no-any-return]

    def unstack(self, states: State, lane: int) -> State:
        """Return the state of one lane."""
        if self.lanes == 1:
            return states
        return self._unstack(states, np.int32(lane))  # type: ignore[no-any-return]

    def stack_batches(self, batches: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Stack a batch for each lane, on the host, as the step takes them."""
        if self.lanes == 1:
            return {name: batches[0][name] for name in self.batch_fields}
        stacked = {}
        for name in self.batch_fields:
            stacked[name] = np.stack([batch[name] for batch in batches], axis=BATCH_AXIS)
        return stacked


@functools.cache
def _program(
    phase: Phase,
    batch_shape: BatchShape,
    layout: Layout,
    grad_accum_steps: int,
    compute: ComputeConfig,
    lanes: int,
) -> Program:
    return Program(
        phase, batch_shape, layout, grad_accum_steps=grad_accum_steps, compute=compute, lanes=lanes
    )


def _ranks(phase: Phase) -> dict[str, int]:
    """Return the number of axes of each parameter that a rule of the mesh may be of, by its path:
    the whole student's, those that the phase trains, and the teacher's."""
    trees: list[Any] = [{"model": abstract_params(phase.student_config)}, phase.abstract_params()]
    if phase.teacher_config:
        trees.append(phase.abstract_teacher())
    ranks = {}
    for tree in trees:
        for name, leaf in flatten(tree).items():
            ranks[name] = len(leaf.shape)
    return ranks


def program_of(
    phase: Phase,
    batch_shape: BatchShape,
    layout: Layout,
    grad_accum_steps: int = 1,
    compute: ComputeConfig = ComputeConfig(),
    lanes: int = 1,
) -> Program:
    """Compile a phase, or take what was compiled before in this process.

    Runs that differ in budget, seed, learning rate or the arm's name share it.

    Args:
        phase: phase to compile.
        batch_shape: shape of a step's batch.
        layout: layout of arrays on the devices.
        grad_accum_steps: parts in which a batch is taken, one after another.
        compute: way in which both models are computed.
        lanes: seeds that train as one vmapped program.
    """
    return _program(phase.compile_key, batch_shape, layout, grad_accum_steps, compute, lanes)


def _placed(
    x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding, dtype: str | None = None
) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=sharding)
