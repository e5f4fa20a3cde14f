"""The training step: equal on any mesh and to its reference form; the teacher stays as it is."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.config import ArmConfig, OptimizerConfig, TermConfig
from kdjax.errors import InputError
from kdjax.models import forward
from kdjax.models.features import FeatureRequest
from kdjax.models.ops.dispatch import trace_reference
from kdjax.parallel.layout import Layout
from kdjax.training.arm import resolve
from kdjax.training.optimizer import weight_decay_mask
from kdjax.training.partition import flatten, partition
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.phase_price import REFERENCE_DROPOUT, price
from kdjax.training.program import Program
from kdjax.training.step import ScheduleInputs, State, init_state
from tests.support import tiny
from tests.support.tolerance import (
    assert_metrics_equal,
    assert_sums_equal,
    assert_updates_equal,
    rounding,
)

ARMS = ("scratch", "logit", "tinybert", "minilm")
STEPS = 20
TEACHER = tiny.SHALLOW_TEACHER


def exhaustive(name: str) -> Any:
    """Return an arm whose terms others hold already."""
    return pytest.param(name, marks=pytest.mark.exhaustive)


@functools.cache
def phase(name: str) -> Phase:
    """Make an arm's phase; the student of `logit` drops out, and that of `minilm` has a layer of
    which its objective sees half."""
    rate = 0.2 if name == "logit" else 0.0
    layers = 2 if name == "minilm" else 1
    student = dataclasses.replace(tiny.STUDENT, layers=layers, dropout=rate, attention_dropout=rate)
    return tiny.phase(name, student, TEACHER, weight_decay=0.5)


@functools.cache
def program(name: str, devices: int) -> Program:
    """Compile an arm for some of the emulated devices."""
    return Program(phase(name), tiny.SHAPE, Layout.from_config(devices=jax.devices()[:devices]))


def started(program: Program) -> State:
    """Make the state before the first step."""
    return program.start(tiny.spread(tiny.params(program.phase.student_config, 0)), seed=3)


@functools.cache
def run(name: str, devices: int) -> tuple[Any, list[dict[str, float]], Any]:
    """Train a few steps; return final params, losses, and the teacher's params after."""
    compiled = program(name, devices)
    teacher = compiled.place_teacher(tiny.spread(tiny.params(TEACHER, 9)))
    state = started(compiled)
    losses = []
    for step in range(STEPS):
        state, metrics = compiled.step(
            state,
            teacher,
            compiled.place(tiny.batch(step)),
            tiny.schedule_inputs(compiled.phase, step, STEPS),
        )
        losses.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(state.params), losses, jax.device_get(teacher)


def largest_difference(a: Any, b: Any) -> float:
    return max(
        float(np.max(np.abs(x - y)))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize(
    "name", [exhaustive("scratch"), exhaustive("logit"), exhaustive("tinybert"), "minilm"]
)
def test_step_on_eight_devices_equals_one(name: str) -> None:
    params_1, losses_1, _ = run(name, 1)
    params_8, losses_8, _ = run(name, 8)
    tokens = tiny.SHAPE.batch_size * tiny.SHAPE.seq_len
    # Attention and relations are distributions over the positions, and logits over the vocabulary.
    parts = {"logit": math.log(tiny.VOCABULARY), "relation": math.log(tiny.SHAPE.seq_len)}
    # Differences add up over steps, and the tolerance grows with them.
    for step, (loss_1, loss_8) in enumerate(zip(losses_1, losses_8, strict=True), start=1):
        assert_metrics_equal(loss_8, loss_1, summands=tokens, stages=20 * step, parts=parts)
    start = jax.device_get(started(program(name, 1)).params)
    assert_updates_equal(params_8, params_1, start, summands=tokens, stages=20 * STEPS)


def test_dropout_changes_between_steps() -> None:
    compiled = program("logit", 1)
    teacher = compiled.place_teacher(tiny.params(TEACHER, 9))
    start = tiny.params(compiled.phase.student_config, 0)
    now = tiny.schedule_inputs(compiled.phase, 0, STEPS)
    state, first = compiled.step(
        compiled.start(start, seed=3), teacher, compiled.place(tiny.batch(0)), now
    )
    # Only the step's number differs, which dropout follows.
    later = dataclasses.replace(
        compiled.start(start, seed=3), step=jax.device_put(jnp.int32(1), state.step.sharding)
    )
    _, other = compiled.step(later, teacher, compiled.place(tiny.batch(0)), now)
    assert abs(float(first["loss"]) - float(other["loss"])) > 1e-4


@pytest.mark.parametrize("name", ARMS)
def test_steps_lower_loss_of_every_arm(name: str) -> None:
    compiled = program(name, 1)
    teacher = compiled.place_teacher(tiny.params(TEACHER, 9))
    state = compiled.start(tiny.params(compiled.phase.student_config, 0), seed=3)
    losses = []
    for step in range(STEPS):
        state, metrics = compiled.step(
            state,
            teacher,
            compiled.place(tiny.batch(0)),
            tiny.schedule_inputs(compiled.phase, step, STEPS),
        )
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.9 * losses[0]


def by_gradient(phase: Phase) -> Phase:
    """Give the phase plain SGD for an optimiser: at a rate of 1 a step moves parameters by their
    gradients."""

    class Sgd(Phase):
        @property
        def transformation(self) -> optax.GradientTransformation:
            return optax.identity()

    return Sgd(**{f.name: getattr(phase, f.name) for f in dataclasses.fields(Phase)})


def test_step_gradient_is_mean_over_whole_batch() -> None:
    """One step of plain SGD over eight devices moves by the gradient computed by hand from the
    whole batch.

    The devices' slices hold different numbers of masked slots, so a mean of their means would be
    another gradient.
    """
    student = tiny.SHALLOW_STUDENT
    batch = tiny.batch(5)
    start = tiny.params(student, 0)

    def loss(params: Any, rows: Any) -> jax.Array:
        log_p = jax.nn.log_softmax(
            forward(student, params, rows, FeatureRequest(logits=True)).logits
        )
        right = jnp.take_along_axis(log_p, rows["labels"][..., None], -1)[..., 0]
        return -jnp.sum(right * rows["label_weights"]) / jnp.sum(rows["label_weights"])

    # The gradient of the whole batch, and the mean of each sequence's.
    graded = jax.jit(jax.grad(loss))
    whole = graded(start, batch)
    slices = []
    for i in range(8):
        sequence = {name: rows[i : i + 1] for name, rows in batch.items()}
        slices.append(graded(start, sequence))
    mean_of_means = jax.tree.map(lambda *g: sum(g) / 8, *slices)

    # Over eight devices a step of SGD moves parameters by what it takes for the gradient.
    compiled = Program(by_gradient(tiny.phase(student=student)), tiny.SHAPE, Layout.from_config())
    state, _ = compiled.step(
        compiled.start(start, seed=0), None, compiled.place(batch), ScheduleInputs(0.0, 1.0)
    )
    moved = jax.tree.map(
        lambda before, after: before - after, start, jax.device_get(state.params["model"])
    )
    largest = max(float(np.max(np.abs(gradient))) for gradient in jax.tree.leaves(whole))
    sums = {"summands": tiny.SHAPE.batch_size * tiny.SHAPE.seq_len, "stages": 20, "size": largest}
    assert_sums_equal(moved, whole, **sums)
    # The other mean is outside the tolerance: the test tells them apart.
    with pytest.raises(AssertionError, match="tolerance"):
        assert_sums_equal(mean_of_means, whole, **sums)


@pytest.mark.parametrize(
    "name", [exhaustive("scratch"), exhaustive("logit"), exhaustive("tinybert"), "minilm"]
)
def test_step_equals_reference_program(name: str) -> None:
    """The program that is priced gives the same parameters, the same figures, and drops the same
    units."""
    student = dataclasses.replace(phase(name).student_config, dropout=0.2, attention_dropout=0.0)
    (only,) = resolve(name, ArmConfig(), student, TEACHER, OptimizerConfig()).phases
    trainable = by_gradient(only)
    rng = np.random.default_rng(0)

    # Random parameters all over: zeros of the start would hide terms.
    def drawn(shapes: Any) -> Any:
        return jax.tree.map(lambda x: rng.normal(0.1, 0.3, x.shape).astype(np.float32), shapes)

    params = drawn(trainable.abstract_params())
    target = drawn(trainable.abstract_teacher())
    state = init_state(params, trainable.transformation, 3)

    def stepped() -> Any:
        step = jax.jit(trainable.build_step(dropout_impl=REFERENCE_DROPOUT))
        after, metrics = step(state, target, tiny.batch(5), ScheduleInputs(0.0, 1.0))
        return jax.tree.map(np.subtract, params, after.params), metrics

    # Once in reference forms, once in optimized ones.
    with trace_reference():
        want = stepped()
    share = rounding(tiny.SHAPE.batch_size * tiny.SHAPE.seq_len, stages=20)
    # Where all that is summed cancels, as in the gradient of a key's bias, the sum says nothing of
    # its size.
    least = 0.05 * max(float(np.linalg.norm(leaf)) for leaf in jax.tree.leaves(want))
    for got, expected in zip(jax.tree.leaves(stepped()), jax.tree.leaves(want), strict=True):
        assert np.linalg.norm(got - expected) <= share * max(float(np.linalg.norm(expected)), least)


@pytest.mark.parametrize("name", [exhaustive("logit"), exhaustive("tinybert"), "minilm"])
def test_step_keeps_teacher_bitwise_and_out_of_state(name: str) -> None:
    # The teacher went through twenty steps.
    _, _, after = run(name, 8)
    before = tiny.spread(tiny.params(TEACHER, 9))
    assert largest_difference(after, {part: before[part] for part in after}) == 0
    # The state holds the student's word table and not the teacher's.
    state = jax.eval_shape(
        lambda p: init_state(p, phase(name).transformation, 0), phase(name).abstract_params()
    )
    shapes = {leaf.shape for leaf in jax.tree.leaves(state)}
    assert (tiny.VOCABULARY, tiny.STUDENT.width) in shapes
    assert (tiny.VOCABULARY, tiny.TEACHER.width) not in shapes


def test_params_without_gradient_do_not_decay() -> None:
    start = tiny.spread(tiny.params(phase("minilm").student_config, 0))
    params, _, _ = run("minilm", 1)
    # MiniLM's last layer stops at its relations: nothing behind them has a gradient.
    untouched = ("mlm",), ("layers", "2", "ffn"), ("layers", "2", "attention", "output")
    for path in untouched:
        before = start
        after = params["model"]
        for key in path:
            before = before[key]
            after = after[key]
        assert largest_difference(before, after) == 0
    # Below them everything has moved.
    assert largest_difference(start["layers"]["1"], params["model"]["layers"]["1"]) > 0


def test_state_has_the_paths_of_stored_checkpoints() -> None:
    params = {"model": {"kernel": jnp.ones(2)}}
    state = init_state(params, optax.trace(0.9), 0)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert paths == [
        ".step",
        ".seed",
        ".params['model']['kernel']",
        ".opt.trace['model.kernel']",
    ]
    # Through a pytree and back the fields are where they were.
    doubled = jax.tree.map(lambda x: 2 * x, dataclasses.replace(state, step=jnp.int32(3)))
    assert doubled.step == 6
    np.testing.assert_array_equal(doubled.opt.trace["model.kernel"], np.zeros(2))


def test_decay_spares_biases_and_norms() -> None:
    params = tiny.phase("scratch").abstract_params()
    # Biases and norms are named so in every module.
    for path, decayed in jax.tree_util.tree_leaves_with_path(weight_decay_mask(params)):
        assert decayed == (path[-1].key not in ("bias", "scale")), path
    # Flat parameters and a tree are told apart in the same way.
    assert list(weight_decay_mask(flatten(params)).values()) == jax.tree.leaves(
        weight_decay_mask(params)
    )


def test_params_without_gradient_cost_no_update() -> None:
    minilm = tiny.phase("minilm", teacher=TEACHER)
    trainable, frozen = partition(minilm.abstract_params(), minilm.gradient_mask)
    assert "model.mlm.dense.kernel" in frozen
    # An update costs the same for each parameter that is trained.
    trained_size = sum(leaf.size for leaf in trainable.values())
    frozen_size = sum(leaf.size for leaf in frozen.values())
    of_all = price(tiny.phase("scratch"), tiny.SHAPE).optimizer / (trained_size + frozen_size)
    assert price(minilm, tiny.SHAPE).optimizer / trained_size == pytest.approx(of_all, rel=0.02)


def test_term_of_weight_zero_costs_nothing() -> None:
    terms = (TermConfig("mlm"), TermConfig("logit", weight=0.0))
    arm = resolve(
        "mine",
        ArmConfig(terms=terms),
        tiny.STUDENT,
        tiny.TEACHER,
        OptimizerConfig(learning_rate=1e-2),
    )
    # Neither the teacher's forward pass nor the term itself is paid for.
    assert not arm.uses_teacher
    assert price(arm.phases[0], tiny.SHAPE) == price(tiny.phase("scratch"), tiny.SHAPE)


def test_batch_that_devices_do_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of the 8 parts"):
        Program(tiny.phase(), BatchShape(12, 12, 3), Layout.from_config())
