"""Muon beside AdamW: its update against NumPy, its price by hand, and the same step however it is
computed."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.budget.accounting import Budget
from kdjax.config import ComputeConfig, MeshConfig, OptimizerConfig
from kdjax.parallel.layout import Layout
from kdjax.training.checksum import sha256
from kdjax.training.muon import is_muon_matrix, update_scale
from kdjax.training.optimizer import transformation
from kdjax.training.partition import flatten, merge_opt_state, select_opt_state
from kdjax.training.phase import Phase
from kdjax.training.phase_price import price
from kdjax.training.program import Program
from tests.support import tiny, trainers
from tests.support.tolerance import assert_metrics_equal, assert_updates_equal

STEPS = 3
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b and c of an iteration (Jordan et al. 2024)."""
MATRICES = ("attention.query", "attention.key", "attention.value", "attention.output")
BLOCKS = ("ffn.up", "ffn.down")


@functools.cache
def phase(layers: int = 1, **optimizer: Any) -> Phase:
    student = dataclasses.replace(tiny.STUDENT, layers=layers)
    return tiny.phase("scratch", student, name="muon", weight_decay=0.1, clip=1.0, **optimizer)


@functools.cache
def stepped(
    mesh: tuple[int, int, int] = (1, 1, 1), grad_accum_steps: int = 1, *, scan: bool = False
) -> tuple[Any, dict[str, float]]:
    """Return parameters and metrics after three steps."""
    layers = 2 if scan or grad_accum_steps > 1 else 1
    return run(compiled(mesh, grad_accum_steps, scan=scan, layers=layers))


def compiled(
    mesh: tuple[int, int, int], grad_accum_steps: int, *, scan: bool, layers: int
) -> Program:
    layout = Layout.from_config(MeshConfig(*mesh), jax.devices()[: int(np.prod(mesh))])
    compute = ComputeConfig(scan=scan)
    return Program(
        phase(layers), tiny.SHAPE, layout, grad_accum_steps=grad_accum_steps, compute=compute
    )


def start(layers: int = 1) -> Any:
    return tiny.spread(tiny.params(dataclasses.replace(tiny.STUDENT, layers=layers), 0), factor=4)


def run(program: Program) -> tuple[Any, dict[str, float]]:
    state = program.start(start(program.phase.student_config.layers), seed=1)
    metrics: dict[str, Any] = {}
    for step in range(STEPS):
        inputs = tiny.schedule_inputs(program.phase, step, 5)
        state, metrics = program.step(state, None, program.place(tiny.batch(step)), inputs)
    return jax.device_get(state.params), {name: float(value) for name, value in metrics.items()}


def check_same(
    actual: tuple[Any, dict[str, float]], expected: tuple[Any, dict[str, float]], layers: int = 1
) -> None:
    """Assert that two programs did the same steps, but for the order of sums."""
    # 20 matmuls and sums in a row a step, and 15 in Newton-Schulz iterations
    sums = {
        "summands": tiny.SHAPE.batch_size * tiny.SHAPE.seq_len,
        "stages": 35 * STEPS,
    }
    assert_metrics_equal(actual[1], expected[1], **sums)
    begin = {"model": start(layers), "objective": {}}
    assert_updates_equal(actual[0], expected[0], begin, **sums)


def newton_schulz(matrix: np.ndarray, steps: int) -> np.ndarray:
    """Iterate in float64, on the smaller side's Gram matrix."""
    a, b, c = COEFFICIENTS
    x = matrix.astype(np.float64)
    x = x / np.linalg.norm(x)
    is_tall = x.shape[0] > x.shape[1]
    if is_tall:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x


@pytest.mark.parametrize("consistent_rms", [0.2, 0.0])
def test_updates_of_matrices_equal_numpy_and_others_are_adamws(consistent_rms: float) -> None:
    config = OptimizerConfig(
        name="muon", weight_decay=0.3, muon_lr_scale=0.5, consistent_rms=consistent_rms
    )
    params = {
        "model.layers.1.ffn.up.kernel": (16, 32),
        "model.layers.1.ffn.down.kernel": (32, 16),
        "model.layers.1.ffn.up.bias": (32,),
        "model.mlm.dense.kernel": (16, 16),
        "model.embeddings.word.embedding": (53, 16),
        "objective.hidden_mse.kernel": (16, 24),
    }
    rng = np.random.default_rng(3)
    draws = [rng.standard_normal(shape).astype(np.float32) for shape in params.values()]
    flat = dict(zip(params, draws, strict=True))
    gradients = [{name: rng.standard_normal(x.shape) for name, x in flat.items()} for _ in range(2)]
    gradients = jax.tree.map(lambda x: x.astype(np.float32), gradients)

    # Two updates each, as momentum counts from the second on
    updates = []
    for optimizer in (transformation(config), transformation(OptimizerConfig(weight_decay=0.3))):
        state = optimizer.init(flat)
        for gradient in gradients:
            direction, state = jax.jit(optimizer.update)(gradient, state, flat)
        updates.append(direction)
    muon, adamw = updates
    for name, shape in params.items():
        if not (name.startswith("model.layers") and name.endswith("kernel")):
            np.testing.assert_allclose(muon[name], adamw[name], rtol=1e-6)
            continue
        first, second = (gradient[name].astype(np.float64) for gradient in gradients)
        beta = config.momentum
        # The mean of gradients as of the next step, corrected for its start at 0, and the last one
        mean = beta * (1 - beta) * first + (1 - beta) * second
        nesterov = beta * mean / (1 - beta**3) + (1 - beta) * second / (1 - beta**2)
        orthogonal = newton_schulz(nesterov, config.ns_steps)
        scale = np.sqrt(max(1, shape[1] / shape[0]))
        if consistent_rms:
            scale = consistent_rms * np.sqrt(max(shape))
        expected = 0.5 * (scale * orthogonal + 0.3 * flat[name])
        np.testing.assert_allclose(muon[name], expected, atol=2e-4)
        # All directions of a matrix are about as large.
        values = np.linalg.svd(muon[name] / 0.5 - 0.3 * flat[name], compute_uv=False) / scale
        assert 0.6 < values.min() <= values.max() < 1.3


def test_every_kernel_of_layers_and_nothing_else_is_muons() -> None:
    params = flatten(tiny.phase("tinybert").abstract_params())
    matrices = {name for name, leaf in params.items() if is_muon_matrix(name, leaf)}
    expected = set()
    for layer in (1, 2):
        for part in MATRICES + BLOCKS:
            expected.add(f"model.layers.{layer}.{part}.kernel")
    assert matrices == expected


def test_consistent_rms_gives_updates_the_size_of_adamws() -> None:
    config = OptimizerConfig(name="muon")
    rng = np.random.default_rng(0)
    for shape in ((16, 64), (64, 16), (32, 32)):
        u, _, vt = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
        size = np.sqrt(np.mean(np.square(update_scale(config, shape) * (u @ vt))))
        assert size == pytest.approx(config.consistent_rms)


def test_price_counts_each_newton_schulz_iteration() -> None:
    steps = 3

    def iterations(rows: int, columns: int) -> int:
        """Count X Xᵀ, A A and B X of an m x n matrix, m the smaller: 2 FLOPs a multiply-add."""
        m = min(rows, columns)
        n = max(rows, columns)
        return steps * (2 * m * n * m + 2 * m * m * m + 2 * m * m * n)

    plain = price(tiny.phase(weight_decay=0.1, clip=1.0), tiny.SHAPE)
    muon = price(phase(2, ns_steps=steps), tiny.SHAPE)
    width = tiny.STUDENT.width
    ffn = tiny.STUDENT.ffn
    layer = 4 * iterations(width, width) + 2 * iterations(width, ffn)
    matmuls = tiny.STUDENT.layers * layer
    assert muon.jaxpr_matmul - plain.jaxpr_matmul == matmuls
    # They are the optimiser's part; what is elementwise comes on top.
    more = muon.optimizer - plain.optimizer
    assert matmuls < more < 1.3 * matmuls
    assert (muon.student_forward, muon.objective) == (plain.student_forward, plain.objective)


def test_mesh_that_splits_matrices_equals_one_device() -> None:
    check_same(stepped((1, 4, 2)), stepped())


def test_loop_over_layers_and_microbatches_equal_plain_step() -> None:
    plain = run(compiled((1, 1, 1), 1, scan=False, layers=2))
    check_same(stepped(grad_accum_steps=2, scan=True), plain, layers=2)


def test_lane_equals_run_alone() -> None:
    alone = compiled((1, 1, 1), 1, scan=False, layers=1)
    program = Program(phase(), tiny.SHAPE, alone.layout, lanes=2)
    states = program.stack([program.start(start(), seed) for seed in (1, 2)])
    metrics: dict[str, Any] = {}
    for step in range(STEPS):
        batches = [tiny.batch(step), tiny.batch(100 + step)]
        inputs = tiny.schedule_inputs(phase(), step, 5)
        stacked = program.stack_batches(batches)
        states, metrics = program.step(states, None, stacked, inputs)
    params = jax.device_get(program.unstack(states, 0).params)
    first = {name: float(values[0]) for name, values in metrics.items()}
    check_same((params, first), stepped())


def test_resume_after_kill_keeps_params_bitwise(tmp_path: Path) -> None:
    program = compiled((1, 1, 1), 1, scan=False, layers=1)
    phases = [tiny.compiled_phase(phase(), program, tiny.Batches())]
    budget = Budget.flops(4 * price(phase(), tiny.SHAPE).total)
    settings = {"start": start()}
    straight = trainers.train_one(tmp_path / "straight", phases, budget, **settings)
    with pytest.raises(trainers.Interrupted):
        trainers.train_one(tmp_path / "broken", phases, budget, stop_at=3, **settings)
    resumed = trainers.train_one(tmp_path / "broken", phases, budget, **settings)
    assert sha256(resumed.params) == sha256(straight.params)
    assert resumed.ledger.spent == straight.ledger.spent


def test_state_of_frozen_matrices_stays_as_it_is() -> None:
    params = flatten(jax.tree.map(jnp.ones_like, {"model": start()}))
    optimizer = transformation(OptimizerConfig(name="muon"))
    state = optimizer.init(params)
    # A phase that trains embeddings and one matrix
    trained = ("model.embeddings.word.embedding", "model.layers.1.ffn.up.kernel")
    selected = select_opt_state(optimizer, state, {name: params[name] for name in trained})
    (of_phase,) = selected
    assert set(of_phase.muon.mu) == {trained[1]}
    assert set(of_phase.adam.mu) == {trained[0]}
    after = merge_opt_state(state, jax.tree.map(lambda x: x + 1, selected))
    (merged,) = after
    for name, momentum in merged.muon.mu.items():
        assert np.all(momentum == (name == trained[1]))
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_parameters_without_matrices_of_layers_are_all_adams() -> None:
    head = {"model.mlm.dense.kernel": jnp.ones((4, 4)), "model.mlm.bias": jnp.ones(5)}
    gradients = jax.tree.map(lambda x: 0.5 * x, head)
    updates = []
    for config in (OptimizerConfig(name="muon"), OptimizerConfig()):
        optimizer = transformation(config)
        direction, _ = optimizer.update(gradients, optimizer.init(head), head)
        updates.append(direction)
    muon, adamw = updates
    for name in head:
        np.testing.assert_array_equal(muon[name], adamw[name])
