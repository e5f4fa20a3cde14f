"""N-gram losses: what a text's own counts say of a masked token, in nats.

A masked language model's loss is held against them. Three predictors know nothing but counts: how
frequent a token is (unigram), what follows its left neighbour, and what stands between both its
neighbours, all of them visible. They are counted on the training split and measured on the held-out
split, in nats a token, as the loss of a model is. Special tokens are not predicted, as they are
never masked; [CLS] and [SEP] are neighbours at the ends of a document's chunks.

The predictors are in `kdjax.data.prepare.neighbors`; their weights are fitted on training sequences
that are not counted.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdjax.data.corpus import Corpus
from kdjax.data.prepare.neighbors import Floats, Neighborhoods, NeighborModel, neighborhoods
from kdjax.errors import InputError
from kdjax.storage.files import write_json
from kdjax.storage.typed_json import read_version

VERSION = 1
"""Version of the file and of the estimator: another one is counted again."""
TRAINING_TOKENS = 20_000_000
"""Training tokens read, at most: sequences spread evenly over the split."""
HELD_OUT_TOKENS = 2_000_000
"""Held-out tokens measured, at most: sequences spread evenly over the split."""
HELD_BACK = 20
"""One in so many of the training sequences is not counted: the weights are fitted on it."""
CHUNK = 8192
"""Sequences read at a time."""


@dataclass(frozen=True)
class NgramLosses:
    """Cross-entropies of a text's held-out split, in nats a token.

    Attributes:
        version: version of the estimator.
        corpus: digest of the corpus, or of the subset of it whose training split was counted.
        unigram: cross-entropy of a token by how frequent it is.
        left_neighbor: cross-entropy of a token given the one before it.
        both_neighbors: cross-entropy of a token given the one before it and the one after it.
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
        """Return the losses and counts by name, without version and digest."""
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


def ngram_losses(corpus: Corpus) -> NgramLosses:
    """Read a corpus's reference losses, or compute and store them beside its manifest.

    A subset of a corpus has its own: its counts are of what a run may see. The file's name has the
    beginning of the digest of the corpus or subset, its content the whole. Where the directory
    cannot be written, nothing is stored.

    Args:
        corpus: the corpus, or a subset of one.

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


PATTERN = "reference-losses-*.json"
"""Names of the files, which hold the beginning of a digest."""


def path_of(corpus: Corpus) -> Path:
    """Return the file of a corpus's reference losses, in the corpus's directory."""
    return corpus.directory / f"reference-losses-{corpus.digest[:16]}.json"


def _read(path: Path, corpus: Corpus) -> NgramLosses | None:
    """Read stored losses; None where there are none, or of another estimator or corpus."""
    if not path.is_file():
        return None
    losses = read(path)
    if losses is None or losses.corpus != corpus.digest:
        return None
    return losses


def read(path: Path) -> NgramLosses | None:
    """Read a file of reference losses; None where they are of another version of the estimator.

    Args:
        path: file of the losses.

    Raises:
        InputError: the file is not whole, or a field is missing or mistyped.
    """
    return read_version(NgramLosses, path, VERSION)


def compute(
    corpus: Corpus, training_tokens: int = TRAINING_TOKENS, held_out_tokens: int = HELD_OUT_TOKENS
) -> NgramLosses:
    """Count a corpus's training tokens and measure its held-out ones.

    The numbers are rounded to six decimals, so that the same text gives the same ones everywhere.

    Args:
        corpus: the corpus, or a subset of it.
        training_tokens: the most training tokens that are read, padding and special tokens
            included.
        held_out_tokens: the most held-out tokens that are read, padding and special tokens
            included.

    Raises:
        InputError: a shard is damaged.
    """
    manifest = corpus.manifest

    # One training sequence in so many is held back from the counts, and the weights are fitted on
    # it.
    chosen = spread_evenly(corpus.sequences("train"), training_tokens // manifest.length)
    is_back = np.arange(len(chosen)) % HELD_BACK == HELD_BACK - 1
    counted, counted_unknown = _read_neighborhoods(corpus, "train", chosen[~is_back])
    back, _ = _read_neighborhoods(corpus, "train", chosen[is_back])
    model = NeighborModel(counted, manifest.vocab_size, manifest.special_ids)
    model.fit(back)

    held_out = spread_evenly(corpus.sequences("validation"), held_out_tokens // manifest.length)
    measured, measured_unknown = _read_neighborhoods(corpus, "validation", held_out)
    unigram, by_left_neighbor, by_both_neighbors = model.probabilities(measured)
    return NgramLosses(
        version=VERSION,
        corpus=corpus.digest,
        unigram=_cross_entropy(unigram),
        left_neighbor=_cross_entropy(by_left_neighbor),
        both_neighbors=_cross_entropy(by_both_neighbors),
        tokens=len(counted),
        fitted_tokens=len(back),
        held_out_tokens=len(measured),
        unknown={
            "train": counted_unknown / max(1, counted_unknown + len(counted)),
            "validation": measured_unknown / max(1, measured_unknown + len(measured)),
        },
    )


def spread_evenly(available: int, most: int) -> NDArray[np.int64]:
    """Choose at most `most` of `available` sequences, evenly spread; at least one."""
    count = min(available, max(1, most))
    return np.arange(count, dtype=np.int64) * available // count


def _read_neighborhoods(
    corpus: Corpus, split: str, sequences: NDArray[np.int64]
) -> tuple[Neighborhoods, int]:
    """Read the tokens of some sequences with their neighbours, and the number of [UNK] in them."""
    manifest = corpus.manifest
    special = np.array(manifest.special_ids)
    dtype = np.uint16 if manifest.vocab_size <= 2**16 else np.int32
    # Three columns: token, left and right neighbour.
    columns = [np.zeros((3, 0), dtype)]
    unknown = 0
    for start in range(0, len(sequences), CHUNK):
        tokens, segments = corpus.read(split, sequences[start : start + CHUNK])
        unknown += manifest.special.count_unknown(tokens)
        chunk = neighborhoods(tokens, segments, special)
        columns.append(np.stack([chunk.tokens, chunk.left, chunk.right]).astype(dtype))
    return Neighborhoods(*np.concatenate(columns, axis=1)), unknown


def _cross_entropy(probs: Floats) -> float:
    """Compute the mean of -log p in nats, rounded."""
    return round(float(-np.log(probs).mean()), 6)
