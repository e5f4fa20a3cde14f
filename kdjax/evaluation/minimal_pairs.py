"""Minimal pairs: whether a model finds the acceptable sentence of two more probable.

A sentence's score is its pseudo-log-likelihood (Salazar et al. 2020, arXiv 1910.14659, equation 1):
the sum over its tokens of log p(token), each masked in turn, in nats and not divided by the number
of tokens. By `within_word_l2r` (Kauf and Ivanova 2023, arXiv 2305.10588) later tokens of the same
word are masked too. [CLS] and [SEP] are not scored.

Letters in shapes: B batch, L length, R rows, N sentences, P pairs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from kdjax.budget.price import check_agreement, count_program_flops
from kdjax.config import ModelConfig
from kdjax.data.minimal_pairs import LENGTH_STEP, PairSet
from kdjax.errors import Diverged
from kdjax.evaluation.pair_scores import ScoredPairs, judge
from kdjax.models import abstract_params, forward
from kdjax.models.features import FeatureRequest
from kdjax.models.ops import log_softmax
from kdjax.objectives.reductions import require_logits

RowNumbers = NDArray[np.int64]
"""`[R, 2]`: a sentence, and the position of the token that is masked and scored in it."""


def score_pairs(
    model: ModelConfig, params: Any, pairs: PairSet, scoring: Sequence[str], batch_tokens: int
) -> dict[str, ScoredPairs]:
    """Score a model on a set of pairs, without dropout, in float32.

    Args:
        model: configuration of the model.
        params: parameters of the model, with an MLM head.
        pairs: the pairs, tokenised.
        scoring: ways to score, of `pll` and `within_word_l2r`.
        batch_tokens: tokens of a batch, padding included.

    Returns:
        Way to score -> what the pairs come to.

    Raises:
        InputError: the model has no MLM head, fewer positions than a sentence has tokens, or a
            score that is not finite.

    Example:
        >>> scored = score_pairs(model, params, pairs, ["pll"], batch_tokens=256)
        >>> 0 <= scored["pll"].accuracy <= 1
        True
    """
    # On the device once, not with every batch.
    params = jax.tree.map(jnp.asarray, params)
    results = {}
    for name, scores in _scores(model, params, pairs, scoring, batch_tokens).items():
        if not np.isfinite(scores).all():
            raise Diverged(
                f"minimal pairs {pairs.name}, {name}: a score is not finite; the model has diverged"
            )
        good = scores[pairs.good]
        bad = scores[pairs.bad]
        results[name] = judge(good, bad, pairs.phenomenon, pairs.phenomena)
    return results


def pairs_flops(
    model: ModelConfig, pairs: PairSet, scoring: Sequence[str], batch_tokens: int
) -> int:
    """Count the FLOPs of scoring a set of pairs, by the FLOP counter that prices training steps.

    Args:
        model: configuration of the model.
        pairs: the pairs, tokenised.
        scoring: ways to score, of `pll` and `within_word_l2r`.
        batch_tokens: tokens of a batch, padding included.

    Raises:
        FlopCountError: XLA and the independent count disagree.
    """
    total = 0
    for rows, _ in _passes(pairs, scoring):
        for _, length in _batches(pairs, rows, batch_tokens):
            total += _flops(model, _batch_size(batch_tokens, length), length)
    return total


def _scores(
    model: ModelConfig, params: Any, pairs: PairSet, scoring: Sequence[str], batch_tokens: int
) -> dict[str, NDArray[np.float64]]:
    """Compute the scores `[N]` of all sentences, way by way."""
    # `[N, L]`: the log-probability of each token; 0 where it is not scored.
    log_probs = np.zeros(pairs.tokens.shape, np.float64)
    scores = {}
    for name, (rows, later) in zip(_order(scoring), _passes(pairs, scoring), strict=True):
        values = token_log_probs(model, params, pairs, rows, later=later, batch_tokens=batch_tokens)
        log_probs[rows[:, 0], rows[:, 1]] = values
        scores[name] = log_probs.sum(axis=1)
    return {name: scores[name] for name in scoring}


def _order(scoring: Sequence[str]) -> list[str]:
    """Return ways to score in the order in which they are computed: `pll` is first."""
    return sorted(scoring)


def _passes(pairs: PairSet, scoring: Sequence[str]) -> Iterator[tuple[RowNumbers, bool]]:
    """Yield, for each way to score, the rows it takes and whether later tokens are masked.

    After `pll`, `within_word_l2r` takes only tokens that have later ones in their word: for the
    last token of a word both mask the same.
    """
    every = np.argwhere(pairs.scored)
    for name in _order(scoring):
        if name == "pll":
            yield every, False
        elif "pll" in scoring:
            yield np.argwhere(pairs.scored & _goes_on(pairs.words)), True
        else:
            yield every, True


def _goes_on(words: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return a mask of the tokens whose next token is of the same word, `[N, L]`."""
    same = np.zeros(words.shape, bool)
    same[:, :-1] = (words[:, :-1] == words[:, 1:]) & (words[:, :-1] >= 0)
    return same


def token_log_probs(
    model: ModelConfig,
    params: Any,
    pairs: PairSet,
    rows: RowNumbers,
    *,
    later: bool,
    batch_tokens: int,
) -> NDArray[np.float64]:
    """Compute log p(token) in nats of tokens that are masked one at a time.

    Rows of like length are computed together, in batches of one shape for each length, so that a
    program is compiled once per length for all runs of a process.

    Args:
        model: configuration of the model.
        params: parameters of the model, with an MLM head.
        pairs: the sentences, tokenised.
        rows: `[R, 2]` sentences and positions.
        later: whether later tokens of the same word are masked with it.
        batch_tokens: tokens of a batch, padding included.

    Returns:
        `[R]`.
    """
    chunks = []
    results: list[jax.Array] = []
    for chosen, length in _batches(pairs, rows, batch_tokens):
        batch = _masked(pairs, rows[chosen], length, later=later)
        # The last batch of a length is filled up with empty rows, to have the same shape.
        missing = _batch_size(batch_tokens, length) - len(chosen)
        padded = {name: np.pad(values, [(0, missing), (0, 0)]) for name, values in batch.items()}
        # One batch ahead: the device does not wait for the host, nor does it hold them all.
        jax.block_until_ready(results[-2:-1])
        results.append(_compiled(model, params, padded))
        chunks.append(chosen)
    values = np.zeros(len(rows), np.float64)
    for chosen, result in zip(chunks, jax.device_get(results), strict=True):
        values[chosen] = result[: len(chosen)]
    return values


def _batches(
    pairs: PairSet, rows: RowNumbers, batch_tokens: int
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yield indices of rows of like length, as many as a batch has, and the length."""
    steps = -(-pairs.lengths // LENGTH_STEP) * LENGTH_STEP
    lengths = np.minimum(steps, pairs.tokens.shape[1])[rows[:, 0]]
    for length in np.unique(lengths):
        of_length = np.flatnonzero(lengths == length)
        size = _batch_size(batch_tokens, int(length))
        for start in range(0, len(of_length), size):
            yield of_length[start : start + size], int(length)


def _batch_size(batch_tokens: int, length: int) -> int:
    """Return the number of rows of a length in a batch."""
    return max(1, batch_tokens // length)


def _masked(
    pairs: PairSet, rows: RowNumbers, length: int, *, later: bool
) -> dict[str, NDArray[np.int32]]:
    """Make a batch of rows, each with its token masked, and perhaps later ones of its word."""
    sentences = rows[:, 0]
    positions = rows[:, 1:]
    columns = np.arange(length, dtype=np.int32)
    masked = columns == positions
    if later:
        words = pairs.words[sentences, :length]
        word = np.take_along_axis(words, positions, axis=1)
        masked |= (words == word) & (word >= 0) & (columns > positions)
    tokens = pairs.tokens[sentences, :length]
    valid = columns < pairs.lengths[sentences, None]
    return {
        "tokens": np.where(masked, np.int32(pairs.mask_id), tokens),
        "segments": valid.astype(np.int32),
        "positions": columns * valid,
        "slots": positions.astype(np.int32),
        "labels": np.take_along_axis(tokens, positions, axis=1),
    }


def _label_log_probs(model: ModelConfig, params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    """Compute log p(label) at the slot of each row, `[B]`."""
    # The head runs at the one slot of a row alone.
    features = forward(model, params, batch, FeatureRequest(logits=True))
    log_probs = log_softmax(require_logits(features.logits))
    return jnp.take_along_axis(log_probs, batch["labels"][..., None], axis=-1)[:, 0, 0]


_compiled = jax.jit(_label_log_probs, static_argnums=0)


@functools.cache
def _flops(model: ModelConfig, size: int, length: int) -> int:
    """Count the FLOPs of one batch."""
    tokens = jax.ShapeDtypeStruct((size, length), jnp.int32)
    slots = jax.ShapeDtypeStruct((size, 1), jnp.int32)
    batch = {
        "tokens": tokens,
        "segments": tokens,
        "positions": tokens,
        "slots": slots,
        "labels": slots,
    }
    program = functools.partial(_label_log_probs, model)
    return check_agreement(
        count_program_flops(program, abstract_params(model), batch), "minimal pairs"
    )
