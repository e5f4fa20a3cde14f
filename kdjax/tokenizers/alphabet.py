"""The characters of a training text that get entries of their own in a vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from tokenizers import normalizers


def count_characters(normalizer: normalizers.Normalizer, texts: Iterable[str]) -> Counter[str]:
    """Count the characters of normalized texts, white space aside."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    for space in list(filter(str.isspace, counts)):
        del counts[space]
    return counts


def most_frequent(counts: Mapping[str, int], most: int) -> tuple[list[str], float]:
    """Choose the most frequent characters; ties are broken by code point.

    Args:
        counts: character -> how often it occurs.
        most: the most characters that are chosen.

    Returns:
        The characters by code point, and the share of all occurrences that are of others.
    """
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    alphabet = sorted(ranked[:most])
    covered = sum(counts[character] for character in alphabet)
    return alphabet, 1 - covered / max(1, sum(counts.values()))
