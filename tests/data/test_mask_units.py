"""Masks of whole words and of spans: whole, in a row, within the budget of tokens, and a function
of nothing but the arguments."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdjax.config import DataConfig, MaskingConfig
from kdjax.data.corpus import Corpus
from kdjax.data.mask_units import WordSpans, choose, find_words
from kdjax.data.masking import MaskedSequence, MaskRule, MaskSettings, mask
from kdjax.data.prepare.local import prepare
from kdjax.errors import InputError
from kdjax.tokenizers.word_boundaries import WordBoundaries
from tests.support.corpora import make_corpus, make_tokenizer
from tests.tokenizers.test_wordpiece import TRAINING, config

__all__ = ["config"]

SPECIAL = (0, 1, 2, 3, 4)
MASK = 4
VOCABULARY = 200
BEGINS = np.arange(VOCABULARY) % 3 == 0
"""Every third entry begins a word."""
BOUNDARIES = WordBoundaries(BEGINS, np.zeros(VOCABULARY, bool))
WORD = MaskRule(
    MaskSettings(0.15, 20, MaskingConfig(unit="word")), VOCABULARY, SPECIAL, MASK, BOUNDARIES
)
SPAN = replace(WORD, settings=MaskSettings(0.15, 20, MaskingConfig(unit="span")))
RULES = {"word": WORD, "span": SPAN}


def sequence(number: int, length: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Make two segments framed by special tokens, a few unknown tokens within, and padding."""
    rng = np.random.default_rng(number)
    tokens = rng.integers(len(SPECIAL), VOCABULARY, length)
    tokens[rng.integers(0, length, 3)] = 1
    segments = np.where(np.arange(length) < length // 3, 1, 2)
    tokens[[0, length // 3]] = 2
    tokens[[length // 3 - 1, -8]] = 3
    tokens[-7:] = 0
    segments[-7:] = 0
    return tokens.astype(np.int32), segments.astype(np.int32)


def words_by_hand(tokens: np.ndarray, segments: np.ndarray) -> list[list[int]]:
    """Return the positions of each word's tokens, one token after the other."""
    words: list[list[int]] = []
    before = -1
    for position, token in enumerate(tokens):
        if segments[position] == 0 or token in SPECIAL:
            continue
        adjoins = before == position - 1 and segments[before] == segments[position]
        if words and adjoins and not BEGINS[token]:
            words[-1].append(position)
        else:
            words.append([position])
        before = position
    return words


def masked(number: int, rule: MaskRule, **key: int) -> tuple[MaskedSequence, set[int]]:
    tokens, segments = sequence(number)
    result = mask(tokens, segments, rule, **{"seed": 0, "sequence": number, "epoch": 0, **key})
    return result, set(result.slots[result.label_weights > 0].tolist())


@pytest.mark.parametrize("unit", RULES)
def test_words_are_masked_whole_and_special_tokens_never(unit: str) -> None:
    for number in range(200):
        tokens, segments = sequence(number)
        result, chosen = masked(number, RULES[unit])
        words = words_by_hand(tokens, segments)
        assert chosen
        assert chosen <= set(itertools.chain.from_iterable(words))
        for word in words:
            assert len(chosen & set(word)) in (0, len(word))
        # What was there is the label, in the order of the sequence.
        slots = sorted(chosen)
        count = len(slots)
        assert result.slots[:count].tolist() == slots
        assert np.array_equal(result.labels[:count], tokens[slots])
        untouched = np.setdiff1d(np.arange(len(tokens)), slots)
        assert np.array_equal(result.tokens[untouched], tokens[untouched])


@pytest.mark.parametrize("unit", RULES)
@pytest.mark.parametrize(("rate", "most"), [(0.15, 20), (0.3, 40), (0.15, 9)])
def test_budget_of_tokens_is_kept_and_nearly_used_up(unit: str, rate: float, most: int) -> None:
    settings = replace(RULES[unit].settings, mlm_probability=rate, max_predictions=most)
    rule = replace(RULES[unit], settings=settings)
    shortfall = []
    for number in range(200):
        tokens, segments = sequence(number)
        _, chosen = masked(number, rule)
        maskable = sum(map(len, words_by_hand(tokens, segments)))
        budget = min(most, max(1, round(rate * maskable)))
        assert len(chosen) <= budget
        shortfall.append(budget - len(chosen))
    # A word of one token, of which a third are, fills the last place.
    assert np.mean(shortfall) < 0.05


@pytest.mark.parametrize("unit", RULES)
def test_replacement_shares_are_right_in_expectation(unit: str) -> None:
    counts = Counter[str]()
    for number in range(1500):
        result, chosen = masked(number, RULES[unit])
        used = result.label_weights > 0
        now = result.tokens[sorted(chosen)]
        is_kept = now == result.labels[used]
        counts["mask"] += int((now == MASK).sum())
        counts["keep"] += int(is_kept.sum())
        counts["random"] += int((~is_kept & (now != MASK)).sum())
        assert not np.isin(now, (0, 1, 2, 3)).any()
    total = counts.total()
    # Four standard deviations; a span's tokens, about eight, share one draw.
    error = 4 * np.sqrt(0.25 / (total / (8 if unit == "span" else 1)))
    assert counts["mask"] / total == pytest.approx(0.8, abs=error)
    assert counts["keep"] / total == pytest.approx(0.1, abs=error)
    assert counts["random"] / total == pytest.approx(0.1, abs=error)


def test_each_word_is_masked_about_as_often_as_any_other_of_its_length() -> None:
    tokens, segments = sequence(3)
    times = np.zeros(len(tokens))
    for epoch in range(3000):
        _, chosen = masked(3, WORD, epoch=epoch)
        times[sorted(chosen)] += 1
    singles = [word[0] for word in words_by_hand(tokens, segments) if len(word) == 1]
    expected = times[singles].mean()
    assert np.all(np.abs(times[singles] - expected) < 5 * np.sqrt(expected))


@pytest.mark.parametrize("unit", RULES)
def test_seed_sequence_and_epoch_alone_decide_masks_of_units(unit: str) -> None:
    first, _ = masked(0, RULES[unit])
    np.random.seed(1)
    again, _ = masked(0, RULES[unit])
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    others = [{}, {"seed": 1}, {"epoch": 1}, {"sequence": 9}]
    assert len({masked(0, RULES[unit], **other)[0].slots.tobytes() for other in others}) == 4


def words(sizes: list[int], parted_at: tuple[int, ...] = ()) -> WordSpans:
    """Lay words of these sizes in a row, with a gap of a token before some."""
    gaps = np.isin(np.arange(len(sizes)), parted_at)
    starts = np.cumsum([0, *sizes[:-1]]) + np.cumsum(gaps)
    return WordSpans(starts, np.array(sizes, int), (np.arange(len(sizes)) > 0) & ~gaps)


def test_first_span_has_the_lengths_of_a_truncated_geometric_distribution() -> None:
    settings = MaskingConfig(unit="span")
    many = words([1] * 400)
    lengths = Counter[int]()
    total = 6000
    for seed in range(total):
        # With room for the longest span alone, so that the first one is told by its action.
        choice = choose(many, 10, settings, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        first = np.argsort(rng.random(400), kind="stable")[0]
        if first <= 390:
            place = int(np.searchsorted(choice.positions, first))
            lengths[int((choice.action_of == place).sum())] += 1
    drawn = lengths.total()
    weights = {length: 0.2 * 0.8 ** (length - 1) for length in range(1, 11)}
    for length, weight in weights.items():
        share = weight / sum(weights.values())
        error = 4.5 * np.sqrt(share * (1 - share) / drawn)
        assert lengths[length] / drawn == pytest.approx(share, abs=error)
    # SpanBERT's mean length.
    mean = sum(length * count for length, count in lengths.items()) / drawn
    assert mean == pytest.approx(3.8, abs=0.15)


def test_spans_stand_in_a_row_within_a_text_and_share_an_action() -> None:
    settings = MaskingConfig(unit="span", geometric_p=0.05)
    laid = words([1, 2, 1, 3, 1, 1, 2, 1, 1, 1] * 6, parted_at=(13, 14, 37))
    owner = np.repeat(np.arange(60), laid.sizes)
    positions_of = np.concatenate(
        [start + np.arange(size) for start, size in zip(laid.starts, laid.sizes, strict=True)]
    )
    for seed in range(200):
        choice = choose(laid, 25, settings, np.random.default_rng(seed))
        assert len(choice.positions) <= 25
        assert np.all(np.diff(choice.positions) > 0)
        for leader in np.unique(choice.action_of):
            span = choice.positions[choice.action_of == leader]
            assert span[0] == choice.positions[leader]
            assert np.array_equal(span, np.arange(span[0], span[-1] + 1))
            numbers = owner[np.isin(positions_of, span)]
            assert len(np.unique(numbers)) <= 10


@pytest.mark.parametrize("unit", RULES)
@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [([], 0, 0), ([1], 1, 1), ([3], 1, 1), ([3, 4], 2, 2), ([2], 5, 2), ([1, 5], 3, 1)],
)
def test_short_sequences_have_something_to_predict(
    unit: str, sizes: list[int], count: int, expected: int
) -> None:
    laid = words(sizes) if sizes else WordSpans(*(np.zeros(0, int) for _ in range(3)))
    for seed in range(20):
        settings = MaskingConfig(unit=unit)
        choice = choose(laid, count, settings, np.random.default_rng(seed))
        # Where no word fits, the first tokens of one are taken.
        assert len(choice.positions) == expected
        assert np.all(np.diff(choice.positions) == 1)
        if expected:
            assert choice.positions[0] in laid.starts


def test_segments_that_adjoin_part_words() -> None:
    tokens = np.array([7, 8, 8, 8], np.int32)
    found = find_words(tokens, np.array([1, 1, 2, 2]), np.ones(4, bool), BOUNDARIES)
    assert found.starts.tolist() == [0, 2]
    assert found.sizes.tolist() == [2, 2]
    assert found.goes_on.tolist() == [False, False]
    with pytest.raises(ValueError, match=r"expected rule\.boundaries"):
        find_words(tokens, np.ones(4, int), np.ones(4, bool), None)


def corpus_with(masking: MaskingConfig, config: DataConfig, directory: Path) -> tuple[Any, ...]:
    corpus = Corpus.open(directory)
    numbers = np.arange(corpus.sequences("train"))
    batch = corpus.batch(
        "train",
        numbers,
        np.zeros(len(numbers), int),
        seed=0,
        mask_settings=MaskSettings(0.15, config.max_predictions, masking),
    )
    return corpus, batch


def test_prepared_corpus_masks_whole_words_of_its_tokenizer(
    config: DataConfig, tmp_path: Path
) -> None:
    prepare(replace(config, tokenizer=TRAINING), None, tmp_path / "out")
    corpus, batch = corpus_with(MaskingConfig(unit="word"), config, tmp_path / "out")
    tokens, segments = corpus.read("train", np.arange(corpus.sequences("train")))
    begins = corpus.word_boundaries.starts
    split_words = 0
    for row in range(len(tokens)):
        chosen = set(batch["slots"][row][batch["label_weights"][row] > 0].tolist())
        budget = max(1, round(0.15 * int((tokens[row] > 4).sum())))
        starts = begins(tokens[row])
        is_whole = True
        for position in chosen:
            following = position + 1
            in_word = following < len(starts) and tokens[row][following] > 4
            same = segments[row][following % len(starts)] == segments[row][position]
            if in_word and same and not starts[following]:
                is_whole &= following in chosen
        # Cut only where no word fits.
        split_words += not is_whole
        assert is_whole or len(chosen) == min(budget, config.max_predictions)
    assert split_words < len(tokens) / 10


def test_corpus_without_boundaries_is_refused_where_words_are_masked(
    config: DataConfig, tmp_path: Path
) -> None:
    files = make_corpus(tmp_path / "text.jsonl")
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json")
    settings = replace(config, files=str(files), tokenizer=str(tokenizer))
    manifest = prepare(settings, tokenizer, tmp_path / "out")
    # What an earlier version wrote has none; the digest is the same.
    replace(manifest, word_boundaries=None).write(tmp_path / "out")
    corpus, _ = corpus_with(MaskingConfig(), config, tmp_path / "out")
    assert corpus.digest == manifest.digest
    with pytest.raises(InputError, match=r"prepared by an earlier version, .* expected data\.mask"):
        corpus_with(MaskingConfig(unit="span"), config, tmp_path / "out")
    replace(manifest, word_boundaries={}).write(tmp_path / "out")
    with pytest.raises(InputError, match=r"has a tokenizer whose entries do not say"):
        corpus_with(MaskingConfig(unit="word"), config, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unit": "line"}, r"masking\.unit is 'line', expected token, word or span"),
        ({"unit": "span", "geometric_p": 1.0}, r"geometric_p is 1\.0, expected a number between"),
        ({"unit": "span", "max_span": 0}, r"max_span is 0, expected at least 1"),
        ({"unit": "word", "max_span": 3}, r"max_span is 3 under unit word, expected unit span"),
        ({"geometric_p": 0.5}, r"geometric_p is 0\.5 under unit token, expected unit span"),
    ],
)
def test_impossible_units_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MaskingConfig(**settings)


def test_settings_that_came_later_are_named_only_where_they_count() -> None:
    assert MaskingConfig().identity() == {}
    shares = {"mask": 1.0, "random": 0.0, "keep": 0.0}
    assert MaskingConfig(1.0, 0.0, 0.0).identity() == shares
    assert MaskingConfig(unit="word").identity()["unit"] == "word"
