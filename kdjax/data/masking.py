"""Which tokens of a sequence are hidden from the model, as a pure function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdjax.config import MaskingConfig


def mask(
    tokens: np.ndarray,
    segments: np.ndarray,
    *,
    seed: int,
    sequence: int,
    epoch: int,
    mlm_probability: float,
    max_predictions: int,
    vocab_size: int,
    special_ids: Sequence[int],
    mask_id: int,
    masking: MaskingConfig = MaskingConfig(),
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mask a sequence for language modelling (Devlin et al. 2019, arXiv 1810.04805, section 3.1).

    Of m maskable tokens, `min(max_predictions, max(1, round(mlm_probability * m)))` are chosen
    (none if m is 0); each is replaced by [MASK] with probability `masking.mask`, by a token drawn
    from all but the special ones with `masking.random`, and stays with `masking.keep`: 0.8, 0.1 and
    0.1 by default. The result depends on the arguments alone: (seed, sequence, epoch) is the key
    and counter of a Philox stream, so no two triples share random numbers.

    Args:
        tokens: `[L]` token ids.
        segments: `[L]` segment numbers; 0 is padding.
        seed: seed of the run.
        sequence: number of the sequence in its split.
        epoch: number of times that the split was read before.
        mlm_probability: share of the maskable tokens to mask.
        max_predictions: S, the most that are masked.
        vocab_size: ids are below it.
        special_ids: distinct ids that are neither masked nor drawn.
        mask_id: id of [MASK].
        masking: what takes the place of a chosen token.

    Returns:
        The masked tokens `[L]` int32; the masked positions `[S]` int32 in ascending order; the
        tokens that were there `[S]` int32; and weights `[S]` float32, 1 for a masked position.
        Unused slots are 0 in the last three.
    """
    key = np.array([seed % 2**64, sequence], np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, epoch]))
    maskable = segments > 0
    for special in special_ids:
        maskable &= tokens != special

    # Which tokens: those with the smallest random numbers, in their order in the sequence.
    candidates = np.flatnonzero(maskable)
    count = min(max_predictions, max(1, round(mlm_probability * len(candidates))), len(candidates))
    ranked = candidates[np.argsort(rng.random(len(candidates)), kind="stable")]
    positions = np.sort(ranked[:count])
    action, draw = rng.random((2, count))

    # A number below the count of ordinary tokens becomes the id of the ordinary token of that rank.
    drawn = (draw * (vocab_size - len(special_ids))).astype(np.int32)
    for special in sorted(special_ids):
        drawn += drawn >= special

    masked = tokens.astype(np.int32)
    hidden = masked[positions]
    # From the end: 1 - 0.1 is exactly the double 0.9, where a sum of shares may miss it.
    replaced = np.where(action < 1 - masking.keep, drawn, hidden)
    masked[positions] = np.where(action < masking.mask, mask_id, replaced)

    # Padded to S, so that every batch has the same shapes.
    slots = np.zeros(max_predictions, np.int32)
    slots[:count] = positions
    labels = np.zeros(max_predictions, np.int32)
    labels[:count] = hidden
    weights = np.zeros(max_predictions, np.float32)
    weights[:count] = 1.0
    return masked, slots, labels, weights
