"""The held-out loss is the weighted mean over masked slots, and so is the distance to a teacher."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.evaluation import mlm
from kdjax.evaluation.mlm import HeldOut, MlmResult, held_out_loss
from kdjax.models import Model, abstract_params, forward
from kdjax.models.features import FeatureRequest
from tests.support import tiny
from tests.support.compilations import compilations

Batch = dict[str, np.ndarray]


def peaked(config: ModelConfig, seed: int, factor: float, bias: float) -> Model:
    """Make a model that prefers a few tokens, so that two such models agree at some slots."""
    rng = np.random.default_rng(seed)

    # Enlarged scales and matrices make its distributions far from even.
    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "scale":
            return np.full(leaf.shape, factor, np.float32)
        if path[-1].key == "bias":
            return np.zeros(leaf.shape, np.float32)
        return factor * rng.normal(0, 0.02, leaf.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, abstract_params(config))
    # A few tokens are liked by every model made so, which is where two models agree.
    liked = np.where(np.arange(config.vocab_size) % 18 == 5, np.float32(bias), 0)
    return Model(config, {**params, "mlm": {**params["mlm"], "bias": liked}})


PARAMS = peaked(tiny.STUDENT, 0, factor=20, bias=60).params
TEACHER = peaked(tiny.TEACHER, 1, factor=10, bias=20)


@functools.cache
def _logits(config: ModelConfig) -> Callable[[Any, Batch], jax.Array]:
    return jax.jit(
        lambda params, batch: forward(config, params, batch, FeatureRequest(logits=True)).logits
    )


def log_probs(model: Model, batch: Batch) -> np.ndarray:
    """Compute log-probabilities in NumPy float64, from the logits."""
    logits = np.asarray(_logits(model.config)(model.params, batch), np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def unequal(seed: int, rows: int = 8) -> Batch:
    """Make a batch with unused slots, unequal weights, and only the first `rows` rows in use."""
    batch = tiny.batch(seed)
    weights = np.random.default_rng([seed, 1]).uniform(0.2, 3, batch["label_weights"].shape)
    used = (batch["label_weights"] > 0) & (np.arange(len(weights)) < rows)[:, None]
    # Unused slots lie among those in use, as well as behind them.
    assert (~used[:rows]).any()
    padded = {
        name: np.where((np.arange(8) < rows)[:, None], values, 0) for name, values in batch.items()
    }
    return {
        **{name: values.astype(batch[name].dtype) for name, values in padded.items()},
        "label_weights": np.where(used, weights, 0).astype(np.float32),
    }


def expected(batches: list[Batch]) -> tuple[float, float, int]:
    """Compute cross-entropy and accuracy in NumPy float64, slot by slot."""
    loss = hits = weight = 0.0
    count = 0
    for batch in batches:
        logits = np.asarray(
            forward(tiny.STUDENT, PARAMS, batch, FeatureRequest(logits=True)).logits, np.float64
        )
        for row, labels, weights in zip(
            logits, batch["labels"], batch["label_weights"], strict=True
        ):
            for scores, label, w in zip(row, labels, weights, strict=True):
                # The largest score is taken off, so that no exponential overflows.
                top = scores.max()
                loss += w * (top + np.log(np.exp(scores - top).sum()) - scores[label])
                hits += w * (scores.argmax() == label)
                weight += w
                count += w > 0
    return loss / weight, hits / weight, count


def test_held_out_loss_equals_numpy_cross_entropy() -> None:
    batches = [tiny.batch(seed) for seed in range(3)]
    # Twice and three times the weight in later batches.
    weighted = [{**b, "label_weights": b["label_weights"] * (1 + n)} for n, b in enumerate(batches)]
    for held_out_batches in (batches, weighted):
        measured = held_out_loss(tiny.STUDENT, PARAMS, held_out_batches)
        loss, accuracy, count = expected(held_out_batches)
        assert measured.loss == pytest.approx(loss, rel=1e-5)
        assert measured.accuracy == pytest.approx(accuracy)
        assert measured.count == count


def test_accuracy_of_argmax_labels_is_one() -> None:
    batch = tiny.batch()
    logits = forward(tiny.STUDENT, PARAMS, batch, FeatureRequest(logits=True)).logits
    # With its own best guesses for labels the model is always right.
    measured = held_out_loss(
        tiny.STUDENT,
        PARAMS,
        [{**batch, "labels": np.argmax(logits, -1).astype(np.int32)}],
    )
    assert measured.accuracy == 1
    assert measured.loss < held_out_loss(tiny.STUDENT, PARAMS, [batch]).loss


def test_unused_slots_change_no_loss() -> None:
    batch = tiny.batch()
    unused = batch["label_weights"] == 0
    # Else the change below would touch nothing.
    assert unused.any()
    changed = {
        **batch,
        "labels": np.where(unused, (batch["labels"] + 7) % tiny.VOCABULARY, batch["labels"]),
        "slots": np.where(unused, 0, batch["slots"]),
    }
    assert held_out_loss(tiny.STUDENT, PARAMS, [changed]) == held_out_loss(
        tiny.STUDENT, PARAMS, [batch]
    )


def test_padded_rows_change_no_loss() -> None:
    batch = tiny.batch()
    padded = {
        name: np.concatenate([values, np.zeros_like(values)]) for name, values in batch.items()
    }
    padded_loss = held_out_loss(tiny.STUDENT, PARAMS, [padded])
    plain_loss = held_out_loss(tiny.STUDENT, PARAMS, [batch])
    # Sequences of padding have no slot in use.
    assert padded_loss.count == plain_loss.count
    assert padded_loss.loss == pytest.approx(plain_loss.loss, rel=1e-6)


def test_loss_weighs_batches_by_their_slots() -> None:
    full = tiny.batch(0)
    sparse = tiny.batch(1)
    sparse["label_weights"] = np.zeros_like(sparse["label_weights"])
    # One slot against all of a batch.
    sparse["label_weights"][0, 0] = 1
    measured = held_out_loss(tiny.STUDENT, PARAMS, [full, sparse])
    parts = [held_out_loss(tiny.STUDENT, PARAMS, [b]) for b in (full, sparse)]
    # The mean is over slots: a mean of the batches' means would weigh the one like all others.
    assert measured.count == parts[0].count + 1
    assert measured.loss == pytest.approx(
        sum(p.loss * p.count for p in parts) / measured.count, rel=1e-6
    )


def test_many_models_compile_once() -> None:
    # Drawn before anything is counted: parameters drawn in an earlier file of tests are not drawn
    # again, so that the first call need not compile what draws the later ones.
    drawn = [tiny.params(tiny.STUDENT, seed) for seed in range(4)]

    def measure(number: int) -> None:
        batches = [tiny.batch(number), tiny.batch(number + 1)]
        held_out_loss(tiny.STUDENT, drawn[number], batches)
        HeldOut(batches, TEACHER).measure(tiny.STUDENT, drawn[number])

    # The first call compiles all programs.
    measure(0)
    with compilations() as later:
        for number in range(1, 4):
            measure(number)
    assert later == []


def test_batches_without_masked_slot_are_refused() -> None:
    batch = tiny.batch()
    with pytest.raises(InputError, match="no masked slot"):
        held_out_loss(
            tiny.STUDENT,
            PARAMS,
            [{**batch, "label_weights": np.zeros_like(batch["label_weights"])}],
        )
    # Neither is a batch without slots, nor no batch at all.
    with pytest.raises(InputError, match="no masked slot"):
        held_out_loss(tiny.STUDENT, PARAMS, [])


def test_diverged_model_is_refused() -> None:
    broken = jax.tree.map(lambda x: x * np.nan, PARAMS)
    with pytest.raises(InputError, match="held-out MLM loss: found nan"):
        held_out_loss(tiny.STUDENT, broken, [tiny.batch()])


def test_kl_and_agreement_equal_numpy_at_used_slots() -> None:
    batches = [unequal(0), unequal(1, rows=5)]
    student = Model(tiny.STUDENT, PARAMS)
    # Slot by slot, weighted, in float64.
    kl = same = weight = 0.0
    for batch in batches:
        student_log_probs = log_probs(student, batch)
        target = log_probs(TEACHER, batch)
        for row, slot in zip(*np.nonzero(batch["label_weights"]), strict=True):
            s = student_log_probs[row, slot]
            t = target[row, slot]
            w = float(batch["label_weights"][row, slot])
            kl += w * sum(np.exp(a) * (a - b) for a, b in zip(t, s, strict=True))
            same += w * (s.argmax() == t.argmax())
            weight += w
    measured = HeldOut(batches, TEACHER).measure(*student)
    # The models agree at some slots and differ at others.
    assert 0.1 < same / weight < 0.9
    assert measured.kl == pytest.approx(kl / weight, rel=1e-5)
    assert measured.agreement == pytest.approx(same / weight, rel=1e-6)


def test_teacher_leaves_loss_and_is_measured_like_a_student() -> None:
    batches = [unequal(0), unequal(1, rows=5)]
    held_out = HeldOut(batches, TEACHER)
    measured = held_out.measure(tiny.STUDENT, PARAMS)
    without_teacher = held_out_loss(tiny.STUDENT, PARAMS, batches)
    # The student's loss is as without a teacher.
    assert (measured.loss, measured.accuracy) == pytest.approx(
        (without_teacher.loss, without_teacher.accuracy), rel=1e-6
    )
    assert measured.count == without_teacher.count
    # The teacher is measured on the same batches.
    teacher_loss = held_out_loss(*TEACHER, batches)
    assert (held_out.teacher.loss, held_out.teacher.accuracy) == pytest.approx(
        (teacher_loss.loss, teacher_loss.accuracy), rel=1e-6
    )
    assert held_out.teacher.count == teacher_loss.count
    # It has no distance to itself on record.
    assert held_out.teacher.kl is None
    assert held_out.teacher.agreement is None


def test_kl_of_teacher_to_itself_is_zero() -> None:
    measured = HeldOut([unequal(0), unequal(1, rows=5)], TEACHER).measure(*TEACHER)
    assert measured.kl == pytest.approx(0, abs=1e-5)
    assert measured.agreement == 1


@pytest.mark.parametrize("padded", ["model", "teacher"])
def test_kl_is_over_the_entries_that_a_padded_vocabulary_shares(padded: str) -> None:
    rng = np.random.default_rng(0)
    logits = {name: rng.normal(size=(2, 3, 53)) for name in ("model", "teacher")}
    # Entries that no token has may come to anything.
    unused = np.full((2, 3, 3), 4.0)
    given = {**logits, padded: np.concatenate([logits[padded], unused], axis=-1)}
    log_probs = {name: jnp.asarray(log_softmax(values)) for name, values in given.items()}
    batch = {
        "labels": jnp.zeros((2, 3), jnp.int32),
        "label_weights": jnp.ones((2, 3), jnp.float32),
    }
    sums = mlm.sum_over_slots(log_probs["model"], batch, log_probs["teacher"])
    expected = entropy(softmax(logits["teacher"], -1), softmax(logits["model"], -1), axis=-1).sum()
    assert float(sums["kl"]) == pytest.approx(expected, rel=1e-5)


def test_infinite_logits_at_unused_slots_change_nothing() -> None:
    # Position 23 is where unused rows are put below.
    def broken_at_23(params: dict[str, Any]) -> dict[str, Any]:
        position = np.array(params["embeddings"]["position"]["embedding"])
        position[23] = np.inf
        return {
            **params,
            "embeddings": {**params["embeddings"], "position": {"embedding": position}},
        }

    batch = unequal(0, rows=5)
    broken = {
        **batch,
        "positions": np.where((np.arange(8) < 5)[:, None], batch["positions"], 23).astype(np.int32),
    }
    student = Model(tiny.STUDENT, broken_at_23(PARAMS))
    teacher = Model(TEACHER.config, broken_at_23(TEACHER.params))
    # The logits are infinite there, or the test would show nothing.
    for model in (student, teacher):
        finite = np.isfinite(_logits(model.config)(model.params, broken)).all(-1)
        assert finite[:5].all()
        assert not finite[5:].any()
    # All results are equal to the bit.
    assert HeldOut([broken], teacher).measure(*student) == HeldOut([batch], TEACHER).measure(
        tiny.STUDENT, PARAMS
    )
    assert HeldOut([broken], teacher).teacher == HeldOut([batch], TEACHER).teacher


def test_other_batching_gives_same_result() -> None:
    first_batch = unequal(0)
    second_batch = unequal(1)
    joined = {
        name: np.concatenate([values, second_batch[name]]) for name, values in first_batch.items()
    }
    order = np.random.default_rng(0).permutation(16)

    def measure(*batches: np.ndarray) -> tuple[float, ...]:
        """Measure on batches of these rows, each filled up with padding."""
        padded = []
        for rows in batches:
            missing = [(0, 8 - len(rows)), (0, 0)]
            padded.append({name: np.pad(v[rows], missing) for name, v in joined.items()})
        return dataclasses.astuple(HeldOut(padded, TEACHER).measure(tiny.STUDENT, PARAMS))

    # Rows dealt to batches in another order, and to three of unequal size.
    first = measure(np.arange(8), np.arange(8, 16))
    assert measure(order[:8], order[8:]) == pytest.approx(first, rel=1e-5)
    assert measure(order[:8], order[8:11], order[11:]) == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize(
    "teacher", [None, Model(tiny.TEACHER, {k: v for k, v in TEACHER.params.items() if k != "mlm"})]
)
def test_teacher_without_mlm_head_gives_no_kl(
    teacher: Model | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlm, "predict_teacher", None)  # fails when called
    held_out = HeldOut([tiny.batch()], teacher)
    assert held_out.teacher is None
    measured = held_out.measure(tiny.STUDENT, PARAMS)
    assert measured == held_out_loss(tiny.STUDENT, PARAMS, [tiny.batch()])
    assert measured == MlmResult(
        measured.loss, measured.accuracy, measured.count, kl=None, agreement=None
    )


def test_teacher_runs_once_when_first_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    predict = mlm.predict_teacher

    def recorded(*arguments: Any) -> Any:
        calls.append(arguments)
        return predict(*arguments)

    monkeypatch.setattr(mlm, "predict_teacher", recorded)
    held_out = HeldOut([tiny.batch(0), tiny.batch(1)], TEACHER)
    # Nothing runs until it is asked for.
    assert not calls
    for _ in range(2):
        held_out.measure(tiny.STUDENT, PARAMS)
        assert held_out.teacher is not None
    # Two batches, each through the teacher once; the second measurement reads what is kept.
    assert len(calls) == 2


def test_other_vocabulary_is_refused_before_teacher_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlm, "predict_teacher", None)
    config = dataclasses.replace(tiny.STUDENT, vocab_size=60)
    larger = Model(config, tiny.params(config, 0))
    with pytest.raises(
        InputError, match="the model has 60 vocabulary entries, expected the teacher's 53"
    ):
        HeldOut([tiny.batch()], TEACHER).measure(*larger)


def test_diverged_teacher_is_refused_by_name() -> None:
    broken = Model(tiny.TEACHER, jax.tree.map(lambda x: x * np.nan, TEACHER.params))
    held_out = HeldOut([tiny.batch()], broken)
    with pytest.raises(
        InputError, match="the teacher's held-out MLM loss: found nan, expected a finite number"
    ):
        held_out.measure(tiny.STUDENT, PARAMS)
    with pytest.raises(InputError, match="the teacher's held-out MLM loss"):
        _ = held_out.teacher
