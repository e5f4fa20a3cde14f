"""Which tokens of a sequence are hidden from the model, as a pure function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mask(
    tokens: np.ndarray,
    segments: np.ndarray,
    *,
    seed: int,
    sequence: int,
    epoch: int,
    rate: float,
    slots: int,
    vocab_size: int,
    special_ids: Sequence[int],
    mask_id: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Masks one sequence for masked language modelling (Devlin et al. 2019, arXiv 1810.04805,
    section 3.1).

    Of m maskable tokens, `min(slots, max(1, round(rate * m)))` are chosen (none if m is 0); each is
    replaced by [MASK] with probability 0.8, by a token drawn from all but the special ones with
    0.1, and kept with 0.1. The result depends
    on the arguments alone: (seed, sequence, epoch) is the key and counter of a Philox stream, so no
    two triples share random numbers.

    Args:
        tokens: `[L]` token ids.
        segments: `[L]` segment numbers; 0 is padding.
        seed: of the run.
        sequence: number of the sequence in its split.
        epoch: how often the split was read before.
        rate: share of the maskable tokens to mask.
        slots: S, the most that are masked.
        vocab_size: ids are below it.
        special_ids: distinct ids that are neither masked nor drawn.
        mask_id: of [MASK].

    Returns: The masked tokens `[L]` int32; the masked positions `[S]` int32 in ascending order; the
        tokens that were there `[S]` int32; and weights `[S]` float32, 1 for a masked position.
        Unused slots are 0 in all three.
    """
    rng = np.random.Generator(
        np.random.Philox(
            key=np.array([seed % 2**64, sequence], np.uint64), counter=[0, 0, 0, epoch]
        )
    )
    maskable = segments > 0
    for special in special_ids:
        maskable &= tokens != special
    candidates = np.flatnonzero(maskable)
    count = min(slots, max(1, round(rate * len(candidates)))) if len(candidates) else 0
    chosen = np.sort(candidates[np.argsort(rng.random(len(candidates)), kind="stable")[:count]])
    action, draw = rng.random((2, count))

    # A number below the count of ordinary tokens becomes the id of the ordinary token of that rank.
    drawn = (draw * (vocab_size - len(special_ids))).astype(np.int32)
    for special in sorted(special_ids):
        drawn += drawn >= special

    masked = tokens.astype(np.int32)
    hidden = masked[chosen]
    masked[chosen] = np.where(action < 0.8, mask_id, np.where(action < 0.9, drawn, hidden))
    places = np.zeros(slots, np.int32)
    labels = np.zeros(slots, np.int32)
    weights = np.zeros(slots, np.float32)
    places[:count], labels[:count], weights[:count] = chosen, hidden, 1.0
    return masked, places, labels, weights
