"""What a text itself says of a masked token: cross-entropies that a masked language model's loss is
held against.

Three predictors that know nothing but counts: how frequent a token is (unigram), what follows its
left neighbour, and what stands between both its neighbours, all of them visible. They are counted
on the training split and measured on the held-out split, in nats a token, as the loss of a model
is. Special tokens are not predicted, as they are never masked; [CLS] and [SEP] are neighbours at
the ends of a document's chunks.

Counts are smoothed by interpolation (Jelinek and Mercer, 1980, "Interpolated estimation of Markov
source parameters from sparse data"; Chen and Goodman, 1999, "An empirical study of smoothing
techniques for language modeling"):

    P(w)       = a U + (1 - a) N(w) / N
    P(w | l)   = b P(w) + (1 - b) N(l w) / N(l .)
    P(w | r)   = c P(w) + (1 - c) N(w r) / N(. r)
    P(w | l r) = d P(w) + e P(w | l) + f P(w | r) + g N(l w r) / N(l . r)

U is uniform over the tokens that can be masked. Weights depend on how often the neighbours were
seen together (by powers of two) and are fitted by expectation maximisation on training sequences
that are not counted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdjax.data.corpus import Corpus
from kdjax.errors import InputError
from kdjax.files import read_json, write_json

VERSION = 1
"""Of the file and of the estimator: another one is counted again."""
TRAINING_TOKENS = 20_000_000
"""Training tokens read, at most: sequences spread evenly over the split."""
HELD_OUT_TOKENS = 2_000_000
"""Held-out tokens measured, at most, likewise."""
HELD_BACK = 20
"""One in so many of the training sequences is not counted: the weights are fitted on it."""
ITERATIONS = 50
"""Of expectation maximisation, at most."""
TOLERANCE = 1e-6
"""Expectation maximisation ends where no weight moves by more."""
BUCKETS = 16
"""Kinds of contexts with weights of their own: not seen, seen once, 2 to 3 times, 4 to 7 times, and
so on."""
CHUNK = 8192
"""Sequences read at a time."""

Ids = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ReferenceLosses:
    """Cross-entropies of a text's held-out split, in nats a token.

    Attributes:
        version: of the estimator.
        corpus: digest of the corpus, or of the subset of it whose training split was counted.
        unigram: of a token by how frequent it is.
        left_neighbor: of a token given the one before it.
        both_neighbors: of a token given the one before it and the one after it.
        tokens: training tokens that were counted, special tokens aside.
        fitted_tokens: training tokens that the weights were fitted on.
        held_out_tokens: held-out tokens that were measured.
        unknown: share of [UNK] among the tokens of the text, of the training and the held-out
            split.
    """

    version: int
    corpus: str
    unigram: float
    left_neighbor: float
    both_neighbors: float
    tokens: int
    fitted_tokens: int
    held_out_tokens: int
    unknown: dict[str, float]

    def figures(self) -> dict[str, Any]:
        """Return the losses and counts by name, without what the file is identified by."""
        values = asdict(self)
        del values["version"]
        del values["corpus"]
        return values

    def in_words(self, digits: int) -> str:
        """Return the three cross-entropies as running text, in nats with so many decimals."""
        return (
            f"unigram {self.unigram:.{digits}f}, left neighbour {self.left_neighbor:.{digits}f}, "
            f"both neighbours {self.both_neighbors:.{digits}f}"
        )


@dataclass(frozen=True)
class Neighborhoods:
    """Tokens with their neighbours, each array `[n]`.

    Attributes:
        tokens: the tokens, none of them special.
        left: what stands before each, [CLS] at the beginning of a chunk.
        right: what stands after each, [SEP] at the end of a chunk.
    """

    tokens: Ids
    left: Ids
    right: Ids

    def __len__(self) -> int:
        """How many there are."""
        return len(self.tokens)


def reference_losses(corpus: Corpus) -> ReferenceLosses:
    """Return a corpus's reference losses: those stored beside its manifest, or computed and stored
    there now.

    A subset of a corpus has its own: its counts are of what a run may see. The file's name has the
    beginning of the digest of the corpus or subset, its content the whole. A directory that cannot
    be written is left without.

    Raises:
        InputError: a shard is damaged.
    """
    path = path_of(corpus)
    stored = _read(path, corpus)
    if stored is not None:
        return stored
    computed = compute(corpus)
    # A corpus may be another's, on a disk that is only read: what was computed serves all the same.
    with contextlib.suppress(InputError):
        write_json(path, asdict(computed))
    return computed


def path_of(corpus: Corpus) -> Path:
    """The file of a corpus's reference losses, in the corpus's directory."""
    return corpus.directory / f"reference-losses-{corpus.digest[:16]}.json"


def _read(path: Path, corpus: Corpus) -> ReferenceLosses | None:
    """The losses stored in a file; None where it is not there, of another estimator or of another
    corpus."""
    if not path.is_file():
        return None
    values = read_json(path)
    if not isinstance(values, dict):
        return None
    if (values.get("version"), values.get("corpus")) != (VERSION, corpus.digest):
        return None
    try:
        return ReferenceLosses(**values)
    except TypeError:
        return None


def compute(
    corpus: Corpus, training_tokens: int = TRAINING_TOKENS, held_out_tokens: int = HELD_OUT_TOKENS
) -> ReferenceLosses:
    """Count a corpus's training tokens and measure its held-out ones.

    The numbers are rounded to six decimals, so that the same text gives the same ones everywhere.

    Args:
        corpus: the corpus, or a subset of it.
        training_tokens: the most that are read, padding and special tokens included.
        held_out_tokens: the same of the held-out split.

    Raises:
        InputError: a shard is damaged.
    """
    manifest = corpus.manifest
    special = np.array(manifest.special_ids)
    unknown = manifest.special["[UNK]"]

    # One training sequence in so many is held back from the counts.
    chosen = spread(corpus.sequences("train"), training_tokens // manifest.length)
    is_back = np.arange(len(chosen)) % HELD_BACK == HELD_BACK - 1
    counted, counted_unknown = _neighborhoods(corpus, "train", chosen[~is_back], special, unknown)
    back, _ = _neighborhoods(corpus, "train", chosen[is_back], special, unknown)
    model = NeighborModel(counted, manifest.vocab_size, special)
    model.fit(back)

    held_out = spread(corpus.sequences("validation"), held_out_tokens // manifest.length)
    measured, measured_unknown = _neighborhoods(corpus, "validation", held_out, special, unknown)
    unigram, left, both = (_cross_entropy(probs) for probs in model.probabilities(measured))
    return ReferenceLosses(
        version=VERSION,
        corpus=corpus.digest,
        unigram=unigram,
        left_neighbor=left,
        both_neighbors=both,
        tokens=len(counted),
        fitted_tokens=len(back),
        held_out_tokens=len(measured),
        unknown={
            "train": _share(counted_unknown, len(counted)),
            "validation": _share(measured_unknown, len(measured)),
        },
    )


def spread(available: int, most: int) -> NDArray[np.int64]:
    """Numbers of at most `most` of `available` sequences, ascending and evenly spread; at least
    one."""
    count = min(available, max(1, most))
    return np.arange(count, dtype=np.int64) * available // count


def neighborhoods(tokens: Ids, segments: Ids, special: NDArray[Any]) -> Neighborhoods:
    """Find the tokens of packed sequences and their neighbours.

    Args:
        tokens: `[n, length]`; each segment begins with [CLS] and ends with [SEP], so neighbours are
            of its own.
        segments: `[n, length]`, 0 where there is padding.
        special: ids of special tokens, which are left out but may be neighbours.
    """
    flat = tokens[segments > 0]  # in reading order
    places = np.flatnonzero(~np.isin(flat, special))
    return Neighborhoods(flat[places], flat[places - 1], flat[places + 1])


class NeighborModel:
    """The three predictors: interpolated counts of tokens, of pairs and of triples.

    Memory is that of a few arrays of 64-bit integers, as long as the text that is counted.
    """

    def __init__(
        self, counted: Neighborhoods, vocab_size: int, special: Sequence[int] | NDArray[Any]
    ):
        """Counts the text; weights are even until `fit`.

        Args:
            counted: the text.
            vocab_size: ids are below it.
            special: ids of special tokens, which have probability 0.
        """
        self.vocab_size = vocab_size
        self._uniform = 1.0 / (vocab_size - len(special))
        self._total = len(counted)
        tokens = counted.tokens
        left = counted.left
        right = counted.right
        self._unigrams = np.bincount(tokens, minlength=vocab_size)
        self._left_contexts = np.bincount(left, minlength=vocab_size)
        self._right_contexts = np.bincount(right, minlength=vocab_size)
        self._left_pairs = CountTable(self._code(left, tokens))
        self._right_pairs = CountTable(self._code(right, tokens))
        self._contexts = CountTable(self._code(left, right))
        self._triples = CountTable(self._code(left, right, tokens))
        self._weights = {
            name: _even(size)
            for name, size in (("unigram", 2), ("left", 2), ("right", 2), ("both", 4))
        }

    def fit(self, events: Neighborhoods) -> None:
        """Fit the weights by expectation maximisation, those of the simpler predictors first.

        Args:
            events: text that was not counted.
        """
        unigram = self._unigram_parts(events)
        self._weights["unigram"] = _fit(*unigram)
        smoothed = self._mix("unigram", unigram)
        sides = []
        for side in ("left", "right"):
            parts = self._side_parts(side, events, smoothed)
            self._weights[side] = _fit(*parts)
            sides.append(self._mix(side, parts))
        self._weights["both"] = _fit(*self._both_parts(events, smoothed, *sides))

    def probabilities(self, events: Neighborhoods) -> tuple[Floats, Floats, Floats]:
        """The probability of each token: by its frequency, given its left neighbour, given both;
        each `[n]`."""
        unigram = self._mix("unigram", self._unigram_parts(events))
        left = self._mix("left", self._side_parts("left", events, unigram))
        right = self._mix("right", self._side_parts("right", events, unigram))
        both = self._mix("both", self._both_parts(events, unigram, left, right))
        return unigram, left, both

    def _code(self, *ids: Ids) -> NDArray[np.int64]:
        """One number for several ids: the digits of a number to the base of the vocabulary's
        size."""
        code = np.zeros(len(ids[0]), np.int64)
        for part in ids:
            code *= self.vocab_size
            code += part
        return code

    def _unigram_parts(self, events: Neighborhoods) -> tuple[Floats, NDArray[np.int64]]:
        """What is mixed into a token's probability, `[n, 2]`, and the bucket of each event,
        `[n]`."""
        uniform = np.full(len(events), self._uniform)
        relative = _ratio(self._unigrams[events.tokens], self._total)
        return np.stack([uniform, relative], axis=1), _bucket(np.full(len(events), self._total))

    def _side_parts(
        self, side: str, events: Neighborhoods, smoothed: Floats
    ) -> tuple[Floats, NDArray[np.int64]]:
        """The same for one neighbour; `smoothed` is the unigram's probability of each event."""
        neighbor = events.left if side == "left" else events.right
        table = self._left_pairs if side == "left" else self._right_pairs
        contexts = (self._left_contexts if side == "left" else self._right_contexts)[neighbor]
        relative = _ratio(table.count(self._code(neighbor, events.tokens)), contexts)
        return np.stack([smoothed, relative], axis=1), _bucket(contexts)

    def _both_parts(
        self, events: Neighborhoods, unigram: Floats, left: Floats, right: Floats
    ) -> tuple[Floats, NDArray[np.int64]]:
        """The same for both neighbours, `[n, 4]`."""
        contexts = self._contexts.count(self._code(events.left, events.right))
        triples = self._triples.count(self._code(events.left, events.right, events.tokens))
        return np.stack([unigram, left, right, _ratio(triples, contexts)], axis=1), _bucket(
            contexts
        )

    def _mix(self, name: str, parts: tuple[Floats, NDArray[np.int64]]) -> Floats:
        """The weighted sum of what is mixed, `[n]`."""
        values, buckets = parts
        mixed: Floats = np.einsum("nk,nk->n", values, self._weights[name][buckets])
        return mixed


class CountTable:
    """How often each of many numbers occurs: the different ones in order, and their counts."""

    def __init__(self, codes: NDArray[np.int64]):
        """Counts the numbers, which are sorted in place.

        Args:
            codes: `[n]`.
        """
        codes.sort()
        is_first = np.ones(len(codes), bool)
        is_first[1:] = codes[1:] != codes[:-1]
        starts = np.flatnonzero(is_first)
        self._codes = codes[starts]
        self._counts = np.diff(starts, append=len(codes))

    def count(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """How often each of `codes` occurred; 0 where it never did."""
        if not len(self._codes):
            return np.zeros(len(codes), np.int64)
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        return np.where(self._codes[places] == codes, self._counts[places], 0)


def _ratio(counts: NDArray[Any], totals: NDArray[Any] | int) -> Floats:
    """Relative frequencies; 0 where nothing was seen."""
    return np.asarray(counts / np.maximum(totals, 1), np.float64)


def _bucket(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 where a context was never seen, else 1 + floor(log2(count)), at most `BUCKETS - 1`."""
    exponents = np.frexp(counts.astype(np.float64))[1]
    return np.minimum(np.where(counts > 0, exponents, 0), BUCKETS - 1).astype(np.int64)


def _even(parts: int) -> Floats:
    """Even weights of every bucket, `[BUCKETS, parts]`; the last part has none where its context
    was never seen."""
    weights = np.ones((BUCKETS, parts))
    weights[0, -1] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _fit(values: Floats, buckets: NDArray[np.int64]) -> Floats:
    """Fit the weights of a mixture by expectation maximisation.

    Every part is credited with one event more than it explains, so no weight that can be above 0
    becomes 0, and what was never seen keeps a probability.

    Args:
        values: `[n, parts]`, each part's probability of each event.
        buckets: `[n]`, the bucket of each event.

    Returns:
        `[BUCKETS, parts]`, summing to 1 in each bucket.
    """
    parts = values.shape[1]
    weights = _even(parts)
    possible = weights > 0
    for _ in range(ITERATIONS):
        credit = weights[buckets] * values
        credit /= credit.sum(axis=1, keepdims=True)
        explained = possible.astype(np.float64)
        for part in range(parts):
            explained[:, part] += np.bincount(buckets, credit[:, part], BUCKETS)
        renewed = explained / explained.sum(axis=1, keepdims=True)
        moved = float(np.abs(renewed - weights).max())
        weights = renewed
        if moved < TOLERANCE:
            break
    return weights


def _neighborhoods(
    corpus: Corpus, split: str, sequences: NDArray[np.int64], special: NDArray[Any], unknown: int
) -> tuple[Neighborhoods, int]:
    """Read the tokens of some sequences with their neighbours; and how often [UNK] stands there."""
    dtype = np.uint16 if corpus.manifest.vocab_size <= 2**16 else np.int32
    columns: list[list[NDArray[Any]]] = [[], [], []]
    count = 0
    for chunk in _chunks(sequences):
        tokens, segments = corpus.read(split, chunk)
        count += int(np.count_nonzero(tokens == unknown))
        found = neighborhoods(tokens, segments, special)
        for column, part in zip(columns, (found.tokens, found.left, found.right), strict=True):
            column.append(part.astype(dtype))
    joined = [np.concatenate([np.zeros(0, dtype), *column]) for column in columns]
    return Neighborhoods(*joined), count


def _chunks(sequences: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(sequences), CHUNK):
        yield sequences[start : start + CHUNK]


def _cross_entropy(probs: Floats) -> float:
    """Mean of -log p in nats, rounded."""
    return round(float(-np.log(probs).mean()), 6)


def _share(part: int, rest: int) -> float:
    """The share of `part` in the sum of both."""
    return part / max(1, part + rest)
