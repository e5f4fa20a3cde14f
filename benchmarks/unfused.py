"""An arm's step in two programs: the teacher's hands its features to the student's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from benchmarks.cases import RATE, Case
from kdjax.budget.hardware import memory
from kdjax.parallel.layout import Layout
from kdjax.training.program import Program
from kdjax.training.step import LossFn, ScheduleInputs, jit_step, make_step


class Unfused:
    """An arm's step with its teacher in a program of its own.

    The student's step is kdjax's, state donated, but for where the teacher's features come from.

    Attributes:
        handed_over: bytes of the features that go from the one program to the other.
        teacher_memory, student_memory: bytes each program needs (`kdjax.budget.hardware.memory`).
    """

    def __init__(
        self,
        case: Case,
        params: Any,
        teacher: Any,
        batches: list[Mapping[str, np.ndarray]],
        fused: Program,
    ) -> None:
        """Compile both programs.

        Args:
            case: what to run; its arm has a teacher.
            params: the student's parameters.
            teacher: all of the teacher's parameters.
            batches: batches on the host.
            fused: the fused step, which places everything.
        """
        phase = case.phase
        layout = Layout.from_config(devices=jax.devices()[:1])
        compute = case.compute
        self._batches = [fused.place(host_batch) for host_batch in batches]
        self._state = fused.start(params, seed=0)
        self._teacher = fused.place_teacher(teacher)
        schedule_inputs = ScheduleInputs.abstract(layout.replicated)

        # The teacher's program, whose results are an argument of the student's.
        teacher_forward = phase.teacher_forward(compute)
        assert teacher_forward is not None
        self._teacher_forward = (
            jax.jit(teacher_forward).lower(self._teacher, self._batches[0]).compile()
        )
        features = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout.replicated),
            jax.eval_shape(teacher_forward, self._teacher, self._batches[0]),
        )
        # The student's step stands where the fused one has its teacher's forward pass.
        loss_fn = LossFn(
            phase.student_forward(compute), lambda features, batch: features, phase.objective
        )
        step = make_step(
            loss_fn,
            phase.transformation,
            phase.gradient_mask,
            dropout_impl="threefry2x32" if phase.uses_dropout else None,
        )
        # State and batches are placed as the fused step has them.
        state = fused.abstract_state()
        self._step = (
            jit_step(step, layout, layout.param_sharding(state), features)
            .lower(state, features, self._batches[0], schedule_inputs)
            .compile()
        )
        self.handed_over = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(features))
        self.teacher_memory = memory(self._teacher_forward)
        self.student_memory = memory(self._step)
        self._schedule_inputs = layout.place(
            jax.tree.map(np.float32, ScheduleInputs(0.5, RATE)), layout.replicated
        )
        self._steps = 0

    @property
    def peak(self) -> int | None:
        """Return the peak bytes of the two programs; what only the other needs lies beside each."""
        if self.teacher_memory is None or self.student_memory is None:
            return None
        # While one program runs, the other one's arrays stay on the device.
        return max(
            self.teacher_memory["peak"] + sum(x.nbytes for x in jax.tree.leaves(self._state)),
            self.student_memory["peak"] + sum(x.nbytes for x in jax.tree.leaves(self._teacher)),
        )

    def step(self) -> dict[str, jax.Array]:
        """Begin a step on the next batch; it may still run when this returns."""
        batch = self._batches[self._steps % len(self._batches)]
        features = self._teacher_forward(self._teacher, batch)
        self._state, metrics = self._step(self._state, features, batch, self._schedule_inputs)
        self._steps += 1
        return metrics

    def wait(self) -> None:
        """Wait until all steps are done."""
        jax.block_until_ready(self._state)
