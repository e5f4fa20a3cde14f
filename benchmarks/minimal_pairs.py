"""Time minimal pairs: sentences a second, and what all of BLiMP would take.

    python -m benchmarks.minimal_pairs [--pairs 1000] [--vocabulary 8192] [--tokens 10]
        [--batch-tokens 2048]

A student of 2 layers of width 64 and made-up sentences of `--tokens` on average, [CLS] and [SEP]
not counted, every fourth token going on with the word before it. The first pass compiles and is not
timed. Prints a line for each way to score; BLiMP has 67 x 1,000 pairs.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from kdjax import models
from kdjax.config import MinimalPairsConfig, ModelConfig
from kdjax.config.minimal_pairs import SCORINGS
from kdjax.data.minimal_pairs import PairSet
from kdjax.evaluation.minimal_pairs import pairs_flops, score_pairs

BLIMP = 2 * 67_000
"""Sentences of BLiMP."""


def main() -> None:
    """Print a line for each way to score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--tokens", type=int, default=10)
    parser.add_argument("--batch-tokens", type=int, default=MinimalPairsConfig().batch_tokens)
    options = parser.parse_args()
    pairs = make_pairs(options.pairs, options.vocabulary, options.tokens)
    model = ModelConfig(
        layers=2,
        width=64,
        heads=4,
        ffn=256,
        vocab_size=options.vocabulary,
        max_positions=pairs.tokens.shape[1],
    )
    params = models.init(model, 0).params
    for scoring in ((SCORINGS[0],), (SCORINGS[1],), SCORINGS):
        score_pairs(model, params, pairs, scoring, options.batch_tokens)
        start = time.perf_counter()
        score_pairs(model, params, pairs, scoring, options.batch_tokens)
        seconds = time.perf_counter() - start
        rate = len(pairs.tokens) / seconds
        flops = pairs_flops(model, pairs, scoring, options.batch_tokens) / len(pairs.tokens)
        print(
            f"{' and '.join(scoring)}: {rate:,.0f} sentences/s, {flops:.3g} FLOPs a sentence; "
            f"BLiMP {BLIMP / rate:,.0f} s",
            flush=True,
        )


def make_pairs(count: int, vocabulary: int, mean: int) -> PairSet:
    """Make pairs of random tokens, from half to one and a half times as long as the mean."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(mean - mean // 2, mean + mean // 2 + 1, 2 * count) + 2
    width = -(-int(lengths.max()) // 8) * 8
    columns = np.arange(width)
    scored = (columns > 0) & (columns < lengths[:, None] - 1)
    words = np.where(scored, columns - (columns % 4 == 0), -1)
    return PairSet(
        name="blimp",
        phenomena=("made up",),
        phenomenon=np.zeros(count, np.int32),
        good=np.arange(0, 2 * count, 2),
        bad=np.arange(1, 2 * count, 2),
        tokens=rng.integers(5, vocabulary, scored.shape).astype(np.int32),
        lengths=lengths.astype(np.int32),
        words=words.astype(np.int32),
        scored=scored,
        mask_id=4,
        digest="",
    )


if __name__ == "__main__":
    main()
