"""How a step is computed changes neither what it costs nor, but for rounding, what it does."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.config import ArmConfig, ComputeConfig, OptimizerConfig, TermConfig
from kdjax.parallel.layout import Layout
from kdjax.training.arm import resolve
from kdjax.training.phase import Phase
from kdjax.training.phase_price import price
from kdjax.training.program import Program, program_of
from tests.support import tiny
from tests.support.tolerance import assert_metrics_equal, assert_updates_equal

STEPS = 3
STUDENT = dataclasses.replace(tiny.STUDENT, layers=3)
TEACHER = dataclasses.replace(tiny.TEACHER, layers=1)
VERSIONS = {
    "plain": (1, 1, ComputeConfig()),
    "scanned and rematerialised": (1, 1, ComputeConfig(scan=True, remat="full")),
    "accumulated, sharded, some of it rematerialised": (2, 4, ComputeConfig(remat="dots")),
    "bfloat16, all at once": (2, 2, ComputeConfig("bfloat16", "full", True)),
}


@functools.cache
def phase() -> Phase:
    """Make a phase that needs logits and a hidden state: layers below it are alike, so that they
    can be one loop."""
    terms = (
        TermConfig("mlm"),
        TermConfig("logit"),
        TermConfig("hidden_mse", options={"layers": "last"}),
    )
    optimizer = OptimizerConfig(learning_rate=1e-3)
    (only,) = resolve("mixed", ArmConfig(terms=terms), STUDENT, TEACHER, optimizer).phases
    # Two layers may be one loop; the third hands out its hidden state.
    assert [len(run) for run in only.needs.student.ranges(STUDENT.layers)] == [2, 1]
    return only


@functools.cache
def program(version: str) -> Program:
    devices, grad_accum_steps, compute = VERSIONS[version]
    return program_of(
        phase(),
        tiny.SHAPE,
        Layout.from_config(devices=jax.devices()[:devices]),
        grad_accum_steps,
        compute,
    )


@functools.cache
def trained(version: str) -> tuple[Any, list[float]]:
    """Train the student for a few steps; return it and its losses."""
    compiled = program(version)
    teacher = compiled.place_teacher(tiny.params(TEACHER, 9))
    state = compiled.start(tiny.params(STUDENT, 0), seed=1)
    losses = []
    for step in range(STEPS):
        state, metrics = compiled.step(
            state,
            teacher,
            compiled.place(tiny.batch(step)),
            tiny.schedule_inputs(phase(), step, STEPS),
        )
        losses.append(float(metrics["loss"]))
    return jax.device_get(state.params), losses


@pytest.mark.parametrize(
    "version",
    [
        "scanned and rematerialised",
        pytest.param(
            "accumulated, sharded, some of it rematerialised", marks=pytest.mark.exhaustive
        ),
        "bfloat16, all at once",
    ],
)
def test_every_way_to_compute_trains_the_same_params(version: str) -> None:
    params, losses = trained(version)
    plain, expected = trained("plain")
    coarse = VERSIONS[version][2].dtype == "bfloat16"
    if coarse:  # rounded to bfloat16 after every operation, not added up in another order
        np.testing.assert_allclose(losses, expected, rtol=2e-2)
        return
    # 20 matmuls in a row a step
    sums = {
        "summands": tiny.SHAPE.batch_size * tiny.SHAPE.seq_len,
        "stages": 20 * STEPS,
    }
    for actual, target in zip(losses, expected, strict=True):
        assert_metrics_equal({"loss": actual}, {"loss": target}, **sums)
    # Differences are held against how far parameters moved.
    start = program("plain").start(tiny.params(STUDENT, 0), seed=1)
    assert_updates_equal(params, plain, jax.device_get(start.params), **sums)


def test_every_way_to_compute_has_same_price_and_own_hardware_flops() -> None:
    some = ("plain", "scanned and rematerialised", "bfloat16, all at once")
    prices = {price(program(version).phase, tiny.SHAPE) for version in some}
    assert prices == {price(phase(), tiny.SHAPE)}
    done = {version: program(version).hardware_flops for version in some}
    assert all(flops is not None and flops > 0 for flops in done.values())
    # What is computed again costs the hardware, and not the budget.
    assert done["scanned and rematerialised"] > 1.1 * done["plain"]


def test_teacher_is_held_in_compute_dtype() -> None:
    params = tiny.params(TEACHER, 9)
    for version, dtype in (("plain", "float32"), ("bfloat16, all at once", "bfloat16")):
        assert {x.dtype.name for x in jax.tree.leaves(program(version).place_teacher(params))} == {
            dtype
        }
    # The student's own parameters stay in float32.
    state = program("bfloat16, all at once").start(tiny.params(STUDENT, 0), seed=1)
    assert {x.dtype.name for x in jax.tree.leaves(state.params)} == {"float32"}
