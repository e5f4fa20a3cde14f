"""The shuffled control: held-out sequences whose visible tokens have lost their order.

What a model loses on them is what it gets from the order of the words around a masked position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def shuffle_visible(
    batches: Sequence[Mapping[str, Any]], special_ids: Sequence[int], seed: int
) -> list[dict[str, np.ndarray]]:
    """Permute the visible tokens of each segment; masked slots, labels and all else stay.

    Visible are valid positions that hold no special token and are no masked slot, also where the
    slot kept its token or got a random one. Tokens stay within their segment, since attention does:
    a segment keeps its words and loses their order.

    Args:
        batches: MLM batches: `tokens`, `segments` `[B, L]`, `valid` bool `[B, L]`, `slots` and
            `label_weights` `[B, S]`.
        special_ids: token ids that stay in place.
        seed: decides the permutations, together with the number of the batch and of the row.
    """
    shuffled = []
    for number, batch in enumerate(batches):
        tokens = np.array(batch["tokens"])
        visible = np.asarray(batch["valid"]) & ~np.isin(tokens, list(special_ids))
        rows, slots = np.nonzero(np.asarray(batch["label_weights"]) > 0)
        # A masked position stays masked: it is what the model is asked about.
        visible[rows, np.asarray(batch["slots"])[rows, slots]] = False
        for row, segments in enumerate(np.asarray(batch["segments"])):
            rng = np.random.default_rng([seed, number, row])
            for segment in np.unique(segments[visible[row]]):
                positions = np.flatnonzero(visible[row] & (segments == segment))
                tokens[row, positions] = tokens[row, rng.permutation(positions)]
        shuffled.append({**batch, "tokens": tokens})
    return shuffled
