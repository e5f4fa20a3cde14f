"""A teacher that reads tokens of its own: its states, its price, and the step on any mesh."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.budget.price import count_program_flops
from kdjax.config import ArmConfig, CacheConfig, OptimizerConfig, StartConfig, TermConfig
from kdjax.errors import InputError
from kdjax.models import abstract_params, forward
from kdjax.models.features import FeatureRequest
from kdjax.parallel.layout import Layout
from kdjax.training.arm import Arm, resolve
from kdjax.training.phase import BatchShape
from kdjax.training.phase_price import price
from kdjax.training.program import Program
from kdjax.training.teacher.source import CachedTeacher, OnlineTeacher
from tests.support import tiny
from tests.support.tolerance import assert_metrics_equal, assert_updates_equal

OWN_LENGTH = 20
TEACHER = dataclasses.replace(tiny.SHALLOW_TEACHER, vocab_size=31)
REQUEST = FeatureRequest(hidden=frozenset({0, 2}))
TERMS = (TermConfig("mlm"), TermConfig("hidden_mse", options={"layers": "last"}))


def own_arm(**settings: Any) -> Arm:
    config = ArmConfig(**{"terms": TERMS, **settings})
    optimizer = OptimizerConfig(learning_rate=1e-2)
    return resolve(
        "words", config, tiny.SHALLOW_STUDENT, TEACHER, optimizer, CacheConfig(), OWN_LENGTH
    )


def own_batch(seed: int) -> dict[str, np.ndarray]:
    """Make a batch whose words have one or two tokens on either side."""
    rng = np.random.default_rng(seed)
    batch = tiny.batch(seed)
    rows, length = batch["segments"].shape
    begins = rng.random((rows, length)) < 0.7
    begins |= np.diff(batch["segments"], axis=1, prepend=-1) != 0
    words = (np.cumsum(begins, axis=1) * batch["valid"]).astype(np.int32)
    tokens = np.zeros((rows, OWN_LENGTH), np.int32)
    segments = np.zeros_like(tokens)
    positions = np.zeros_like(tokens)
    teacher_words = np.zeros_like(tokens)
    word_segments = np.zeros((rows, length), np.int32)
    for row in range(rows):
        place = 0
        for word in range(1, words[row].max() + 1):
            segment = batch["segments"][row, words[row] == word][0]
            word_segments[row, word - 1] = segment
            room = OWN_LENGTH - place - (words[row].max() - word)
            for _ in range(min(room, int(rng.integers(1, 3)))):
                tokens[row, place] = rng.integers(0, TEACHER.vocab_size)
                segments[row, place] = segment
                positions[row, place] = (segments[row, :place] == segment).sum()
                teacher_words[row, place] = word
                place += 1
    return {
        **batch,
        "words": words,
        "word_segments": word_segments,
        "teacher.tokens": tokens,
        "teacher.segments": segments,
        "teacher.positions": positions,
        "teacher.words": teacher_words,
    }


def test_states_of_own_tokens_are_means_over_words_also_where_stored() -> None:
    batch = own_batch(0)
    params = tiny.params(TEACHER, 9)
    source = OnlineTeacher(TEACHER, OWN_LENGTH)
    states = jax.jit(source.forward(REQUEST))(params, batch)
    own = {name: batch[f"teacher.{name}"] for name in ("tokens", "segments", "positions")}
    tokens = jax.jit(lambda p, b: forward(TEACHER, p, b, REQUEST))(params, own)
    for layer in REQUEST.hidden:
        expected = np.zeros((8, 12, TEACHER.width))
        for row, words in enumerate(batch["teacher.words"]):
            for word in range(1, words.max() + 1):
                expected[row, word - 1] = np.mean(tokens.hidden[layer][row, words == word], axis=0)
        np.testing.assert_allclose(states.hidden[layer], expected, rtol=1e-5, atol=1e-6)
    # What is stored is of words, as long as the student's sequence.
    stored = CachedTeacher(TEACHER, REQUEST, CacheConfig(dtype="float32"), OWN_LENGTH)
    (field, _) = stored.stored_fields(12, 3)
    assert field.shape == (12, TEACHER.width)
    read_back = stored.read(stored.encode(states, np.arange(8)), REQUEST)
    np.testing.assert_array_equal(read_back.hidden[2], states.hidden[2])


def test_price_has_the_teacher_at_its_own_length_and_both_means() -> None:
    shape = tiny.SHAPE
    (phase,) = own_arm(terms=TERMS[1:]).phases
    (shared,) = resolve(
        "shared",
        ArmConfig(terms=TERMS[1:]),
        tiny.SHALLOW_STUDENT,
        tiny.SHALLOW_TEACHER,
        OptimizerConfig(),
    ).phases
    cost = price(phase, shape)
    same_tokens = price(shared, shape)
    # The teacher as over a batch of that length, and a product with a matrix [W, L_t] of zeros and
    # ones, with its making: a comparison, a sum, a choice, a division.
    longer = BatchShape(shape.batch_size, OWN_LENGTH, shape.max_predictions).abstract()
    request = FeatureRequest(hidden=frozenset({2}))
    plain = count_program_flops(
        lambda p, b: forward(TEACHER, p, b, request), abstract_params(TEACHER, mlm=False), longer
    ).flops
    rows = shape.batch_size
    words = shape.seq_len
    product = 2 * rows * words * OWN_LENGTH * TEACHER.width
    making = rows * (2 * words * OWN_LENGTH + OWN_LENGTH * TEACHER.width + words * TEACHER.width)
    assert cost.teacher_forward == pytest.approx(plain + product + making, rel=0.01)
    # The student's means: forward, and back to its states.
    width = tiny.SHALLOW_STUDENT.width
    pooled = cost.objective - same_tokens.objective
    assert pooled == pytest.approx(2 * 2 * rows * words * words * width, rel=0.2)
    assert cost.student_forward == pytest.approx(same_tokens.student_forward, rel=0.01)


@functools.cache
def stepped(lanes: int, first: int, devices: int, grad_accum_steps: int) -> tuple[Any, Any]:
    """Return parameters and metrics of some seeds after two steps."""
    (phase,) = own_arm().phases
    layout = Layout.from_config(devices=jax.devices()[:devices])
    program = Program(phase, tiny.SHAPE, layout, grad_accum_steps=grad_accum_steps, lanes=lanes)
    teacher = program.place_teacher(tiny.spread(tiny.params(TEACHER, 9)))
    seeds = range(first, first + lanes)
    start = [program.start(tiny.params(phase.student_config, seed), seed) for seed in seeds]
    states = program.stack(start)
    for step in range(2):
        batches = program.stack_batches([own_batch(10 * seed + step) for seed in seeds])
        inputs = tiny.schedule_inputs(phase, step, 5)
        states, metrics = program.step(states, teacher, program.place(batches), inputs)
    params = [jax.device_get(program.unstack(states, lane).params) for lane in range(lanes)]
    by_lane = []
    for lane in range(lanes):
        by_lane.append({name: float(np.ravel(each)[lane]) for name, each in metrics.items()})
    return params, by_lane


def test_step_in_lanes_parts_and_on_a_mesh_equals_step_alone() -> None:
    params, metrics = stepped(2, 0, 4, 2)
    (alone,), (expected,) = stepped(1, 1, 1, 1)
    tokens = tiny.SHAPE.batch_size * OWN_LENGTH
    assert_metrics_equal(metrics[1], expected, summands=tokens, stages=40)
    start = {"model": tiny.params(tiny.SHALLOW_STUDENT, 1)}
    assert_updates_equal(
        {"model": params[1]["model"]}, {"model": alone["model"]}, start, summands=tokens, stages=40
    )


def test_start_from_a_teacher_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"arms\.words: start\.source is 'teacher' under data\.tea"
    ):
        own_arm(start=StartConfig("teacher", "last"))


def test_stored_outputs_of_own_tokens_are_read_by_the_arm() -> None:
    (phase,) = own_arm(teacher="cached").phases
    batch = phase.abstract_batch(tiny.SHAPE)
    assert batch["teacher.hidden.2"].shape == (8, 12, TEACHER.width)
    assert batch["words"].shape == (8, 12)
    assert "teacher.tokens" not in batch
    phase.check_splits()
