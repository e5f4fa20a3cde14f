"""Predictors of a token by counts: of the token, of the pair with either neighbour, of all three.

Counts are smoothed by interpolation (Jelinek and Mercer, 1980, "Interpolated estimation of Markov
source parameters from sparse data"; Chen and Goodman, 1999, "An empirical study of smoothing
techniques for language modeling"):

    P(w)       = a U + (1 - a) N(w) / N
    P(w | l)   = b P(w) + (1 - b) N(l w) / N(l .)
    P(w | r)   = c P(w) + (1 - c) N(w r) / N(. r)
    P(w | l r) = d P(w) + e P(w | l) + f P(w | r) + g N(l w r) / N(l . r)

U is uniform over the tokens that can be masked. Weights depend on how often the neighbours were
seen together (by powers of two) and are fitted by expectation maximisation on text that is not
counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ITERATIONS = 50
"""Iterations of expectation maximisation, at most."""
TOLERANCE = 1e-6
"""Expectation maximisation ends where no weight moves by more."""
BUCKETS = 16
"""Kinds of contexts with weights of their own: not seen, seen once, 2 to 3 times, 4 to 7 times, and
so on."""

Ids = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Neighborhoods:
    """Tokens with their neighbours, each array `[n]`.

    Attributes:
        tokens: the tokens, none of them special.
        left: token before each, [CLS] at the beginning of a chunk.
        right: token after each, [SEP] at the end of a chunk.
    """

    tokens: Ids
    left: Ids
    right: Ids

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.tokens)


@dataclass(frozen=True)
class Mixture:
    """Probabilities of events by several predictors, to be mixed.

    Attributes:
        probs: `[n, predictors]`, the last column the new predictor's relative frequencies.
        buckets: `[n]`, how often each event's context was seen, as `_bucket` has it.
    """

    probs: Floats
    buckets: NDArray[np.int64]

    def mix(self, weights: Floats) -> Floats:
        """Compute the weighted sum of the predictors, `[n]`.

        Args:
            weights: `[BUCKETS, predictors]`.
        """
        mixed: Floats = np.einsum("nk,nk->n", self.probs, weights[self.buckets])
        return mixed

    def fit(self) -> Floats:
        """Fit the weights of a mixture by expectation maximisation.

        Every predictor is credited with one event more than it explains, so no weight that can be
        above 0 becomes 0, and what was never seen keeps a probability.

        Returns:
            `[BUCKETS, predictors]`, summing to 1 in each bucket.
        """
        predictors = self.probs.shape[1]
        weights = _even(predictors)
        possible = weights > 0
        for _ in range(ITERATIONS):
            # Expectation: each predictor's share in each event.
            credit = weights[self.buckets] * self.probs
            credit /= credit.sum(axis=1, keepdims=True)

            # Maximisation: a predictor's weight is its share in all events of the bucket.
            explained = possible.astype(np.float64)
            for predictor in range(predictors):
                explained[:, predictor] += np.bincount(self.buckets, credit[:, predictor], BUCKETS)
            renewed = explained / explained.sum(axis=1, keepdims=True)
            moved = float(np.abs(renewed - weights).max())
            weights = renewed
            if moved < TOLERANCE:
                break
        return weights


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
        """Count the text; weights are even until `fit`.

        Args:
            counted: tokens of the training text, each with its neighbours.
            vocab_size: number of token ids, which lie below it.
            special: ids of special tokens, which have probability 0.
        """
        self.vocab_size = vocab_size
        self._uniform = 1.0 / (vocab_size - len(special))
        self._total = len(counted)
        tokens = counted.tokens
        left = counted.left
        right = counted.right
        self._unigrams = np.bincount(tokens, minlength=vocab_size)
        # Counts of each neighbour on either side, and of each pair with it.
        self._side_contexts = {
            "left": np.bincount(left, minlength=vocab_size),
            "right": np.bincount(right, minlength=vocab_size),
        }
        self._side_pairs = {
            "left": CountTable(self._code(left, tokens)),
            "right": CountTable(self._code(right, tokens)),
        }
        self._contexts = CountTable(self._code(left, right))
        self._triples = CountTable(self._code(left, right, tokens))
        sizes = {"unigram": 2, "left": 2, "right": 2, "both": 4}
        self._weights = {name: _even(size) for name, size in sizes.items()}

    def fit(self, events: Neighborhoods) -> None:
        """Fit the weights by expectation maximisation, those of the simpler predictors first.

        Args:
            events: tokens that were not counted, each with its neighbours.
        """
        self._predict(events, fit=True)

    def probabilities(self, events: Neighborhoods) -> tuple[Floats, Floats, Floats]:
        """Compute each token's probability: by frequency, given its left neighbour, given both."""
        return self._predict(events, fit=False)

    def _predict(self, events: Neighborhoods, *, fit: bool) -> tuple[Floats, Floats, Floats]:
        """Mix the predictors, the simpler ones first, with weights fitted to the events or not."""
        mixed: dict[str, Floats] = {}
        for name in self._weights:
            mixture = self._mixture(name, events, mixed)
            if fit:
                self._weights[name] = mixture.fit()
            mixed[name] = mixture.mix(self._weights[name])
        return mixed["unigram"], mixed["left"], mixed["both"]

    def _mixture(self, name: str, events: Neighborhoods, simpler: dict[str, Floats]) -> Mixture:
        """Return the distributions that a predictor mixes.

        Args:
            name: unigram, left, right or both.
            events: the tokens to predict.
            simpler: probabilities by the predictors before it, each `[n]`.
        """
        tokens = events.tokens
        if name == "unigram":
            base = [np.full(len(events), self._uniform)]
            counts = self._unigrams[tokens]
            contexts = np.full(len(events), self._total)
        elif name == "both":
            base = [simpler["unigram"], simpler["left"], simpler["right"]]
            counts = self._triples.count(self._code(events.left, events.right, tokens))
            contexts = self._contexts.count(self._code(events.left, events.right))
        else:
            base = [simpler["unigram"]]
            neighbor = events.left if name == "left" else events.right
            counts = self._side_pairs[name].count(self._code(neighbor, tokens))
            contexts = self._side_contexts[name][neighbor]
        # The relative frequency is 0 where the context was never seen.
        relative = np.asarray(counts / np.maximum(contexts, 1), np.float64)
        return Mixture(np.stack([*base, relative], axis=1), _bucket(contexts))

    def _code(self, *ids: Ids) -> NDArray[np.int64]:
        """Encode several ids as one number: its digits to the base of the vocabulary's size."""
        code = np.zeros(len(ids[0]), np.int64)
        for digits in ids:
            code *= self.vocab_size
            code += digits
        return code


class CountTable:
    """How often each of many numbers occurs: the different ones in order, and their counts."""

    def __init__(self, codes: NDArray[np.int64]):
        """Count the numbers, which are sorted in place.

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
        """Look up how often each of `codes` occurred; 0 where it never did."""
        if not len(self._codes):
            return np.zeros(len(codes), np.int64)
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        return np.where(self._codes[places] == codes, self._counts[places], 0)


def _bucket(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Compute 1 + floor(log2(count)), at most `BUCKETS - 1`; 0 where a context was never seen."""
    exponents = np.frexp(counts.astype(np.float64))[1]
    return np.minimum(np.where(counts > 0, exponents, 0), BUCKETS - 1).astype(np.int64)


def _even(predictors: int) -> Floats:
    """Build even weights of every bucket, `[BUCKETS, predictors]`.

    The last predictor has none where its context was never seen.
    """
    weights = np.ones((BUCKETS, predictors))
    weights[0, -1] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
