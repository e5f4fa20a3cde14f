"""Batches by step number: any of them, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdjax.data.loader import Batch, Batches, Corpus, fixed_batches
from kdjax.errors import InputError

BATCH = 7
SHAPES = {"tokens": 24, "segments": 24, "positions": 24, "valid": 24, "slots": 4, "labels": 4, "label_weights": 4}


def batches(corpus: Corpus, seed: int = 0, **changes: Any) -> Batches:
    return Batches(corpus, **{"batch": BATCH, "seed": seed, "rate": 0.15, "slots": 4, **changes})


def same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def originals(batch: Batch) -> list[bytes]:
    """Each row's tokens with the masked ones put back."""
    tokens = batch["tokens"].copy()
    rows, slots = np.nonzero(batch["label_weights"])
    tokens[rows, batch["slots"][rows, slots]] = batch["labels"][rows, slots]
    return [row.tobytes() for row in tokens]


def order(corpus: Corpus, seed: int, epochs: int) -> list[bytes]:
    """The first sequences of a stream, as many as `epochs` epochs have."""
    stream = batches(corpus, seed, batch=1)
    return [originals(stream[step])[0] for step in range(epochs * stream.sequences)]


def test_a_batch_has_the_promised_arrays(corpus: Corpus) -> None:
    batch = batches(corpus)[3]
    assert {name: array.shape for name, array in batch.items()} == {k: (BATCH, n) for k, n in SHAPES.items()}
    kinds = {name: array.dtype for name, array in batch.items()}
    assert kinds == {**dict.fromkeys(SHAPES, np.int32), "valid": np.bool_, "label_weights": np.float32}
    assert np.array_equal(batch["valid"], batch["segments"] > 0)
    assert np.array_equal(batch["positions"] == 0, np.diff(batch["segments"], axis=1, prepend=-1) != 0)
    rows = np.arange(BATCH)[:, None]
    used = batch["label_weights"] > 0
    assert used.any(axis=1).all()
    assert batch["valid"][rows, batch["slots"]][used].all()
    assert batch["labels"][used].min() >= 5


def test_indexing_equals_iterating_from_anywhere(corpus: Corpus) -> None:
    stream, again = batches(corpus), batches(corpus)
    for start, stop in ((0, 40), (33, 36), (10**6, 10**6 + 3)):
        steps = []
        for step, batch in stream.iterate(start, stop):
            steps.append(step)
            assert same(batch, again[step])
        assert steps == list(range(start, stop))
    assert list(stream.iterate(5, 5)) == []


def test_a_stream_left_early_leaves_no_thread_behind(corpus: Corpus) -> None:
    before = set(threading.enumerate())
    stream = batches(corpus).iterate(0, 10**9)
    next(stream)
    readers = set(threading.enumerate()) - before
    assert readers
    stream.close()  # type: ignore[attr-defined]
    for reader in readers:
        reader.join(timeout=10)
        assert not reader.is_alive()


def test_each_epoch_visits_every_sequence_once_in_an_order_of_its_own(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    everything = Counter(row.tobytes() for row in corpus.read("train", np.arange(count))[0])
    seen = order(corpus, 0, epochs=3)
    epochs = [seen[start : start + count] for start in range(0, len(seen), count)]
    for epoch in epochs:
        assert Counter(epoch) == everything
    for a, b in pairwise(epochs):
        assert sum(x == y for x, y in zip(a, b, strict=True)) < count // 10


def test_batches_straddle_epochs_without_losing_a_sequence(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    assert count % BATCH
    one_by_one = order(corpus, 4, epochs=2)
    stream = batches(corpus, 4)
    joined = [row for step in range(2 * count // BATCH) for row in originals(stream[step])]
    assert joined == one_by_one[: len(joined)]


def test_runs_with_neighbouring_seeds_share_no_epoch_s_order(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    epochs = []
    for seed in range(3):
        seen = order(corpus, seed, epochs=3)
        epochs += [seen[start : start + count] for start in range(0, len(seen), count)]
    for n, a in enumerate(epochs):
        for b in epochs[:n]:
            assert sum(x == y for x, y in zip(a, b, strict=True)) < count // 10


def test_a_sequence_is_masked_anew_in_each_epoch_and_alike_in_any_batch(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    masks: dict[bytes, list[bytes]] = {}
    by_one, by_many = batches(corpus, batch=1), batches(corpus)
    for step in range(2 * count // BATCH):
        for row, values in enumerate(zip(*by_many[step].values(), strict=True)):
            single = by_one[step * BATCH + row]
            assert all(np.array_equal(value, array[0]) for value, array in zip(values, single.values(), strict=True))
            masks.setdefault(originals(single)[0], []).append(single["tokens"].tobytes())
    renewed = [len(set(found)) == len(found) for found in masks.values() if len(found) == 2]
    assert len(renewed) > count - BATCH
    assert np.mean(renewed) > 0.9  # a very short sequence may meet the same mask twice


def test_fixed_batches_are_the_split_in_order_filled_up_with_nothing(corpus: Corpus) -> None:
    count = corpus.sequences("validation")
    assert count % 8
    made = fixed_batches(corpus, "validation", batch=8, limit=10**6, seed=1, rate=0.15, slots=4)
    assert [len(batch["tokens"]) for batch in made] == [8] * (count // 8 + 1)
    rows = [row for batch in made for row in originals(batch)]
    assert rows[:count] == [row.tobytes() for row in corpus.read("validation", np.arange(count))[0]]
    last, real = made[-1], count % 8
    assert last["label_weights"][:real].any(axis=1).all()
    assert not any(last[name][real:].any() for name in ("tokens", "segments", "valid", "label_weights", "labels"))
    assert {name: array.shape for name, array in last.items()} == {k: (8, n) for k, n in SHAPES.items()}
    again = fixed_batches(corpus, "validation", batch=8, limit=10**6, seed=1, rate=0.15, slots=4)
    assert all(same(a, b) for a, b in zip(made, again, strict=True))


def test_a_limited_evaluation_sees_the_whole_split_thinned_out(corpus: Corpus) -> None:
    count = corpus.sequences("validation")
    all_rows = [row.tobytes() for row in corpus.read("validation", np.arange(count))[0]]
    made = fixed_batches(corpus, "validation", batch=5, limit=10, seed=1, rate=0.15, slots=4)
    places = [all_rows.index(row) for batch in made for row in originals(batch)]
    assert len(set(places)) == 10 and places == sorted(places)
    assert places[0] == 0 and places[-1] >= 0.8 * count


def test_a_corpus_smaller_than_a_batch(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    assert batches(corpus, batch=count)[0]["tokens"].shape == (count, 24)
    with pytest.raises(InputError, match=f"{count} train sequences are too small to fill a batch of {count + 1}"):
        batches(corpus, batch=count + 1)


@pytest.fixture
def copy(corpus: Corpus, tmp_path: Path) -> Path:
    shutil.copytree(corpus.directory, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_truncated_or_missing_shard_is_named(corpus: Corpus, copy: Path) -> None:
    shard = copy / corpus.manifest.shards[1].file
    data = shard.read_bytes()
    shard.write_bytes(data[:-100])
    with pytest.raises(InputError, match=rf"{shard.name}: has {len(data) - 100} bytes, expected {len(data)}"):
        Corpus.open(copy)
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name}: has 0 bytes"):
        Corpus.open(copy)
    shard.write_bytes(bytes(len(data)))
    with pytest.raises(InputError, match=rf"{shard.name}: damaged"):
        Corpus.open(copy)


def test_a_flipped_bit_is_found_by_verifying_and_by_reading(corpus: Corpus, copy: Path) -> None:
    Corpus.open(copy).verify()
    tokens, segments = corpus.read("train", np.array([3]))
    record = tokens.astype("<u2").tobytes() + segments.astype("u1").tobytes()
    shard = copy / corpus.manifest.shards[0].file
    data = bytearray(shard.read_bytes())
    place = data.find(record)
    assert place > 0
    data[place] ^= 1
    shard.write_bytes(data)
    opened = Corpus.open(copy)
    with pytest.raises(InputError, match=rf"{shard.name}: other bytes than those prepared"):
        opened.verify()
    with pytest.raises(InputError, match="a shard is damaged"):
        opened.read("train", np.array([3]))
    with pytest.raises(InputError, match="a shard is damaged"):
        list(batches(opened).iterate(0, opened.sequences("train") // BATCH + 1))


def test_a_directory_without_a_corpus(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        Corpus.open(tmp_path / "nowhere")
