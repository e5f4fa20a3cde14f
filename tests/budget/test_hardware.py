"""What the hardware does: FLOPs with loops by their turns, peaks, memory. Nothing here is timed."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.budget.hardware import Peak, hardware_flops, memory, peak, peak_memory, utilisation
from kdjax.budget.jaxpr_count import FlopCountError, JaxprCount, count_jaxpr
from kdjax.budget.price import count_program_flops
from kdjax.config import ComputeConfig
from kdjax.training.phase import BatchShape
from kdjax.training.phase_price import price
from kdjax.training.step import ScheduleInputs, init_state
from tests.support import tiny

WIDTH = 32
ROWS = 16
LAYERS = 6
MATMUL = 2 * ROWS * WIDTH * WIDTH

X = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
WEIGHTS = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.float32)


def flops(
    program: Callable[..., Any], *shapes: Any, devices: int = 1, **options: Any
) -> int | None:
    traced = jax.jit(program, **options).trace(*shapes)
    return hardware_flops(traced.lower().compile(), traced.jaxpr, devices)


def layers(unroll: int | bool) -> Callable[..., jax.Array]:
    def program(x: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights, unroll=unroll)[0]

    return program


@pytest.mark.parametrize("unroll", [1, 2, 4, True])
def test_loop_counts_by_its_turns_however_far_it_is_unrolled(unroll: int | bool) -> None:
    assert flops(layers(unroll), X, WEIGHTS) == pytest.approx(LAYERS * MATMUL, rel=2e-3)


def test_loop_in_a_loop_counts_by_the_product_of_turns() -> None:
    def program(x: jax.Array, weights: jax.Array) -> jax.Array:
        def outer(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return layers(1)(x, weights) @ weights[0], None

        return jax.lax.scan(outer, x, length=5)[0]

    assert flops(program, X, WEIGHTS) == pytest.approx(5 * (LAYERS + 1) * MATMUL, rel=2e-3)


def test_jaxpr_count_of_a_loop_is_whole_once_or_refused() -> None:
    traced = jax.make_jaxpr(layers(1))(jnp.zeros(X.shape), jnp.zeros(WEIGHTS.shape)).jaxpr
    assert count_jaxpr(traced, "whole") == JaxprCount(LAYERS * MATMUL, 0)
    assert count_jaxpr(traced, "once") == JaxprCount(MATMUL, 0)
    by_four = jax.make_jaxpr(layers(4))(jnp.zeros(X.shape), jnp.zeros(WEIGHTS.shape)).jaxpr
    # One turn of four layers, and two written out
    assert count_jaxpr(by_four, "once").matmul == LAYERS * MATMUL
    with pytest.raises(FlopCountError, match="expected the plain program"):
        count_program_flops(layers(1), X, WEIGHTS)


def gradient(body: Callable[..., Any]) -> Callable[..., Any]:
    def loss(weights: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.scan(body, x, weights)[0].sum()

    return jax.grad(loss)


def test_rematerialised_work_counts_again() -> None:
    """A matmul is done forward, twice backward, and forward once more; XLA sees one turn of either
    loop."""

    def body(x: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
        return jnp.tanh(jnp.tanh(x @ w) @ w), None

    plain = flops(gradient(body), WEIGHTS, X)
    again = flops(gradient(jax.checkpoint(body)), WEIGHTS, X)
    # Besides, the derivative of tanh
    assert plain == pytest.approx(LAYERS * 2 * 3 * MATMUL, rel=0.05)
    assert again == pytest.approx(LAYERS * 2 * 4 * MATMUL, rel=0.05)


def test_hardware_flops_of_a_step_do_not_depend_on_loops() -> None:
    """The model is wide enough: in a very small one the most is elementwise work, of which XLA
    makes more or less."""
    student = dataclasses.replace(tiny.STUDENT, layers=2, width=128, ffn=512)
    phase = tiny.phase("scratch", student=student)
    shape = BatchShape(batch_size=8, seq_len=16, max_predictions=3)
    params = phase.abstract_params()
    batch = phase.abstract_batch(shape)
    state = jax.eval_shape(lambda params: init_state(params, phase.transformation, 0), params)
    rest = (state, None, batch, ScheduleInputs.abstract())
    plain = flops(phase.build_step(grad_accum_steps=1, compute=ComputeConfig(scan=False)), *rest)
    looped = flops(phase.build_step(grad_accum_steps=2, compute=ComputeConfig(scan=True)), *rest)
    assert looped == pytest.approx(plain, rel=0.05)
    assert plain == pytest.approx(price(phase, shape).total, rel=0.05)


def test_hardware_flops_of_eight_devices_equal_those_of_one() -> None:
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    shardings = {"in_shardings": (everywhere, rows), "out_shardings": everywhere}
    program = gradient(lambda x, w: (jnp.tanh(x @ w), None))
    # The batch is split, the weights are on every device.
    batch = jax.ShapeDtypeStruct((8 * ROWS, WIDTH), jnp.float32)
    single = flops(program, WEIGHTS, batch)
    eight = flops(program, WEIGHTS, batch, devices=8, **shardings)
    assert single == pytest.approx(8 * LAYERS * 3 * MATMUL, rel=0.1)
    assert eight == pytest.approx(single, rel=0.05)


@pytest.mark.parametrize(
    "analysis", [None, {}, {"flops": -1.0}, {"flops": 0.0}, {"flops": math.nan}]
)
def test_hardware_flops_are_none_without_a_count_of_the_backend(
    analysis: dict[str, float] | None,
) -> None:
    compiled = SimpleNamespace(cost_analysis=lambda: analysis)
    traced = jax.make_jaxpr(lambda x: x @ x)(jnp.zeros((4, 4)))
    assert hardware_flops(compiled, traced, 1) is None


def test_hardware_flops_are_none_where_kernels_hide_the_matmuls() -> None:
    traced = jax.make_jaxpr(lambda x: x @ x)(jnp.zeros((10, 10)))
    hidden = SimpleNamespace(cost_analysis=lambda: {"flops": 300.0})
    visible = SimpleNamespace(cost_analysis=lambda: {"flops": 2000.0})
    assert hardware_flops(hidden, traced, 1) is None
    assert hardware_flops(visible, traced, 1) == 2000
    assert hardware_flops(visible, traced, 4) == 8000


def test_hardware_flops_are_none_for_a_loop_of_unknown_length() -> None:
    def program(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: x.sum() < 3, lambda x: x @ x, x)

    assert flops(program, jax.ShapeDtypeStruct((8, 8), jnp.float32)) is None


class Device(NamedTuple):
    device_kind: str
    platform: str = "other"


@pytest.mark.parametrize(
    ("kind", "teraflops", "dtype"),
    [
        ("TPU v3", 61.5, "bfloat16"),
        ("TPU v4", 275, "bfloat16"),
        ("TPU v5 lite", 197, "bfloat16"),
        ("TPU v5", 459, "bfloat16"),
        ("TPU v6 lite", 918, "bfloat16"),
        ("TPU7x", 1153.5, "bfloat16"),
        ("Tesla V100-SXM2-16GB", 125, "float16"),
        ("Tesla V100-PCIE-32GB", 112, "float16"),
        ("Tesla V100S-PCIE-32GB", 130, "float16"),
        ("Tesla T4", 65, "float16"),
        ("NVIDIA A10", 125, "bfloat16"),
        ("NVIDIA A100-SXM4-40GB", 312, "bfloat16"),
        ("NVIDIA A100 80GB PCIe", 312, "bfloat16"),
        ("NVIDIA L4", 121, "bfloat16"),
        ("NVIDIA L40S", 362, "bfloat16"),
        ("NVIDIA H100 80GB HBM3", 989, "bfloat16"),
        ("NVIDIA H100 PCIe", 756, "bfloat16"),
        ("NVIDIA H100 NVL", 835, "bfloat16"),
        ("NVIDIA H200", 989, "bfloat16"),
        ("NVIDIA H200 NVL", 835, "bfloat16"),
    ],
)
def test_peak_of_a_known_kind_is_the_vendors_figure(
    kind: str, teraflops: float, dtype: str
) -> None:
    actual = peak(Device(kind))
    assert actual.flops_per_second == pytest.approx(teraflops * 1e12)
    assert actual.dtype == dtype
    assert actual.source.startswith("Google" if kind.startswith("TPU") else "NVIDIA")


@pytest.mark.parametrize(
    "kind", ["NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA A10G", "TPU v99", "cpu"]
)
def test_peak_of_an_unknown_kind_is_measured(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("kdjax.budget.hardware.fastest_matmul", lambda device: 5e9)
    assert peak(Device(kind)) == Peak(5e9, "float32", "measured")


def test_this_devices_peak_is_measured_once() -> None:
    actual = peak(jax.devices()[0])
    assert actual.source == "measured"
    assert actual.dtype == "float32"
    assert 1e6 < actual.flops_per_second < 1e15
    assert peak(jax.devices()[0]) is actual


def test_cpu_devices_share_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdjax.budget.hardware.fastest_matmul", lambda device: 8e9)
    actual = peak(Device("a cpu", "cpu"))
    assert actual.flops_per_second == 8e9 / len(jax.local_devices(backend="cpu"))


def test_utilisation_is_the_share_of_what_all_devices_could_do() -> None:
    assert utilisation(6e12, 2.0, Peak(1e12, "bfloat16", "a data sheet"), 4) == 0.75


def test_memory_of_a_program_is_the_compilers_figure() -> None:
    def program(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x + 1, jnp.sort(x @ y, axis=0)

    # The same program, with and without an argument that a result may replace.
    square = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    array = 4 * 64 * 64

    def memory_with(donate: int | tuple[()]) -> dict[str, int] | None:
        jitted = jax.jit(program, donate_argnums=donate)
        return memory(jitted.trace(square, square).lower().compile())

    plain = memory_with(())
    donated = memory_with(0)
    assert plain is not None
    assert donated is not None
    assert plain["arguments"] == donated["arguments"] == 2 * array
    assert 2 * array <= plain["outputs"] < 2 * array + 64  # and the pointers of a pair
    assert (plain["aliased"], donated["aliased"]) == (0, array)
    for sizes in (plain, donated):
        assert sizes["temporaries"] >= 0
        expected = sizes["arguments"] + sizes["outputs"] - sizes["aliased"] + sizes["temporaries"]
        assert sizes["peak"] == expected


def test_memory_is_none_where_the_compiler_has_no_figure() -> None:
    assert memory(SimpleNamespace(memory_analysis=lambda: None)) is None


def test_peak_memory_of_the_process_is_in_bytes() -> None:
    """A quarter of a gigabyte, touched, lies below the mark even when it is gone; nobody's mark is
    at a terabyte."""
    size = 2**28
    np.ones(size, np.uint8)
    most, source = peak_memory()
    assert source == "the process, resident set"
    assert size < most < 2**40


def test_peak_memory_of_devices_is_that_of_the_fullest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stats = [{"peak_bytes_in_use": 10, "bytes_in_use": 3}, {"peak_bytes_in_use": 70}, None]
    devices = [SimpleNamespace(memory_stats=lambda s=s: s) for s in stats]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert peak_memory() == (70, "the fullest device")


def test_peak_memory_is_converted_from_kib_but_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(ru_maxrss=5000)
    monkeypatch.setattr("kdjax.budget.hardware.resource.getrusage", lambda who: usage)
    for platform, expected in (("darwin", 5000), ("linux", 5000 * 1024)):
        monkeypatch.setattr(sys, "platform", platform)
        assert peak_memory()[0] == expected
