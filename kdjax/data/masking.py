"""The choice of the tokens that are hidden from the model, as a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kdjax.config import DataConfig, MaskingConfig
from kdjax.data.mask_units import choose, find_words
from kdjax.tokenizers.word_boundaries import WordBoundaries


@dataclass(frozen=True)
class MaskSettings:
    """A recipe's settings of masking.

    Attributes:
        mlm_probability: share of a sequence's maskable tokens to mask.
        max_predictions: S, the most tokens of a sequence that are masked.
        masking: which tokens are chosen, and what takes their place.
    """

    mlm_probability: float
    max_predictions: int
    masking: MaskingConfig = MaskingConfig()

    @classmethod
    def from_config(cls, config: DataConfig) -> MaskSettings:
        """Take the settings of masking out of those of the data."""
        return cls(config.mlm_probability, config.max_predictions, config.masking)


@dataclass(frozen=True)
class MaskRule:
    """All that the masks of a corpus depend on besides its sequences.

    Attributes:
        settings: how many tokens are masked, which, and what takes their place.
        vocab_size: ids are below it.
        special_ids: distinct ids that are neither masked nor drawn.
        mask_id: id of [MASK].
        boundaries: where words begin; needed where words or spans are chosen.
    """

    settings: MaskSettings
    vocab_size: int
    special_ids: Sequence[int]
    mask_id: int
    boundaries: WordBoundaries | None = None


class MaskedSequence(NamedTuple):
    """A sequence with some of its tokens masked; the names are those of a batch's arrays.

    Attributes:
        tokens: `[L]` int32: the tokens that the model sees.
        slots: `[S]` int32: masked positions, in ascending order; 0 where unused.
        labels: `[S]` int32: the tokens that were there; 0 where unused.
        label_weights: `[S]` float32: 1 for a masked position, 0 where unused.
    """

    tokens: np.ndarray
    slots: np.ndarray
    labels: np.ndarray
    label_weights: np.ndarray


def mask(
    tokens: np.ndarray,
    segments: np.ndarray,
    rule: MaskRule,
    *,
    seed: int,
    sequence: int,
    epoch: int,
) -> MaskedSequence:
    """Mask a sequence for language modelling (Devlin et al. 2019, arXiv 1810.04805, section 3.1).

    Of m maskable tokens, `min(max_predictions, max(1, round(mlm_probability * m)))` are chosen
    (none if m is 0); each is replaced by [MASK] with probability `masking.mask`, by a token
    drawn from all but the special ones with `masking.random`, and stays with `masking.keep`: 0.8,
    0.1 and 0.1 by default. Words and spans are chosen in `kdjax.data.mask_units`: no more tokens
    than these, and rarely fewer. The result depends on the arguments alone: (seed, sequence, epoch)
    is the key and counter of a Philox stream, so no two triples share random numbers.

    Args:
        tokens: `[L]` token ids.
        segments: `[L]` segment numbers; 0 is padding.
        rule: how many tokens are masked, which may be, and what takes their place.
        seed: seed of the run.
        sequence: number of the sequence in its split.
        epoch: number of times that the split was read before.

    Example:
        >>> tokens = np.array([2, 10, 11, 12, 13, 3, 0, 0])  # [CLS], four words, [SEP], padding
        >>> settings = MaskSettings(mlm_probability=0.5, max_predictions=3)
        >>> rule = MaskRule(settings, vocab_size=20, special_ids=(0, 2, 3, 4), mask_id=4)
        >>> masked = mask(tokens, np.sign(tokens), rule, seed=0, sequence=0, epoch=0)
        >>> masked.tokens.tolist()
        [2, 4, 11, 4, 13, 3, 0, 0]
        >>> masked.slots.tolist(), masked.labels.tolist(), masked.label_weights.tolist()
        ([1, 3, 0], [10, 12, 0], [1.0, 1.0, 0.0])
    """
    settings = rule.settings
    masking = settings.masking
    key = np.array([seed % 2**64, sequence], np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, epoch]))
    maskable = segments > 0
    for special in rule.special_ids:
        maskable &= tokens != special

    # Which tokens: those with the smallest random numbers, in their order in the sequence, or
    # likewise words and spans.
    candidates = np.flatnonzero(maskable)
    wanted = max(1, round(settings.mlm_probability * len(candidates)))
    count = min(settings.max_predictions, wanted, len(candidates))
    if masking.unit == "token":
        ranked = candidates[np.argsort(rng.random(len(candidates)), kind="stable")]
        positions = np.sort(ranked[:count])
        action, draw = rng.random((2, count))
    else:
        # Whole words or spans, which may leave some of the count over.
        words = find_words(tokens, segments, maskable, rule.boundaries)
        choice = choose(words, count, masking, rng)
        positions = choice.positions
        count = len(positions)
        action, draw = rng.random((2, count))
        action = action[choice.action_of]

    # A number below the count of ordinary tokens becomes the id of the ordinary token of that rank.
    drawn = (draw * (rule.vocab_size - len(rule.special_ids))).astype(np.int32)
    for special in sorted(rule.special_ids):
        drawn += drawn >= special

    masked = tokens.astype(np.int32)
    hidden = masked[positions]
    # From the end: 1 - 0.1 is exactly the double 0.9, where a sum of shares may miss it.
    replaced = np.where(action < 1 - masking.keep, drawn, hidden)
    masked[positions] = np.where(action < masking.mask, rule.mask_id, replaced)

    # Padded to S, so that every batch has the same shapes.
    slots = np.zeros(settings.max_predictions, np.int32)
    slots[:count] = positions
    labels = np.zeros(settings.max_predictions, np.int32)
    labels[:count] = hidden
    weights = np.zeros(settings.max_predictions, np.float32)
    weights[:count] = 1.0
    return MaskedSequence(masked, slots, labels, weights)
