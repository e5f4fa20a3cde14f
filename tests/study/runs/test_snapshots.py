"""Snapshots of a run in its directory: names, files, their copies elsewhere, and what is said of
those that are not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.config import CheckpointConfig, Config, TrainConfig
from kdjax.config.train import BABYLM_WORDS
from kdjax.data.manifest import Manifest
from kdjax.errors import InputError
from kdjax.study.runs.run_backup import RunBackup
from kdjax.study.runs.snapshots import (
    FACTS,
    FOLDER,
    kept_snapshots,
    passed_line,
    run_snapshots,
    snapshot_name,
    unreached_line,
)
from kdjax.training.checksum import sha256
from kdjax.training.params_file import load_params

MANIFEST = cast("Manifest", SimpleNamespace(words_in=lambda tokens: round(tokens / 2)))
"""Text whose words have two tokens each."""
PARAMS = {"mlm": {"bias": np.arange(3, dtype=np.float32)}}


def recipe(words: Any) -> Config:
    return Config(train=TrainConfig(checkpoint=CheckpointConfig(keep_at_words=words)))


def ledger(tokens: int) -> Ledger:
    opened = Ledger.open(Budget.flops(10**6), upfront={"teacher_forward": 7})
    return replace(opened, tokens=tokens, steps_by_phase=(tokens // 10,))


def test_babylm_has_its_28_names() -> None:
    names = [snapshot_name(words) for words in BABYLM_WORDS]
    first = [f"chck_{n}M" for n in range(1, 10)]
    second = [f"chck_{n}0M" for n in range(1, 10)]
    third = [f"chck_{n}00M" for n in range(1, 11)]
    assert names == first + second + third
    assert recipe("babylm").train.checkpoint.words_of_snapshots == BABYLM_WORDS


@pytest.mark.parametrize(
    ("words", "name"),
    [(1, "chck_1"), (1500, "chck_1500"), (20_000, "chck_20K"), (2_500_000, "chck_2500K")],
)
def test_other_words_are_named_by_what_divides_them(words: int, name: str) -> None:
    assert snapshot_name(words) == name


@pytest.mark.parametrize("words", [(2, 1), (1, 1), (0,), (1.5,), ("1M",), "babylm2026"])
def test_words_that_do_not_ascend_are_refused(words: Any) -> None:
    with pytest.raises(InputError, match=r"train\.checkpoint\.keep_at_words"):
        recipe(words)


def test_snapshot_is_whole_and_taken_to_another_machine(tmp_path: Path) -> None:
    root = str(tmp_path / "place")
    first = tmp_path / "first" / "scratch-seed0"
    backup = RunBackup(root, first)
    snapshots = run_snapshots(recipe((10, 2000)), MANIFEST, first, backup)
    assert snapshots is not None
    snapshots.keep(2000, PARAMS, ledger(4001))
    snapshots.keep(10, PARAMS, ledger(20))
    # One that is there stays: a run that was killed passes it a second time.
    snapshots.keep(10, {"mlm": {"bias": np.zeros(3, np.float32)}}, ledger(20))
    kept = kept_snapshots(first)
    assert list(kept) == ["chck_10", "chck_2K"]
    assert (kept["chck_2K"].words_seen, kept["chck_2K"].steps) == (2000, 400)
    assert kept["chck_2K"].spent["total"] == kept["chck_2K"].spent["charged"] == 7
    assert kept["chck_10"].params_sha256 == sha256(PARAMS)

    second = tmp_path / "second" / "scratch-seed0"
    RunBackup(root, second).download_folders(FOLDER, FACTS)
    assert kept_snapshots(second) == kept
    params = load_params(second / FOLDER / "chck_10" / "params.safetensors")
    np.testing.assert_array_equal(params["mlm"]["bias"], PARAMS["mlm"]["bias"])


def test_run_without_snapshots_keeps_none(tmp_path: Path) -> None:
    assert run_snapshots(recipe(()), MANIFEST, tmp_path, RunBackup("", tmp_path)) is None
    RunBackup(str(tmp_path / "place"), tmp_path).download_folders(FOLDER, FACTS)
    assert kept_snapshots(tmp_path) == {}


def test_budget_that_ends_earlier_is_one_line() -> None:
    words = (10**6, 2 * 10**6, 3 * 10**6)
    assert unreached_line(words, 1_500_000, about=True) == (
        "its budget ends at about 1,500,000 words, before 2 of 3 snapshots (chck_2M to chck_3M)"
    )
    assert unreached_line(words, 2_999_999) == (
        "its budget ends at 2,999,999 words, before 1 of 3 snapshots (chck_3M)"
    )
    assert unreached_line(words, 3_000_000) is None
    assert unreached_line(words, None) is None
    assert unreached_line((), 5) is None


def test_snapshot_that_the_recipe_named_too_late_is_one_line(tmp_path: Path) -> None:
    (tmp_path / FOLDER / "chck_2K").mkdir(parents=True)
    (tmp_path / FOLDER / "chck_2K" / FACTS).write_text("{}")
    words = (1000, 2000, 3000)
    assert passed_line(tmp_path, words, 2500) == (
        "it passed chck_1K before train.checkpoint.keep_at_words named them"
    )
    assert passed_line(tmp_path, words, 999) is None
    assert passed_line(tmp_path, words, None) is None
