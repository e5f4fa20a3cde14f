"""Batches whose masking rate changes as a run goes on: the same whoever reads them, and when."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from kdjax.data.corpus import Corpus
from kdjax.data.loader import Batches
from kdjax.data.mask_rate import EqualSteps, MaskRate
from kdjax.data.masking import MaskSettings
from kdjax.errors import InputError
from tests.data.batches import originals
from tests.data.test_loader import same

BATCH = 8
RATE = MaskRate(0.5, 0.1, (EqualSteps(0, BATCH, 0.0, 0.02),))
"""Fifty steps, about two epochs of the shared corpus."""
SLOTS = 12


def stream(corpus: Corpus, rate: MaskRate | None = RATE, **changes: Any) -> Batches:
    settings: dict[str, Any] = {
        "batch_size": BATCH,
        "seed": 3,
        "mask_settings": MaskSettings(0.1, SLOTS),
    }
    return Batches(corpus, **{**settings, "mask_rate": rate, **changes})


def test_rows_of_a_step_have_its_rate_in_every_epoch(corpus: Corpus) -> None:
    batches = stream(corpus)
    # A step of the first epoch, one of both, one of the second.
    straddling = batches.sequences // BATCH
    for step in (0, straddling, 45):
        batch = batches[step]
        maskable = (batch["valid"].sum(axis=1) - 2).astype(float)
        expected = RATE.at_fraction(step * 0.02) * maskable
        # [CLS] and [SEP] of further segments are not maskable either.
        masked = batch["label_weights"].sum(axis=1)
        assert np.all(masked <= np.maximum(1, np.round(expected)))
        assert masked.mean() == pytest.approx(expected.mean(), rel=0.3)
    assert batches[0]["label_weights"].sum() > 2 * batches[45]["label_weights"].sum()
    # Only the masks differ from those of one rate.
    assert originals(batches[7]) == originals(stream(corpus, None)[7])


@pytest.mark.parametrize("mask_copies", [0, 2])
def test_resumed_and_split_streams_read_the_same_masks(corpus: Corpus, mask_copies: int) -> None:
    batches = stream(corpus, mask_copies=mask_copies)
    whole = [batches[step] for step in range(4)]
    # From the third step on
    for step, (seen, batch) in enumerate(itertools.islice(batches.iterate(2 * BATCH), 2), 2):
        assert seen == step * BATCH
        assert same(batch, whole[step])
    # A process that reads every other row
    rows = np.arange(1, BATCH, 2)
    for step, (_, batch) in enumerate(itertools.islice(batches.iterate(0, rows), 4)):
        assert same(batch, {name: values[rows] for name, values in whole[step].items()})
    # Batches of another size at the same places, as an audit reads them
    audited = stream(corpus, mask_copies=mask_copies, batch_size=4 * BATCH)[0]
    joined = {name: np.concatenate([b[name] for b in whole]) for name in audited}
    assert same(audited, joined)


def test_rate_that_stays_gives_the_masks_of_one_rate(corpus: Corpus) -> None:
    flat = MaskRate(0.1, 0.1, RATE.spans)
    assert same(stream(corpus, flat)[5], stream(corpus, None)[5])


def test_rate_that_changes_is_refused_beside_stored_outputs(corpus: Corpus) -> None:
    class Stored:
        directory = corpus.directory
        manifest = None

    with pytest.raises(InputError, match="stored outputs belong to masks of one rate"):
        stream(corpus, mask_copies=1, cache=Stored())
