"""Masks: the right share, never a special token, and a function of nothing but the arguments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kdjax.config import MaskingConfig
from kdjax.data.masking import MaskedSequence, MaskRule, MaskSettings, mask
from tests.support.doctests import check_example

SPECIAL = (0, 1, 2, 3, 4)
MASK = 4
VOCABULARY = 1000
SETTINGS = MaskSettings(mlm_probability=0.15, max_predictions=20)
RULE = MaskRule(
    SETTINGS,
    vocab_size=VOCABULARY,
    special_ids=SPECIAL,
    mask_id=MASK,
)


def sequence(number: int = 0, length: int = 128, padding: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Make two segments framed by special tokens 2 and 3, one unknown token, padding."""
    rng = np.random.default_rng(number)
    tokens = rng.integers(len(SPECIAL), VOCABULARY, length)
    segments = np.where(np.arange(length) < 50, 1, 2)
    tokens[[0, 50]] = 2
    tokens[[49, length - padding - 1]] = 3
    tokens[7] = 1
    if padding:
        tokens[-padding:] = 0
        segments[-padding:] = 0
    return tokens.astype(np.int32), segments.astype(np.int32)


def masked(
    tokens: np.ndarray,
    segments: np.ndarray,
    *,
    seed: int = 0,
    sequence: int = 0,
    epoch: int = 0,
    **changes: Any,
) -> MaskedSequence:
    settings = {}
    for name in ("mlm_probability", "max_predictions", "masking"):
        if name in changes:
            settings[name] = changes.pop(name)
    rule = replace(RULE, settings=replace(SETTINGS, **settings), **changes)
    return mask(tokens, segments, rule, seed=seed, sequence=sequence, epoch=epoch)


def test_slots_labels_and_weights_describe_the_masked_tokens() -> None:
    tokens, segments = sequence()
    before = tokens.copy()
    changed, slots, labels, weights = masked(tokens, segments)
    assert np.array_equal(tokens, before)
    # Padding, four tokens of frames and one unknown token aside.
    maskable = 128 - 8 - 4 - 1
    used = int(weights.sum())
    assert used == round(0.15 * maskable) == 17
    assert weights.tolist() == [1.0] * used + [0.0] * 3
    assert np.array_equal(labels[:used], tokens[slots[:used]])
    assert np.all(np.diff(slots[:used]) > 0)
    assert not slots[used:].any()
    assert not labels[used:].any()
    # All other tokens are as they were.
    untouched = np.setdiff1d(np.arange(128), slots[:used])
    assert np.array_equal(changed[untouched], tokens[untouched])
    assert [a.dtype for a in (changed, slots, labels, weights)] == [
        np.int32,
        np.int32,
        np.int32,
        np.float32,
    ]


def test_special_tokens_and_padding_are_never_masked_nor_drawn() -> None:
    tokens, segments = sequence()
    allowed = (segments > 0) & ~np.isin(tokens, SPECIAL)
    for epoch in range(300):
        changed, slots, _, weights = masked(
            tokens, segments, epoch=epoch, mlm_probability=0.5, max_predictions=60
        )
        chosen = slots[weights > 0]
        assert allowed[chosen].all()
        assert not np.isin(changed[chosen], (0, 1, 2, 3)).any()


def test_masks_follow_80_10_10_and_are_uniform_over_positions() -> None:
    counts = {"mask": 0, "kept": 0, "drawn": 0}
    places = np.zeros(128)
    drawn_tokens = []
    for number in range(2000):
        tokens, segments = sequence(number)
        changed, slots, labels, weights = masked(tokens, segments, sequence=number)
        chosen = slots[weights > 0]
        labels = labels[weights > 0]
        now = changed[chosen]
        places[chosen] += 1
        counts["mask"] += int(np.sum(now == MASK))
        counts["kept"] += int(np.sum(now == labels))
        drawn_tokens.append(now[(now != MASK) & (now != labels)])
    # The share of each of the three actions.
    drawn = np.concatenate(drawn_tokens)
    total = 2000 * 17
    error = 4 * np.sqrt(0.25 / total)  # four standard deviations at most
    assert counts["mask"] / total == pytest.approx(0.8, abs=error)
    assert counts["kept"] / total == pytest.approx(0.1, abs=error)
    assert len(drawn) / total == pytest.approx(0.1, abs=error)
    # Drawn tokens are uniform over the 995 ordinary ones: mean and extremes.
    assert drawn.mean() == pytest.approx((5 + 999) / 2, abs=4 * 995 / np.sqrt(12 * len(drawn)))
    assert drawn.min() <= 8
    assert drawn.max() >= 996
    # Every position that can be masked is masked about as often.
    expected = total / 115
    maskable = places > 0
    assert maskable.sum() == 115
    assert np.all(np.abs(places[maskable] - expected) < 5 * np.sqrt(expected))


def test_all_ordinary_tokens_can_be_drawn_when_special_ones_lie_between() -> None:
    special = (0, 3, 4, 7)
    tokens = np.full(64, 5, np.int32)
    segments = np.ones(64, np.int32)
    seen: set[int] = set()
    for epoch in range(400):
        changed, *_ = masked(
            tokens,
            segments,
            epoch=epoch,
            mlm_probability=0.99,
            max_predictions=63,
            vocab_size=9,
            special_ids=special,
            mask_id=3,
        )
        seen |= set(changed.tolist())
    assert seen == {1, 2, 5, 6, 8, 3}  # the ordinary ones, and [MASK]


@pytest.mark.parametrize(
    ("maskable", "rate", "slots", "count"),
    [
        (0, 0.15, 5, 0),
        (1, 0.15, 5, 1),
        (3, 0.01, 5, 1),
        (40, 0.15, 5, 5),
        (40, 0.15, 9, 6),
        (3, 0.999, 20, 3),
    ],
)
def test_number_of_masked_tokens_is_rounded_and_capped(
    maskable: int, rate: float, slots: int, count: int
) -> None:
    tokens = np.full(maskable + 2, 9, np.int32)
    segments = np.ones(maskable + 2, np.int32)
    tokens[0] = 2
    tokens[-1] = 3
    changed, places, _, weights = masked(
        tokens, segments, mlm_probability=rate, max_predictions=slots
    )
    assert weights.sum() == count
    assert len(places) == slots
    if not count:
        assert np.array_equal(changed, tokens)


def test_seed_sequence_and_epoch_each_change_the_mask_and_nothing_else_does() -> None:
    tokens, segments = sequence()
    first = masked(tokens, segments)
    # NumPy's global state has no part in it.
    np.random.seed(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, masked(tokens, segments), strict=True))
    others = [{"seed": 1}, {"sequence": 1}, {"epoch": 1}, {"seed": 1, "sequence": 1}]
    chosen = {masked(tokens, segments, **change).slots.tobytes() for change in ({}, *others)}
    assert len(chosen) == 5


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((1.0, 0.0, 0.0), {"mask"}),
        ((0.0, 1.0, 0.0), {"drawn"}),
        ((0.0, 0.0, 1.0), {"kept"}),
        ((0.5, 0.0, 0.5), {"mask", "kept"}),
    ],
)
def test_masking_shares_say_what_takes_a_tokens_place(
    shares: tuple[float, float, float], expected: set[str]
) -> None:
    tokens, segments = sequence()
    seen = set()
    for epoch in range(40):
        changed, slots, labels, weights = masked(
            tokens, segments, epoch=epoch, masking=MaskingConfig(*shares)
        )
        used = slots[weights > 0]
        # A drawn token may be the one that was there.
        seen |= {"mask"} if (changed[used] == MASK).any() else set()
        kept = changed[used] == labels[weights > 0]
        seen |= {"kept"} if kept.mean() > 0.1 else set()
        seen |= {"drawn"} if (~kept & (changed[used] != MASK)).any() else set()
    assert seen == expected


def test_default_masking_cuts_at_the_doubles_that_berts_shares_are() -> None:
    default = MaskingConfig()
    assert default == MaskingConfig(mask=0.8, random=0.1, keep=0.1)
    # What is compared with a random number: any other double could change a mask.
    assert (default.mask, 1 - default.keep) == (0.8, 0.9)


def test_example_of_mask_prints_what_it_says() -> None:
    names = {"MaskRule": MaskRule, "MaskSettings": MaskSettings, "mask": mask, "np": np}
    check_example(mask, names)
