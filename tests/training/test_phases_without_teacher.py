"""Phases that learn a projection to the teacher's width, beside phases that look at no teacher."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from kdjax.budget.accounting import Budget
from kdjax.config import (
    ArmConfig,
    OptimizerConfig,
    PhaseConfig,
    TermConfig,
)
from kdjax.parallel.layout import Layout
from kdjax.training.arm import Arm, resolve
from kdjax.training.outcome import Outcome
from kdjax.training.phase_price import price
from kdjax.training.program import Program
from tests.support import metrics, tiny, trainers

ORDERS = {"projection_first": ("hidden_mse", "mlm"), "projection_last": ("mlm", "hidden_mse")}
STUDENT = tiny.SHALLOW_STUDENT
TEACHER = tiny.SHALLOW_TEACHER


@functools.cache
def arm(order: str) -> Arm:
    first, second = ORDERS[order]
    phases = (PhaseConfig((TermConfig(first),), until=0.5), PhaseConfig((TermConfig(second),)))
    return resolve(
        "mine", ArmConfig(phases=phases), STUDENT, TEACHER, OptimizerConfig(learning_rate=1e-2)
    )


@functools.cache
def programs(order: str) -> tuple[Program, ...]:
    layout = Layout.from_config(devices=jax.devices()[:1])
    return tuple(Program(phase, tiny.SHAPE, layout) for phase in arm(order).phases)


def budget(order: str) -> Budget:
    costs = [price(phase, tiny.SHAPE).total for phase in arm(order).phases]
    return Budget.flops(6 * max(costs))


def run(order: str, directory: Path, stop_at: int | None = None) -> Outcome:
    teacher = tiny.params(TEACHER, 9)
    phases = []
    for phase, program in zip(arm(order).phases, programs(order), strict=True):
        placed = program.place_teacher(teacher)
        phases.append(tiny.compiled_phase(phase, program, tiny.Batches(), placed))
    return trainers.train_one(directory, phases, budget(order), stop_at=stop_at, evaluations=1)


@pytest.mark.parametrize("order", ORDERS)
def test_phase_with_teacher_alone_trains_projection(order: str) -> None:
    trained = {}
    for name, phase in zip(ORDERS[order], arm(order).phases, strict=True):
        # Every phase carries the projection, whether it is trained there or not.
        assert phase.abstract_params()["objective"]["hidden_mse"]["kernel"].shape == (16, 24)
        trained[name] = bool(phase.gradient_mask["objective"]["hidden_mse"]["kernel"])
    assert trained == {"hidden_mse": True, "mlm": False}


@pytest.mark.parametrize(
    "order",
    ["projection_first", pytest.param("projection_last", marks=pytest.mark.exhaustive)],
)
def test_phase_without_teacher_keeps_projection_bitwise(order: str) -> None:
    program = programs(order)[ORDERS[order].index("mlm")]
    state = program.start(tiny.params(arm(order).student_config, 0), seed=0)
    before = jax.device_get(state.params["objective"])
    # A step without a teacher may not touch it, not even by decay.
    state, _ = program.step(
        state, None, program.place(tiny.batch(0)), tiny.schedule_inputs(program.phase, 1, 4)
    )
    after = jax.device_get(state.params["objective"])
    jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.parametrize("order", ORDERS)
def test_phase_among_others_costs_as_alone(order: str) -> None:
    # A projection that only travels along is neither computed with nor updated.
    (alone,) = resolve("scratch", ArmConfig(), STUDENT, TEACHER, OptimizerConfig()).phases
    phase = arm(order).phases[ORDERS[order].index("mlm")]
    assert price(phase, tiny.SHAPE) == price(alone, tiny.SHAPE)


@pytest.mark.parametrize(
    "order",
    ["projection_first", pytest.param("projection_last", marks=pytest.mark.exhaustive)],
)
def test_resume_after_stop_in_either_phase_keeps_params_bitwise(order: str, tmp_path: Path) -> None:
    costs = [price(phase, tiny.SHAPE) for phase in arm(order).phases]
    first, second = arm(order).schedule_phases(budget(order), costs, tiny.SHAPE)
    straight = run(order, tmp_path / "straight")
    assert straight.ledger.steps_by_phase == (first.steps, second.steps)
    # Stopped at the border, and in the second phase.
    for stop_at in (first.stop, second.first + 2):
        directory = tmp_path / f"stopped-{stop_at}"
        with pytest.raises(trainers.Interrupted):
            run(order, directory, stop_at)
        resumed = run(order, directory)
        assert resumed.params_sha256 == straight.params_sha256
        assert metrics.same_each_time(directory) == metrics.same_each_time(tmp_path / "straight")
