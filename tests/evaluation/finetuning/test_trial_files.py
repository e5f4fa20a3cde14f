"""A finished trial is believed where its file is as kdjax wrote it, and nowhere else."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from kdjax.errors import InputError
from kdjax.evaluation.finetuning.results import FinetuningTrial, Setting
from kdjax.evaluation.finetuning.trial_files import read_trial, trial_path, write_trial

TRIAL = FinetuningTrial(
    Setting(1e-4, 32, 3, 90), 5, None, 0.75, {"mine": {"accuracy": 0.5}}, False, None
)


def test_trial_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_trial(tmp_path, "a", "key", TRIAL)
    assert read_trial(tmp_path, "a", "key") == TRIAL


def test_trial_of_something_else_is_not_read(tmp_path: Path) -> None:
    write_trial(tmp_path, "a", "key", TRIAL)
    assert read_trial(tmp_path, "a", "other") is None
    assert read_trial(tmp_path, "b", "key") is None


def test_edited_trial_is_refused(tmp_path: Path) -> None:
    write_trial(tmp_path, "a", "key", TRIAL)
    path = trial_path(tmp_path, "a")
    path.write_text(path.read_text().replace('"accuracy": 0.5', '"accuracy": 0.75'))
    with pytest.raises(InputError, match=r"a.json: its content has another digest"):
        read_trial(tmp_path, "a", "key")


def test_trial_of_another_seed_is_refused(tmp_path: Path) -> None:
    write_trial(tmp_path, "seed0", "key", TRIAL)
    shutil.copy(trial_path(tmp_path, "seed0"), trial_path(tmp_path, "seed1"))
    with pytest.raises(InputError, match=r"seed1.json: its content has another digest"):
        read_trial(tmp_path, "seed1", "key")


def test_score_outside_its_metrics_range_is_refused_whatever_the_digest(tmp_path: Path) -> None:
    write_trial(tmp_path, "a", "key", dataclasses.replace(TRIAL, selection=7.5))
    with pytest.raises(InputError, match=r"a.json: trial.selection is 7.5, expected 0 to 1"):
        read_trial(tmp_path, "a", "key")


def test_trial_without_a_digest_is_trained_again(tmp_path: Path) -> None:
    write_trial(tmp_path, "a", "key", TRIAL)
    path = trial_path(tmp_path, "a")
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert read_trial(tmp_path, "a", "key") is None
