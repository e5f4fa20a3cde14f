"""Settings of minimal pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdjax.config.values import check_range, expect
from kdjax.errors import InputError
from kdjax.storage.paths import check_setting

PairSetName = Literal["blimp", "supplement", "ewok"]
Scoring = Literal["pll", "within_word_l2r"]

PAIR_SETS: tuple[PairSetName, ...] = ("blimp", "supplement", "ewok")
"""The sets of pairs that can be read."""
SCORINGS: tuple[Scoring, ...] = ("pll", "within_word_l2r")
"""The ways to score a sentence."""


@dataclass(frozen=True)
class MinimalPairsConfig:
    """Minimal pairs: whether the MLM head finds the acceptable sentence of two more probable."""

    directory: str = ""
    """Directory in the layout of BabyLM's evaluation data: in it `blimp_filtered`,
    `supplement_filtered` and `ewok_filtered` (or `blimp_fast`, ...), each with .jsonl files. Empty:
    no minimal pairs."""
    sets: tuple[PairSetName, ...] = PAIR_SETS
    """Which of them are measured, one or more."""
    scoring: tuple[Scoring, ...] = ("pll",)
    """How a sentence is scored: the sum of its tokens' log-probabilities, each token masked in turn
    (`pll`), and later tokens of its word with it (`within_word_l2r`). Endpoints are by the first of
    them, the others stand beside it."""
    batch_tokens: int = 2048
    """Tokens of a batch, sentences x length, padding included; 1 to 16,777,216. A sentence that is
    longer is a batch by itself."""

    def __post_init__(self) -> None:
        where = "evaluation.minimal_pairs"
        check_setting(self.directory, f"{where}.directory")
        check_range(self, f"{where}.", 1, 2**24, "batch_tokens")
        for name, known in (("sets", PAIR_SETS), ("scoring", SCORINGS)):
            values = getattr(self, name)
            expected = f"one or more of {', '.join(known)}, each once"
            expect(bool(values), f"{where}.{name}", "empty", expected)
            if not set(values) <= set(known) or len(set(values)) < len(values):
                raise InputError(f"{where}.{name} is {list(values)}, expected {expected}")
