"""The text's own cross-entropies: against dictionaries, against sources whose entropies are known,
and sums of 1."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kdjax.config import DataConfig
from kdjax.data.corpus import Corpus
from kdjax.data.prepare import neighbors, ngram_losses
from kdjax.data.prepare.local import prepare
from kdjax.data.prepare.neighbors import (
    CountTable,
    Neighborhoods,
    NeighborModel,
    neighborhoods,
)
from tests.support.corpora import VOCABULARY, WORDS, make_corpus, make_tokenizer

SPECIAL = np.arange(5)
CLS = 2
SEP = 3


def text_of(documents: list[np.ndarray]) -> Neighborhoods:
    """Lay out documents of ids as one long sequence of segments, each between [CLS] and [SEP]."""
    flat = np.concatenate([np.array([CLS, *document, SEP], np.int32) for document in documents])
    return neighborhoods(flat[None], np.ones((1, len(flat)), np.int32), SPECIAL)


def markov(
    documents: int, length: int, size: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], float, float]:
    """Draw documents of a planted bigram source over ids from 5; return them and the entropies of
    its chain and of its stationary law."""
    chain = rng.dirichlet(np.full(size, 0.3), size)
    # The stationary law is the chain's eigenvector of eigenvalue 1.
    values, vectors = np.linalg.eig(chain.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    # Entropy of the next token, given the last one and by itself.
    rate = -np.sum(stationary[:, None] * chain * np.log(np.maximum(chain, 1e-300)))
    marginal = -np.sum(stationary * np.log(np.maximum(stationary, 1e-300)))
    drawn = np.empty((documents, length), np.int32)
    drawn[:, 0] = rng.choice(size, documents, p=stationary)
    # All documents are drawn together, token by token.
    cumulative = np.cumsum(chain, axis=1)
    for place in range(1, length):
        draws = rng.random(documents)[:, None]
        actual = (draws > cumulative[drawn[:, place - 1]]).sum(axis=1)
        drawn[:, place] = np.minimum(actual, size - 1)
    return list(drawn + 5), float(rate), float(marginal)


def mean_loss(probs: np.ndarray) -> float:
    return float(-np.log(probs).mean())


def losses_of(model: NeighborModel, text: Neighborhoods) -> tuple[float, float, float]:
    unigram, left, both = model.probabilities(text)
    return mean_loss(unigram), mean_loss(left), mean_loss(both)


def test_losses_of_a_planted_markov_source_are_its_entropies() -> None:
    rng = np.random.default_rng(1)
    size = 12
    documents, rate, marginal = markov(1200, 40, size, rng)
    model = NeighborModel(text_of(documents[:900]), size + 5, SPECIAL)
    model.fit(text_of(documents[900:1000]))
    unigram, left, both = losses_of(model, text_of(documents[1000:]))
    assert unigram == pytest.approx(marginal, abs=0.03)
    # The first token of a document of 40 has no left neighbour but [CLS], which says nothing of it.
    assert left == pytest.approx(rate + (marginal - rate) / 40, abs=0.03)
    # The token behind says more.
    assert both < left - 0.1


def test_losses_of_independent_tokens_are_all_the_same() -> None:
    rng = np.random.default_rng(2)
    documents = [rng.integers(5, 25, 50).astype(np.int32) for _ in range(800)]
    model = NeighborModel(text_of(documents[:600]), 25, SPECIAL)
    model.fit(text_of(documents[600:700]))
    assert losses_of(model, text_of(documents[700:])) == pytest.approx([math.log(20)] * 3, abs=0.02)


def test_probabilities_sum_to_one_over_the_vocabulary() -> None:
    rng = np.random.default_rng(3)
    documents, _, _ = markov(60, 20, 9, rng)
    model = NeighborModel(text_of(documents[:50]), 20, SPECIAL)
    model.fit(text_of(documents[50:]))
    tokens = np.arange(5, 20, dtype=np.int32)
    # 14 to 19 were never seen
    for left, right in (
        (CLS, 7),
        (6, SEP),
        (8, 9),
        (17, 18),
        (17, 6),
        (CLS, SEP),
    ):
        around = Neighborhoods(tokens, np.full_like(tokens, left), np.full_like(tokens, right))
        for probs in model.probabilities(around):
            assert probs.min() > 0
            assert probs.sum() == pytest.approx(1.0, abs=1e-12)


def by_dictionaries(
    counted: list[np.ndarray], held_back: list[np.ndarray], measured: list[np.ndarray], size: int
) -> list[float]:
    """Compute the three losses in plain Python: the same estimator, written anew."""

    def events(documents: list[np.ndarray]) -> list[tuple[int, int, int]]:
        triples: list[tuple[int, int, int]] = []
        for document in documents:
            framed = [CLS, *document.tolist(), SEP]
            triples += zip(framed, framed[1:], framed[2:], strict=False)
        return triples

    seen = events(counted)
    count = {
        "w": Counter(w for _, w, _ in seen),
        "l": Counter(left for left, _, _ in seen),
        "r": Counter(right for _, _, right in seen),
        "lw": Counter((left, w) for left, w, _ in seen),
        "wr": Counter((w, right) for _, w, right in seen),
        "lr": Counter((left, right) for left, _, right in seen),
        "lwr": Counter(seen),
    }

    def bucket(number: int) -> int:
        return min(number.bit_length(), neighbors.BUCKETS - 1)

    def relative(over: int, under: int) -> float:
        return over / under if under else 0.0

    def fitted(rows: list[tuple[int, list[float]]]) -> dict[int, list[float]]:
        """Fit bucket -> weights, by expectation maximisation."""
        parts = len(rows[0][1])
        start = {
            b: [1 / (parts - (b == 0))] * (parts - 1) + [0.0 if b == 0 else 1 / parts]
            for b in range(40)
        }
        weights = dict(start)
        for _ in range(neighbors.ITERATIONS):
            credit = {b: [1.0] * (parts - 1) + [0.0 if b == 0 else 1.0] for b in start}
            for b, values in rows:
                total = sum(
                    weight * value for weight, value in zip(weights[b], values, strict=True)
                )
                for part in range(parts):
                    credit[b][part] += weights[b][part] * values[part] / total
            renewed = {}
            moved = 0.0
            for b, row in credit.items():
                renewed[b] = [value / sum(row) for value in row]
                changes = map(float.__sub__, renewed[b], weights[b])
                if b < neighbors.BUCKETS:
                    moved = max(moved, *map(abs, changes))
            weights = renewed
            if moved < neighbors.TOLERANCE:
                break
        return weights

    def mixed(weights: dict[int, list[float]], row: tuple[int, list[float]]) -> float:
        return sum(weight * value for weight, value in zip(weights[row[0]], row[1], strict=True))

    def row_w(event: tuple[int, int, int]) -> tuple[int, list[float]]:
        return bucket(len(seen)), [1 / (size - 5), relative(count["w"][event[1]], len(seen))]

    back = events(held_back)
    # Simpler predictors first, for the others are mixed of them.
    of_w = fitted([row_w(event) for event in back])

    def row_l(event: tuple[int, int, int]) -> tuple[int, list[float]]:
        left, w, _ = event
        return bucket(count["l"][left]), [
            mixed(of_w, row_w(event)),
            relative(count["lw"][left, w], count["l"][left]),
        ]

    def row_r(event: tuple[int, int, int]) -> tuple[int, list[float]]:
        _, w, right = event
        ratio = relative(count["wr"][w, right], count["r"][right])
        return bucket(count["r"][right]), [mixed(of_w, row_w(event)), ratio]

    of_l = fitted([row_l(event) for event in back])
    of_r = fitted([row_r(event) for event in back])

    def row_lr(event: tuple[int, int, int]) -> tuple[int, list[float]]:
        left, _, right = event
        ratio = relative(count["lwr"][event], count["lr"][left, right])
        simpler = [mixed(of_w, row_w(event)), mixed(of_l, row_l(event)), mixed(of_r, row_r(event))]
        return bucket(count["lr"][left, right]), [*simpler, ratio]

    of_lr = fitted([row_lr(event) for event in back])
    losses = []
    targets = events(measured)
    for weights, row in ((of_w, row_w), (of_l, row_l), (of_lr, row_lr)):
        nats = [-math.log(mixed(weights, row(event))) for event in targets]
        losses.append(sum(nats) / len(nats))
    return losses


def test_losses_are_those_of_dictionaries_of_counts() -> None:
    rng = np.random.default_rng(4)
    documents, _, _ = markov(60, 15, 8, rng)
    counted = documents[:40]
    held_back = documents[40:50]
    measured = documents[50:]
    model = NeighborModel(text_of(counted), 20, SPECIAL)
    model.fit(text_of(held_back))
    expected = by_dictionaries(counted, held_back, measured, 20)
    assert losses_of(model, text_of(measured)) == pytest.approx(expected, rel=1e-9)


def test_neighbours_are_of_the_same_segment_and_specials_are_no_targets() -> None:
    #                  [CLS]  7  8 [SEP] [CLS] 9 [UNK] [SEP] padding
    tokens = np.array([[2, 7, 8, 3, 2, 9, 1, 3, 0], [2, 6, 3, 0, 0, 0, 0, 0, 0]], np.int32)
    segments = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 0, 0, 0, 0, 0, 0]], np.int32)
    actual = neighborhoods(tokens, segments, SPECIAL)
    assert actual.tokens.tolist() == [7, 8, 9, 6]
    assert actual.left.tolist() == [2, 7, 2, 2]
    assert actual.right.tolist() == [8, 3, 1, 3]


def test_counts_are_those_of_a_counter() -> None:
    codes = np.random.default_rng(5).integers(0, 50, 400)
    expected = Counter(codes.tolist())
    asked = np.arange(-3, 60)
    assert CountTable(codes).count(asked).tolist() == [expected[int(code)] for code in asked]
    assert CountTable(np.zeros(0, np.int64)).count(asked).tolist() == [0] * len(asked)


def test_sequences_are_spread_evenly_and_none_is_taken_twice() -> None:
    assert ngram_losses.spread_evenly(7, 100).tolist() == list(range(7))
    assert ngram_losses.spread_evenly(100, 4).tolist() == [0, 25, 50, 75]
    assert ngram_losses.spread_evenly(3, 0).tolist() == [0]
    actual = ngram_losses.spread_evenly(12345, 777)
    # None twice, and none that is not there.
    assert len(set(actual.tolist())) == 777
    assert actual.max() < 12345


@pytest.fixture
def own_corpus(tmp_path: Path) -> Corpus:
    config = DataConfig(
        files=str(make_corpus(tmp_path / "text.jsonl", 240)),
        seq_len=24,
        max_predictions=4,
        validation=0.2,
        workers=1,
    )
    prepare(config, make_tokenizer(tmp_path / "tokenizer.json"), tmp_path / "prepared")
    return Corpus.open(tmp_path / "prepared")


def test_losses_of_uniform_words_are_near_the_logarithm_of_their_number(own_corpus: Corpus) -> None:
    actual = ngram_losses.compute(own_corpus)
    assert actual.unigram == pytest.approx(math.log(len(WORDS)), abs=0.02)
    assert actual.held_out_tokens == own_corpus.manifest.text_tokens["validation"]
    assert actual.tokens + actual.fitted_tokens == own_corpus.manifest.text_tokens["train"]
    assert actual.unknown == {"train": 0.0, "validation": 0.0}
    assert own_corpus.manifest.vocab_size == VOCABULARY


def test_no_more_tokens_are_read_than_allowed(own_corpus: Corpus) -> None:
    actual = ngram_losses.compute(own_corpus, training_tokens=1000, held_out_tokens=200)
    assert 500 < actual.tokens + actual.fitted_tokens <= 1000
    assert 0 < actual.held_out_tokens <= 200


def test_losses_are_stored_once_beside_the_manifest_and_belong_to_their_text(
    own_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = own_corpus.digest
    first = ngram_losses.ngram_losses(own_corpus)
    path = ngram_losses.path_of(own_corpus)
    assert path.parent == own_corpus.directory
    assert Corpus.open(own_corpus.directory).digest == digest

    # A subset is another text: it has a file of its own.
    subset = own_corpus.limited(1500, 0)
    limited = ngram_losses.ngram_losses(subset)
    assert limited.tokens + limited.fitted_tokens < 1500
    assert ngram_losses.path_of(subset) != path

    with monkeypatch.context() as patched:
        patched.setattr(ngram_losses, "compute", None)
        assert ngram_losses.ngram_losses(own_corpus) == first
        assert ngram_losses.ngram_losses(subset) == limited

    # What is there of another text or another estimator is counted anew.
    path.write_text(ngram_losses.path_of(subset).read_text(encoding="utf-8"), encoding="utf-8")
    assert ngram_losses.ngram_losses(own_corpus) == first


def test_directory_that_cannot_be_written_is_left_without(
    own_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdjax.errors import InputError

    def refuse(*_: object) -> None:
        raise InputError("cannot be written")

    monkeypatch.setattr(ngram_losses, "write_json", refuse)
    assert ngram_losses.ngram_losses(own_corpus).unigram > 3
    assert not ngram_losses.path_of(own_corpus).exists()
