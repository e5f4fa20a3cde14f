"""Kernels over the devices of a mesh, and a whole step with all of them, as a TPU would run it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core

from kdjax import models
from kdjax.config import (
    ArmConfig,
    CacheConfig,
    ComputeConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TermConfig,
)
from kdjax.hlo.kernels import kernels
from kdjax.kernels.split import EACH, ROWS, on_tpu, split
from kdjax.parallel.layout import Layout
from kdjax.training import fill_teacher_cache as cache
from kdjax.training.arm import resolve
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.program import Program
from kdjax.training.step import ScheduleInputs
from kdjax.training.teacher_source import CachedTeacher
from tests import tiny
from tests.tolerance import assert_metrics_equal, assert_sums_equal

STUDENT = ModelConfig(
    layers=3,
    width=128,
    heads=2,
    ffn=32,
    vocab_size=tiny.VOCABULARY,
    max_positions=128,
    dropout=0.2,
    attention_dropout=0.1,
    positions="rotary",
)
TEACHER = dataclasses.replace(STUDENT, layers=1, positions="learned")
SHAPE = BatchShape(batch_size=8, seq_len=128, max_predictions=16)
TERMS = (
    TermConfig("mlm"),
    TermConfig("attention_kl"),
    TermConfig("relation", options={"relation_heads": 4}),
)
KERNELS = {
    f"{name}_{way}"
    for name in ("attention", "layer_norm", "relation")
    for way in ("forward", "backward")
}


class Sgd(Phase):
    """A step of it moves parameters by their gradients."""

    @property
    def transformation(self) -> optax.GradientTransformation:
        return optax.identity()


def phase() -> Phase:
    """Attention with and without scores, relations, logits."""
    (only,) = resolve(
        "all", ArmConfig(terms=TERMS), STUDENT, TEACHER, OptimizerConfig(learning_rate=1.0)
    ).phases
    return Sgd(**{field.name: getattr(only, field.name) for field in dataclasses.fields(Phase)})


def stepped(mesh: MeshConfig, devices: int, **options: Any) -> tuple[Any, float, set[str]]:
    """The gradients of a step, its loss, and the kernels in it; of runs side by side, the first
    one's."""
    program = Program(phase(), SHAPE, Layout.of(mesh, jax.devices()[:devices]), **options)
    start = models.init(STUDENT, 0).params
    teacher = program.place_teacher(models.init(TEACHER, 9).params)
    states = [program.start(start, seed) for seed in range(program.lanes)]
    before = jax.device_get(states[0].params)
    batches = program.place(
        program.stack_batches([tiny.batch(3 + n, SHAPE) for n in range(program.lanes)])
    )
    after, metrics = program.step(program.stack(states), teacher, batches, ScheduleInputs(0.0, 1.0))
    gradients = jax.tree.map(np.subtract, before, jax.device_get(program.unstack(after, 0).params))
    return gradients, float(np.ravel(metrics["loss"])[0]), {name for name, _ in program.kernels}


@pytest.fixture(scope="module")
def lean() -> tuple[Any, float]:
    """The step without kernels, on one device."""
    gradients, loss, found = stepped(MeshConfig(), 1)
    assert not found
    return gradients, loss


@pytest.mark.usefixtures("tpu")
@pytest.mark.parametrize(
    ("mesh", "devices", "options"),
    [
        (MeshConfig(fsdp=2), 8, {}),
        (MeshConfig(), 2, {"compute": ComputeConfig(scan=True, remat="full")}),
        (MeshConfig(), 2, {"seeds": 2}),
    ],
    ids=["over eight devices", "as a loop, rematerialised", "two runs side by side"],
)
def test_a_step_with_kernels_is_the_step_without(
    lean: tuple[Any, float], mesh: MeshConfig, devices: int, options: dict[str, Any]
) -> None:
    gradients, loss, found = stepped(mesh, devices, **options)
    assert found == KERNELS
    sums = {"summands": SHAPE.batch_size * SHAPE.seq_len, "stages": 20}  # matmuls and sums in a row
    assert_metrics_equal({"loss": loss}, {"loss": lean[1]}, **sums)
    largest = max(float(np.max(np.abs(gradient))) for gradient in jax.tree.leaves(lean[0]))
    assert_sums_equal(gradients, lean[0], size=largest, **sums)


def test_each_device_is_given_its_own_sequences() -> None:
    x = jnp.arange(8.0).reshape(8, 1)
    scale = jnp.array([2.0])
    sizes = []

    def kernel(x: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
        sizes.append(len(x))
        return x * scale, jnp.sum(x, axis=0, keepdims=True)

    def run(x: jax.Array, scale: jax.Array) -> Any:
        with layout.mesh_context():
            return split(kernel, (ROWS, EACH), (ROWS, ROWS))(x, scale)

    layout = Layout.of(MeshConfig(fsdp=2))
    scaled, sums = jax.jit(run, in_shardings=(layout.batch_sharding, layout.replicated))(x, scale)
    assert set(sizes) == {1}
    np.testing.assert_array_equal(scaled, 2 * x)
    np.testing.assert_array_equal(sums, x)
    assert split(kernel, (ROWS, EACH), (ROWS, ROWS)) is kernel  # without a mesh


@pytest.mark.usefixtures("tpu")
def test_stored_outputs_of_a_teacher_are_made_by_kernels_on_each_device() -> None:
    """XLA does not split a kernel's work: a TPU refuses one that is not in a shard_map."""
    layout = Layout.of()
    request = models.FeatureRequest(hidden=frozenset({1}))
    program = cache._program(CachedTeacher(TEACHER, request, CacheConfig()), layout)
    batch = {**SHAPE.abstract(), "records": jax.ShapeDtypeStruct((SHAPE.batch_size,), jnp.int32)}
    traced = program.trace(models.abstract_params(TEACHER, mlm=False), batch).jaxpr
    assert set(kernels(traced)) and not lonely(traced.jaxpr)


def lonely(jaxpr: core.Jaxpr) -> list[str]:
    """Kernels outside every shard_map."""
    found = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "pallas_call":
            found.append(eqn.params["name"])
        elif eqn.primitive.name != "shard_map":
            found += [name for inner in core.jaxprs_in_params(eqn.params) for name in lonely(inner)]
    return found


@pytest.mark.usefixtures("tpu")
def test_there_are_no_kernels_where_devices_share_the_work_of_a_layer() -> None:
    assert on_tpu()
    for mesh, expected in ((MeshConfig(fsdp=2), True), (MeshConfig(tensor=2), False)):
        with Layout.of(mesh).mesh_context():
            assert on_tpu() is expected


def test_a_cpu_has_no_kernels() -> None:
    assert not on_tpu()
    with Layout.of().mesh_context():
        assert not on_tpu()
