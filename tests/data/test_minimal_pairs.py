"""Minimal pairs from BabyLM's layout into tokens, words and what is scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdjax.config import MinimalPairsConfig
from kdjax.data.minimal_pairs import PairSet, load, read_pairs
from kdjax.errors import InputError
from tests.support.pairs import IDS, blimp_row, ewok_row, make_tokenizer, write_all, write_set


def settings(directory: Path, *sets: str) -> MinimalPairsConfig:
    config = MinimalPairsConfig(directory=str(directory))
    return replace(config, sets=sets) if sets else config


def read(directory: Path, *sets: str, length: int = 24) -> tuple[PairSet, ...]:
    tokenizer = make_tokenizer(directory / "tokenizer.json")
    return load(settings(directory, *sets), tokenizer, length)


def scored_tokens(pairs: PairSet, sentence: int) -> list[int]:
    chosen: list[int] = pairs.tokens[sentence][pairs.scored[sentence]].tolist()
    return chosen


def ids(*tokens: str) -> list[int]:
    return [IDS[token] for token in tokens]


def test_all_three_sets_are_read_with_phenomena_as_the_pipeline_names_them(tmp_path: Path) -> None:
    blimp, supplement, ewok = read(write_all(tmp_path))
    assert (blimp.name, supplement.name, ewok.name) == ("blimp", "supplement", "ewok")
    # BLiMP's UID, the supplement's file, EWoK's domain.
    assert blimp.phenomena == ("number", "question")
    assert supplement.phenomena == ("turn_taking",)
    assert ewok.phenomena == ("spatial-relations",)
    assert blimp.phenomenon.tolist() == [0, 0, 0, 1]
    assert len(blimp) == 4


def test_sentence_is_framed_and_only_its_own_tokens_are_scored(tmp_path: Path) -> None:
    blimp, *_ = read(write_all(tmp_path))
    first = blimp.good[0]
    sentence = ids("the", "cat", "##s", "sit", "##ting", ".")
    framed = [IDS["[CLS]"], *sentence, IDS["[SEP]"]]
    assert blimp.tokens[first].tolist() == framed
    assert blimp.lengths[first] == 8
    assert scored_tokens(blimp, first) == sentence
    # Tokens of a word have its number; frame and padding are of no word.
    assert blimp.words[first].tolist() == [-1, 0, 1, 1, 2, 2, 3, -1]


def test_sentences_of_the_same_tokens_become_one(tmp_path: Path) -> None:
    blimp, *_ = read(write_all(tmp_path))
    # "The cat ." and "the cat ." differ in case alone, which this tokenizer does not see.
    assert blimp.good[2] == blimp.bad[2]
    assert len(blimp.tokens) == 7


def test_ewok_scores_the_target_behind_the_first_context_alone(tmp_path: Path) -> None:
    *_, ewok = read(write_all(tmp_path))
    good = ewok.good[0]
    context = ids("the", "cat", "##s", ".")
    target = ids("a", "dog", "sit", "##ting", ".")
    assert ewok.tokens[good, 1:10].tolist() == [*context, *target]
    assert scored_tokens(ewok, good) == target
    assert scored_tokens(ewok, ewok.bad[0]) == ids("a", "cat", ".")


def test_width_is_the_longest_sentence_rounded_up_but_not_above_the_limit(tmp_path: Path) -> None:
    *_, ewok = read(write_all(tmp_path))
    assert ewok.lengths.max() == 11
    assert ewok.tokens.shape[1] == 16
    *_, narrow = read(tmp_path, length=12)
    assert narrow.tokens.shape[1] == 12


def test_fast_sets_are_read_by_their_own_name(tmp_path: Path) -> None:
    rows = [blimp_row("a cat .", "a cats .", "number")]
    write_set(tmp_path, "blimp_fast", {"number": rows})
    assert len(read_pairs(tmp_path, "blimp")) == 1


def test_digest_changes_with_a_word(tmp_path: Path) -> None:
    before, *_ = read(write_all(tmp_path))
    again, *_ = read(write_all(tmp_path))
    write_set(tmp_path, "blimp_filtered", {"other": [blimp_row("who .", "dog .", "question")]})
    after, *_ = read(tmp_path)
    assert again.digest == before.digest
    assert after.digest != before.digest


def test_no_directory_means_no_pairs(tmp_path: Path) -> None:
    assert load(MinimalPairsConfig(), tmp_path / "missing.json", 24) == ()


def broken(directory: Path, name: str, row: dict[str, object]) -> Path:
    """Write a set whose second line is `row`."""
    good = ewok_row("a .", ("a .", "dog ."), "d") if name == "ewok" else blimp_row("a", "dog", "n")
    return write_set(directory, f"{name}_filtered", {"file": [good, row]})


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("blimp", {"sentence_good": "a cat"}, "file.jsonl, line 2: has no 'sentence_bad'"),
        (
            "blimp",
            {"sentence_good": "a", "sentence_bad": "cat", "field": "x"},
            "file.jsonl, line 2: has no 'UID'",
        ),
        (
            "supplement",
            {"sentence_good": 3, "sentence_bad": "cat"},
            "file.jsonl, line 2: 'sentence_good' is 3, expected text",
        ),
        ("ewok", {"Context1": "a", "Target1": "cat"}, "file.jsonl, line 2: has no 'Target2'"),
        (
            "supplement",
            {"sentence_good": "a " * 30, "sentence_bad": "a"},
            "file.jsonl, line 2: the sentence has 32 tokens with [CLS] and [SEP], expected at most "
            "the 24 of data.seq_len",
        ),
        (
            "supplement",
            {"sentence_good": "\u200d\u200d", "sentence_bad": "a"},
            "file.jsonl, line 2: no token is left of",
        ),
    ],
)
def test_bad_record_is_refused_with_file_and_line(
    tmp_path: Path, name: str, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        read(broken(tmp_path, name, row), name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_malformed_line_is_refused_with_its_number(tmp_path: Path) -> None:
    write_all(tmp_path)
    path = tmp_path / "blimp_filtered" / "other.jsonl"
    path.write_text(json.dumps(blimp_row("a", "dog", "n")) + "\n{\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"other\.jsonl, line 2"):
        read_pairs(tmp_path, "blimp")


def test_missing_set_names_directories_and_setting(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no blimp_filtered and blimp_fast, expected one"):
        read_pairs(tmp_path, "blimp")


def test_both_kinds_of_a_set_are_refused(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "ewok_fast").mkdir()
    with pytest.raises(InputError, match="both of ewok_filtered and ewok_fast, expected one"):
        read_pairs(tmp_path, "ewok")


def test_empty_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blimp_filtered").mkdir()
    with pytest.raises(InputError, match=r"blimp_filtered: has no pairs, expected \.jsonl files"):
        read_pairs(tmp_path, "blimp")


def test_empty_file_of_a_set_is_refused(tmp_path: Path) -> None:
    write_all(tmp_path)
    write_set(tmp_path, "blimp_filtered", {"other": []})
    with pytest.raises(InputError, match=r"other\.jsonl: has no pairs, expected some, or no such"):
        read_pairs(tmp_path, "blimp")


def test_share_of_unknown_tokens_is_counted_and_refused_above_a_half(tmp_path: Path) -> None:
    # Eight tokens of the sentences: three, then five of them are [UNK].
    three = [blimp_row("a cat x y", "a dog the z", "n")]
    (pairs,) = read(write_set(tmp_path, "blimp_filtered", {"n": three}), "blimp")
    assert pairs.unknown == 3 / 8
    five = [blimp_row("a x y z", "a dog v w", "n")]
    write_set(tmp_path, "blimp_filtered", {"n": five})
    with pytest.raises(
        InputError, match=r"minimal pairs blimp, .*n\.jsonl.*: 62\.5% of the tokens"
    ):
        read(tmp_path, "blimp")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sets": ()}, "evaluation.minimal_pairs.sets is empty, expected one or more of blimp"),
        ({"scoring": ("pll", "pll")}, "expected one or more of pll, within_word_l2r, each once"),
        ({"scoring": ("mlm",)}, "expected one or more of pll, within_word_l2r, each once"),
        ({"batch_tokens": 0}, "evaluation.minimal_pairs.batch_tokens is 0, expected at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        MinimalPairsConfig(**changes)
    assert message in str(error.value)


def test_padding_is_neither_scored_nor_a_word(tmp_path: Path) -> None:
    blimp, *_ = read(write_all(tmp_path))
    beyond = np.arange(blimp.tokens.shape[1]) >= blimp.lengths[:, None]
    assert beyond.any()
    assert not blimp.scored[beyond].any()
    assert (blimp.words[beyond] == -1).all()
