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
from kdjax.hlo.kernels import kernel_flops
from kdjax.models.ops.sharding import BATCH_SHARDED, REPLICATED, on_each_device
from kdjax.parallel.layout import Layout
from kdjax.training.arm import resolve
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.program import Program
from kdjax.training.step import ScheduleInputs
from kdjax.training.teacher.source import CachedTeacher
from kdjax.training.teacher_cache import fill as cache
from tests.support import tiny
from tests.support.tolerance import assert_metrics_equal, assert_sums_equal

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
"""Attention with and without scores, relations, logits."""
KERNELS = {
    "attention_forward",
    "attention_backward",
    "layer_norm_forward",
    "layer_norm_backward",
    "relation_forward",
    "relation_backward",
}


LOOP = ComputeConfig(scan=True, remat="full")


def also(*values: object, id: str) -> Any:
    """Return a case whose parts others hold together."""
    return pytest.param(*values, id=id, marks=pytest.mark.exhaustive)


class Sgd(Phase):
    """A phase whose step moves parameters by their gradients."""

    @property
    def transformation(self) -> optax.GradientTransformation:
        return optax.identity()


def phase() -> Phase:
    optimizer = OptimizerConfig(learning_rate=1.0)
    arm = resolve("all", ArmConfig(terms=TERMS), STUDENT, TEACHER, optimizer)
    adam = arm.phases[0]
    # An SGD step at a rate of 1 gives the gradients away.
    return Sgd(**{field.name: getattr(adam, field.name) for field in dataclasses.fields(Phase)})


def stepped(mesh: MeshConfig, devices: int, **options: Any) -> tuple[Any, float, set[str]]:
    """Return the gradients of a step, its loss, and the kernels in it; of vmapped runs, the first
    one's."""
    program = Program(phase(), SHAPE, Layout.from_config(mesh, jax.devices()[:devices]), **options)
    start = models.init(STUDENT, 0).params
    teacher = program.place_teacher(models.init(TEACHER, 9).params)
    # Each lane has a seed and a batch of its own; one run is one lane.
    states = [program.start(start, seed) for seed in range(program.lanes)]
    before = jax.device_get(states[0].params)
    batches = program.place(
        program.stack_batches([tiny.batch(3 + n, SHAPE) for n in range(program.lanes)])
    )
    after, metrics = program.step(program.stack(states), teacher, batches, ScheduleInputs(0.0, 1.0))
    # What a parameter moved by is its gradient.
    gradients = jax.tree.map(np.subtract, before, jax.device_get(program.unstack(after, 0).params))
    return gradients, float(np.ravel(metrics["loss"])[0]), {name for name, _ in program.kernels}


@pytest.fixture(scope="module")
def without_kernels() -> tuple[Any, float]:
    """The step without kernels, on one device."""
    gradients, loss, names = stepped(MeshConfig(), 1)
    assert not names
    return gradients, loss


@pytest.mark.usefixtures("tpu")
@pytest.mark.parametrize(
    ("mesh", "devices", "options"),
    [
        also(MeshConfig(fsdp=2), 8, {}, id="over eight devices"),
        pytest.param(
            MeshConfig(),
            2,
            {"compute": LOOP, "lanes": 2},
            id="two vmapped runs as a loop, rematerialised",
        ),
        also(MeshConfig(), 2, {"compute": LOOP}, id="as a loop, rematerialised"),
        also(MeshConfig(), 2, {"lanes": 2}, id="two vmapped runs"),
    ],
)
def test_step_with_kernels_is_the_step_without(
    without_kernels: tuple[Any, float], mesh: MeshConfig, devices: int, options: dict[str, Any]
) -> None:
    want_gradients, want_loss = without_kernels
    gradients, loss, names = stepped(mesh, devices, **options)
    # All kernels took part: none was passed over as not fitting.
    assert names == KERNELS
    sums = {"summands": SHAPE.batch_size * SHAPE.seq_len, "stages": 20}  # matmuls and sums in a row
    assert_metrics_equal({"loss": loss}, {"loss": want_loss}, **sums)
    # Sums of different leaves are held to the size of the largest gradient.
    largest = max(float(np.max(np.abs(gradient))) for gradient in jax.tree.leaves(want_gradients))
    assert_sums_equal(gradients, want_gradients, size=largest, **sums)


def test_each_device_runs_a_kernel_on_its_own_sequences() -> None:
    x = jnp.arange(8.0).reshape(8, 1)
    scale = jnp.array([2.0])
    sizes = []

    # Shapes are seen while the kernel is traced, on each device.
    def kernel(x: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
        sizes.append(len(x))
        return x * scale, jnp.sum(x, axis=0, keepdims=True)

    inputs = (BATCH_SHARDED, REPLICATED)
    outputs = (BATCH_SHARDED, BATCH_SHARDED)
    layout = Layout.from_config(MeshConfig(fsdp=2))

    def run(x: jax.Array, scale: jax.Array) -> Any:
        with layout.mesh_context():
            return on_each_device(kernel, inputs, outputs)(x, scale)

    scaled, sums = jax.jit(run, in_shardings=(layout.batch_sharding, layout.replicated))(x, scale)
    # Eight sequences over eight devices.
    assert set(sizes) == {1}
    np.testing.assert_array_equal(scaled, 2 * x)
    np.testing.assert_array_equal(sums, x)


def test_without_a_mesh_a_kernel_runs_as_it_is() -> None:
    def kernel(x: jax.Array) -> jax.Array:
        return x

    assert on_each_device(kernel, BATCH_SHARDED, BATCH_SHARDED) is kernel


@pytest.mark.usefixtures("tpu")
def test_stored_outputs_of_a_teacher_are_computed_by_kernels_on_each_device() -> None:
    """XLA does not split a kernel's work: a TPU refuses one that is not in a shard_map."""
    layout = Layout.from_config()
    request = models.FeatureRequest(hidden=frozenset({1}))
    program = cache.forward_program(CachedTeacher(TEACHER, request, CacheConfig()), layout)
    batch = {**SHAPE.abstract(), "records": jax.ShapeDtypeStruct((SHAPE.batch_size,), jnp.int32)}
    traced = program.trace(models.abstract_params(TEACHER, mlm=False), batch).jaxpr
    # There is a kernel at all, and none of it outside.
    assert set(kernel_flops(traced))
    assert not kernels_outside_shard_map(traced.jaxpr)


def kernels_outside_shard_map(jaxpr: core.Jaxpr) -> list[str]:
    names = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "pallas_call":
            names.append(eqn.params["name"])
        # What lies in a shard_map runs on each device by itself.
        elif eqn.primitive.name != "shard_map":
            for inner in core.jaxprs_in_params(eqn.params):
                names += kernels_outside_shard_map(inner)
    return names
