"""The held-out loss is the weighted mean over masked slots, and so is the distance to a teacher."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.evaluation import mlm
from kdjax.evaluation.mlm import HeldOut, MlmResult, held_out_loss
from kdjax.models import Model, abstract_params, forward
from kdjax.models.features import FeatureRequest
from tests import tiny


def peaked(config, seed, factor, bias):
    """A model far from uniform predictions, fond of a few tokens, so that two such models agree at
    some slots."""
    rng = np.random.default_rng(seed)

    def drawn(path, leaf):
        if path[-1].key in ("scale", "bias"):
            return np.full(leaf.shape, factor if path[-1].key == "scale" else 0, np.float32)
        return factor * rng.normal(0, 0.02, leaf.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(drawn, abstract_params(config))
    liked = np.where(np.arange(config.vocab_size) % 18 == 5, np.float32(bias), 0)
    return Model(config, {**params, "mlm": {**params["mlm"], "bias": liked}})


PARAMS = peaked(tiny.STUDENT, 0, factor=20, bias=60).params
TEACHER = peaked(tiny.TEACHER, 1, factor=10, bias=20)


@functools.cache
def _logits(config):
    return jax.jit(
        lambda params, batch: forward(config, params, batch, FeatureRequest(logits=True)).logits
    )


def log_probs(model, batch):
    """Log-probabilities in NumPy float64, from the logits."""
    logits = np.asarray(_logits(model.config)(model.params, batch), np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def unequal(seed, rows=8):
    """A batch with unused slots, unequal weights, and only the first `rows` rows in use."""
    batch = tiny.batch(seed)
    weights = np.random.default_rng([seed, 1]).uniform(0.2, 3, batch["label_weights"].shape)
    used = (batch["label_weights"] > 0) & (np.arange(len(weights)) < rows)[:, None]
    assert (~used[:rows]).any()
    padded = {
        name: np.where((np.arange(8) < rows)[:, None], values, 0) for name, values in batch.items()
    }
    return {
        **{name: values.astype(batch[name].dtype) for name, values in padded.items()},
        "label_weights": np.where(used, weights, 0).astype(np.float32),
    }


def expected(batches):
    """Cross-entropy and accuracy in NumPy float64, slot by slot."""
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
                top = scores.max()
                loss += w * (top + np.log(np.exp(scores - top).sum()) - scores[label])
                hits += w * (scores.argmax() == label)
                weight += w
                count += w > 0
    return loss / weight, hits / weight, count


def test_it_is_numpys_cross_entropy_of_the_logits():
    batches = [tiny.batch(seed) for seed in range(3)]
    weighted = [{**b, "label_weights": b["label_weights"] * (1 + n)} for n, b in enumerate(batches)]
    for given in (batches, weighted):
        found = held_out_loss(tiny.STUDENT, PARAMS, given)
        loss, accuracy, count = expected(given)
        assert found.loss == pytest.approx(loss, rel=1e-5)
        assert found.accuracy == pytest.approx(accuracy)
        assert found.count == count


def test_right_labels_are_hits():
    batch = tiny.batch()
    logits = forward(tiny.STUDENT, PARAMS, batch, FeatureRequest(logits=True)).logits
    found = held_out_loss(
        tiny.STUDENT, PARAMS, [{**batch, "labels": np.argmax(logits, -1).astype(np.int32)}]
    )
    assert found.accuracy == 1
    assert found.loss < held_out_loss(tiny.STUDENT, PARAMS, [batch]).loss


def test_unused_slots_do_not_count():
    batch = tiny.batch()
    unused = batch["label_weights"] == 0
    assert unused.any()
    changed = {
        **batch,
        "labels": np.where(unused, (batch["labels"] + 7) % tiny.VOCABULARY, batch["labels"]),
        "slots": np.where(unused, 0, batch["slots"]),
    }
    assert held_out_loss(tiny.STUDENT, PARAMS, [changed]) == held_out_loss(
        tiny.STUDENT, PARAMS, [batch]
    )


def test_padded_rows_do_not_count():
    batch = tiny.batch()
    padded = {
        name: np.concatenate([values, np.zeros_like(values)]) for name, values in batch.items()
    }
    one = held_out_loss(tiny.STUDENT, PARAMS, [padded])
    other = held_out_loss(tiny.STUDENT, PARAMS, [batch])
    assert one.count == other.count
    assert one.loss == pytest.approx(other.loss, rel=1e-6)


def test_a_batch_counts_by_its_slots():
    full = tiny.batch(0)
    sparse = tiny.batch(1)
    sparse["label_weights"] = np.zeros_like(sparse["label_weights"])
    sparse["label_weights"][0, 0] = 1
    found = held_out_loss(tiny.STUDENT, PARAMS, [full, sparse])
    parts = [held_out_loss(tiny.STUDENT, PARAMS, [b]) for b in (full, sparse)]
    assert found.count == parts[0].count + 1
    assert found.loss == pytest.approx(sum(p.loss * p.count for p in parts) / found.count, rel=1e-6)


def test_it_compiles_once_for_many_runs():
    def measure(seed):
        batches = [tiny.batch(seed), tiny.batch(seed + 1)]
        params = tiny.params(tiny.STUDENT, seed)
        held_out_loss(tiny.STUDENT, params, batches)
        HeldOut(batches, TEACHER).measure(tiny.STUDENT, params)

    measure(0)
    before = mlm._measure._cache_size(), mlm._predict._cache_size()
    for seed in range(1, 4):
        measure(seed)
    assert (mlm._measure._cache_size(), mlm._predict._cache_size()) == before


def test_no_masked_slot_is_refused():
    batch = tiny.batch()
    with pytest.raises(InputError, match="no masked slot"):
        held_out_loss(
            tiny.STUDENT,
            PARAMS,
            [{**batch, "label_weights": np.zeros_like(batch["label_weights"])}],
        )
    with pytest.raises(InputError, match="no masked slot"):
        held_out_loss(tiny.STUDENT, PARAMS, [])


def test_a_diverged_model_is_refused():
    broken = jax.tree.map(lambda x: x * np.nan, PARAMS)
    with pytest.raises(InputError, match="held-out MLM loss: found nan"):
        held_out_loss(tiny.STUDENT, broken, [tiny.batch()])


def test_kl_and_agreement_are_numpys_at_the_slots_in_use():
    batches = [unequal(0), unequal(1, rows=5)]
    student = Model(tiny.STUDENT, PARAMS)
    kl = same = weight = 0.0
    for batch in batches:
        own = log_probs(student, batch)
        target = log_probs(TEACHER, batch)
        for row, slot in zip(*np.nonzero(batch["label_weights"]), strict=True):
            s = own[row, slot]
            t = target[row, slot]
            w = float(batch["label_weights"][row, slot])
            kl += w * sum(np.exp(a) * (a - b) for a, b in zip(t, s, strict=True))
            same += w * (s.argmax() == t.argmax())
            weight += w
    found = HeldOut(batches, TEACHER).measure(*student)
    assert 0.1 < same / weight < 0.9
    assert found.kl == pytest.approx(kl / weight, rel=1e-5)
    assert found.agreement == pytest.approx(same / weight, rel=1e-6)


def test_a_teacher_changes_nothing_else_and_is_measured_like_any_model():
    batches = [unequal(0), unequal(1, rows=5)]
    held_out = HeldOut(batches, TEACHER)
    found = held_out.measure(tiny.STUDENT, PARAMS)
    alone = held_out_loss(tiny.STUDENT, PARAMS, batches)
    assert (found.loss, found.accuracy) == pytest.approx((alone.loss, alone.accuracy), rel=1e-6)
    assert found.count == alone.count
    own = held_out_loss(*TEACHER, batches)
    assert (held_out.teacher.loss, held_out.teacher.accuracy) == pytest.approx(
        (own.loss, own.accuracy), rel=1e-6
    )
    assert held_out.teacher.count == own.count
    assert held_out.teacher.kl is None
    assert held_out.teacher.agreement is None


def test_the_teacher_agrees_with_itself():
    found = HeldOut([unequal(0), unequal(1, rows=5)], TEACHER).measure(*TEACHER)
    assert found.kl == pytest.approx(0, abs=1e-5)
    assert found.agreement == 1


def test_unused_slots_may_hold_anything():
    def broken_at_23(params):
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
    student, teacher = (
        Model(m.config, broken_at_23(m.params)) for m in (Model(tiny.STUDENT, PARAMS), TEACHER)
    )
    for model in (student, teacher):
        finite = np.isfinite(_logits(model.config)(model.params, broken)).all(-1)
        assert finite[:5].all()
        assert not finite[5:].any()
    assert HeldOut([broken], teacher).measure(*student) == HeldOut([batch], TEACHER).measure(
        tiny.STUDENT, PARAMS
    )
    assert HeldOut([broken], teacher).teacher == HeldOut([batch], TEACHER).teacher


def test_how_sequences_are_batched_does_not_matter():
    one = unequal(0)
    two = unequal(1)
    joined = {name: np.concatenate([one[name], two[name]]) for name in one}
    order = np.random.default_rng(0).permutation(16)

    def batched(rows):
        return HeldOut(
            [{name: values[rows[n : n + 8]] for name, values in joined.items()} for n in (0, 8)],
            TEACHER,
        )

    # The same sequences over three batches, the last two filled up with padding.
    sparse = [
        {name: values[order[n:m]] for name, values in joined.items()}
        for n, m in ((0, 8), (8, 11), (11, 16))
    ]
    filled = [
        {name: np.pad(values, [(0, 8 - len(values)), (0, 0)]) for name, values in batch.items()}
        for batch in sparse
    ]
    first = batched(np.arange(16)).measure(tiny.STUDENT, PARAMS)
    for other in (batched(order), HeldOut(filled, TEACHER)):
        found = other.measure(tiny.STUDENT, PARAMS)
        assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(first), rel=1e-5)


@pytest.mark.parametrize(
    "teacher", [None, Model(tiny.TEACHER, {k: v for k, v in TEACHER.params.items() if k != "mlm"})]
)
def test_a_teacher_that_predicts_nothing_is_compared_with_nothing(teacher, monkeypatch):
    monkeypatch.setattr(mlm, "_predict", None)  # fails when called
    held_out = HeldOut([tiny.batch()], teacher)
    assert held_out.teacher is None
    found = held_out.measure(tiny.STUDENT, PARAMS)
    assert found == held_out_loss(tiny.STUDENT, PARAMS, [tiny.batch()])
    assert found == MlmResult(found.loss, found.accuracy, found.count, kl=None, agreement=None)


def test_the_teacher_runs_once_and_not_before_it_is_asked(monkeypatch):
    calls = []
    predict = mlm._predict
    monkeypatch.setattr(mlm, "_predict", lambda *given: calls.append(given) or predict(*given))
    held_out = HeldOut([tiny.batch(0), tiny.batch(1)], TEACHER)
    assert not calls
    for _ in range(2):
        held_out.measure(tiny.STUDENT, PARAMS)
        assert held_out.teacher is not None
    assert len(calls) == 2


def test_another_vocabulary_is_refused_before_the_teacher_runs(monkeypatch):
    monkeypatch.setattr(mlm, "_predict", None)
    config = dataclasses.replace(tiny.STUDENT, vocab_size=60)
    larger = Model(config, tiny.params(config, 0))
    with pytest.raises(
        InputError, match="the model has 60 vocabulary entries, expected the teacher's 53"
    ):
        HeldOut([tiny.batch()], TEACHER).measure(*larger)


def test_a_teacher_that_is_not_finite_is_refused_by_its_name():
    broken = Model(tiny.TEACHER, jax.tree.map(lambda x: x * np.nan, TEACHER.params))
    held_out = HeldOut([tiny.batch()], broken)
    with pytest.raises(
        InputError, match="the teacher's held-out MLM loss: found nan, expected a finite number"
    ):
        held_out.measure(tiny.STUDENT, PARAMS)
    with pytest.raises(InputError, match="the teacher's held-out MLM loss"):
        _ = held_out.teacher
