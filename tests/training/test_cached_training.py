"""Learning from stored outputs: exact ones train as the teacher itself does; of the others the bias
is known."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.budget.price import Price
from kdjax.config import ArmConfig, OptimizerConfig, TermConfig
from kdjax.data.loader import Batches
from kdjax.data.masking import MaskSettings
from kdjax.parallel.layout import Layout
from kdjax.training.arm import Arm, resolve
from kdjax.training.phase_price import price
from kdjax.training.program import Program
from kdjax.training.teacher_cache import fill as cache
from kdjax.training.teacher_cache.manifest import CacheManifest, bias
from kdjax.training.teacher_cache.store import Cache
from tests.support import tiny
from tests.support.stored import (
    BOTH,
    EXACT,
    SAMPLED,
    SHAPE,
    TEACHER,
    TOP_K,
    Text,
    build,
    everything,
    prepared,
    records,
    teacher,
)

Array = np.ndarray
STUDENT = dataclasses.replace(tiny.STUDENT, layers=1)
STEPS = 10
BOTH_TERMS = (TermConfig("mlm"), TermConfig("logit"), TermConfig("hidden_mse"))
ARMS = {
    "both": ArmConfig(terms=BOTH_TERMS),
    "logit": ArmConfig(),
    "hidden": ArmConfig(terms=(TermConfig("hidden_mse"),)),
}
EACH = [
    "both",
    *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("logit", "hidden")),
]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    corpus = prepared(tmp_path_factory.mktemp("text"))
    # The steps pass into the second epoch
    assert SHAPE.batch_size < corpus.sequences < SHAPE.batch_size * STEPS
    return corpus


@pytest.fixture(scope="module")
def exact(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of what both arms ask for."""
    directory = tmp_path_factory.mktemp("exact")
    build(directory, text, BOTH)
    return directory


@functools.cache
def untrained() -> Any:
    return tiny.params(STUDENT, 0)


@functools.cache
def arm(name: str, source: str) -> Arm:
    config = dataclasses.replace(ARMS[name], teacher=source)
    # A larger epsilon, or Adam makes steps out of the rounding of gradients that are 0.
    settings = OptimizerConfig(learning_rate=1e-2, eps=1e-3)
    return resolve(name, config, STUDENT, TEACHER, settings, EXACT)


@functools.cache
def priced(name: str, source: str) -> Price:
    return price(arm(name, source).phases[0], SHAPE)


def trained(
    name: str, source: str, stored: Cache | None, text: Text
) -> tuple[Any, list[dict[str, float]], Any]:
    """Train ten steps; return the final parameters, the losses, and what the compiled step took for
    a teacher."""
    (phase,) = arm(name, source).phases
    program = Program(phase, SHAPE, Layout.from_config(devices=jax.devices()[:1]))
    placed_teacher = program.place_teacher(teacher().params)
    state = program.start(untrained(), seed=3)
    # Both ways read the same sequences with the same masks.
    data = text.data
    stream = Batches(
        text.corpus,
        batch_size=8,
        seed=1,
        mask_settings=MaskSettings.from_config(data),
        mask_copies=data.mask_copies,
        cache=stored,
    )
    losses = []
    for step, (_, batch) in enumerate(itertools.islice(stream.iterate(0), STEPS)):
        state, metrics = program.step(
            state, placed_teacher, program.place(batch), tiny.schedule_inputs(phase, step, STEPS)
        )
        losses.append({key: float(value) for key, value in metrics.items()})
    return jax.device_get(state.params), losses, placed_teacher


@pytest.mark.parametrize("name", EACH)
def test_training_on_exact_cache_equals_online_teacher(name: str, text: Text, exact: Path) -> None:
    stored = cache.open_cache(
        exact, teacher(), arm(name, "cached").stored_features, EXACT, text.data, text.corpus
    )
    # A step on stored outputs takes no teacher, and the other one does.
    params, losses, start = trained(name, "cached", stored, text)
    wanted, online, its = trained(name, "online", None, text)
    assert start is None
    assert its is not None
    # Losses and parameters are the same, step by step.
    for cached_loss, online_loss in zip(losses, online, strict=True):
        assert cached_loss == pytest.approx(online_loss, abs=1e-6, rel=1e-5)
    for (path, leaf), online_leaf in zip(
        jax.tree.leaves_with_path(params), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_allclose(
            leaf, online_leaf, rtol=0, atol=1e-6, err_msg=jax.tree_util.keystr(path)
        )
    # And the runs did learn something, or they would agree for nothing.
    assert losses[-1]["loss"] < losses[0]["loss"]
    before = untrained()["layers"]["1"]["ffn"]["up"]["kernel"]
    assert np.abs(params["model"]["layers"]["1"]["ffn"]["up"]["kernel"] - before).max() > 1e-3


@pytest.mark.parametrize("name", EACH)
def test_step_on_stored_outputs_has_no_teacher_forward(name: str) -> None:
    online = priced(name, "online")
    stored = priced(name, "cached")
    # The teacher is read, not run; the student computes the same.
    assert stored.teacher_forward <= 1e-3 * online.teacher_forward
    assert stored.student_forward == pytest.approx(online.student_forward, rel=1e-3)
    assert online.total - stored.total == pytest.approx(online.teacher_forward, rel=0.01)


def log_softmax(logits: Array) -> Array:
    shifted = np.asarray(logits, np.float64) - np.max(logits, -1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def off(log_p: Array, q: Array) -> dict[str, float]:
    """Compute the means over positions by their definitions. log_p, q: `[positions, V]`."""
    p = np.exp(log_p)
    # Total variation, entropy, and by how much the cross-entropy is off.
    return {
        "total_variation": np.abs(p - q).sum(-1).mean() / 2,
        "entropy": -(p * log_p).sum(-1).mean(),
        "entropy_error": (-(q * log_p).sum(-1) + (p * log_p).sum(-1)).mean(),
    }


def positions(text: Text) -> tuple[Array, Array]:
    """Return log-probabilities of all masked positions `[positions, V]`, and where those are among
    all slots."""
    _, logits, weights = everything(text)
    there = weights > 0
    assert 0 < there.sum() < there.size
    return log_softmax(logits[there]), there


def test_top_k_bias_equals_numpy(text: Text, tmp_path: Path) -> None:
    manifest = build(tmp_path, text, config=TOP_K)
    log_p, there = positions(text)
    stored = {name: x[there] for name, x in records(tmp_path, text).items()}
    ids = stored["teacher.logits.ids"].astype(int)
    # The largest entries are the ones stored.
    np.testing.assert_array_equal(np.sort(ids), np.sort(np.argsort(-log_p)[:, : TOP_K.k]))
    # What is read back: their probabilities, and the rest spread evenly.
    rest = np.exp(stored["teacher.logits.log_rest"].astype(float)) / (tiny.VOCABULARY - TOP_K.k)
    q = np.repeat(rest[:, None], tiny.VOCABULARY, axis=1)
    np.put_along_axis(q, ids, np.exp(stored["teacher.logits.log_probs"].astype(float)), axis=1)
    q /= q.sum(-1, keepdims=True)  # they were rounded to float16
    kl = (np.exp(log_p) * (log_p - np.log(q))).sum(-1).mean()
    actual = bias(manifest)
    assert actual == pytest.approx({**off(log_p, q), "kl": kl}, rel=1e-3)
    # The bias is large enough for the comparison to say something.
    assert actual["entropy_error"] > 0.3
    assert actual["kl"] > 0.1


def test_draws_bias_equals_numpy_and_is_near_zero(text: Text, tmp_path: Path) -> None:
    manifest = build(tmp_path, text, config=SAMPLED)
    log_p, there = positions(text)
    ids = records(tmp_path, text)["teacher.logits.ids"][there]
    # The draws' frequencies are what is read back.
    q = np.stack([np.bincount(row, minlength=tiny.VOCABULARY) for row in ids]) / SAMPLED.k
    actual = bias(manifest)
    assert actual == pytest.approx(off(log_p, q), rel=1e-3, abs=1e-4)
    # The variance of one draw's surprise tells how far the mean of all may be off.
    p = np.exp(log_p)
    variance = (p * log_p**2).sum(-1) - (p * log_p).sum(-1) ** 2
    sigma = np.sqrt(variance.sum() / SAMPLED.k) / len(p)
    assert sigma < 0.03
    assert abs(actual["entropy_error"]) < 5 * sigma
    assert actual["total_variation"] > 0.05  # the draws of a single position are off


def test_whole_logits_have_no_bias(exact: Path) -> None:
    assert bias(CacheManifest.read(exact)) == {}
