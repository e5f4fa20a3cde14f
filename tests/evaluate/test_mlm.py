"""The held-out loss is the weighted mean over masked slots."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.evaluate import mlm
from kdjax.evaluate.mlm import held_out_loss
from kdjax.models import forward, init
from kdjax.models.features import Request
from tests import tiny

PARAMS = jax.tree.map(lambda x: 20 * x, init(tiny.STUDENT, 0).params)  # far from uniform predictions


def expected(batches):
    """Cross-entropy and accuracy in NumPy float64, slot by slot."""
    loss = hits = weight = 0.0
    count = 0
    for batch in batches:
        logits = np.asarray(forward(tiny.STUDENT, PARAMS, batch, Request(logits=True)).logits, np.float64)
        for row, labels, weights in zip(logits, batch["labels"], batch["label_weights"], strict=True):
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
    logits = forward(tiny.STUDENT, PARAMS, batch, Request(logits=True)).logits
    found = held_out_loss(tiny.STUDENT, PARAMS, [{**batch, "labels": np.argmax(logits, -1).astype(np.int32)}])
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
    assert held_out_loss(tiny.STUDENT, PARAMS, [changed]) == held_out_loss(tiny.STUDENT, PARAMS, [batch])


def test_padded_rows_do_not_count():
    batch = tiny.batch()
    padded = {name: np.concatenate([values, np.zeros_like(values)]) for name, values in batch.items()}
    one, other = held_out_loss(tiny.STUDENT, PARAMS, [padded]), held_out_loss(tiny.STUDENT, PARAMS, [batch])
    assert one.count == other.count
    assert one.loss == pytest.approx(other.loss, rel=1e-6)


def test_a_batch_counts_by_its_slots():
    full, sparse = tiny.batch(0), tiny.batch(1)
    sparse["label_weights"] = np.zeros_like(sparse["label_weights"])
    sparse["label_weights"][0, 0] = 1
    found = held_out_loss(tiny.STUDENT, PARAMS, [full, sparse])
    parts = [held_out_loss(tiny.STUDENT, PARAMS, [b]) for b in (full, sparse)]
    assert found.count == parts[0].count + 1
    assert found.loss == pytest.approx(sum(p.loss * p.count for p in parts) / found.count, rel=1e-6)


def test_it_compiles_once_for_many_runs():
    held_out_loss(tiny.STUDENT, PARAMS, [tiny.batch()])
    before = mlm._sums._cache_size()
    for seed in range(3):
        held_out_loss(tiny.STUDENT, init(tiny.STUDENT, seed).params, [tiny.batch(seed), tiny.batch(seed + 1)])
    assert mlm._sums._cache_size() == before


def test_no_masked_slot_is_refused():
    batch = tiny.batch()
    with pytest.raises(InputError, match="no masked slot"):
        held_out_loss(tiny.STUDENT, PARAMS, [{**batch, "label_weights": np.zeros_like(batch["label_weights"])}])
    with pytest.raises(InputError, match="no masked slot"):
        held_out_loss(tiny.STUDENT, PARAMS, [])


def test_a_diverged_model_is_refused():
    broken = jax.tree.map(lambda x: x * np.nan, PARAMS)
    with pytest.raises(InputError, match="held-out MLM loss: found nan"):
        held_out_loss(tiny.STUDENT, broken, [tiny.batch()])
