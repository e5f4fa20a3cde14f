"""A teacher's weights against its card, and what a card may not say."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from kdjax import models
from kdjax.config import Config, ModelSpec, TeacherConfig
from kdjax.errors import InputError
from kdjax.study.teachers.from_directory import read_checked
from kdjax.training.checksum import sha256
from kdjax.training.teacher.directories import checkpoint_name, read_card, read_teacher
from tests.support import tiny


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A teacher's directory whose card was written for its weights."""
    model = models.init(tiny.SHALLOW_STUDENT, seed=0)
    models.save_pretrained(model, tmp_path / "teacher")
    write_card(tmp_path / "teacher", {"params_sha256": sha256(model.params), "training_flops": 7})
    return tmp_path / "teacher"


def write_card(directory: Path, facts: Any) -> None:
    (directory / "teacher.json").write_text(json.dumps(facts), encoding="utf-8")


def test_weights_that_match_the_card_are_read(teacher: Path) -> None:
    assert read_card(teacher)["training_flops"] == 7
    assert sha256(read_teacher(teacher).params) == read_card(teacher)["params_sha256"]


def test_weights_changed_after_the_card_are_refused(teacher: Path, tmp_path: Path) -> None:
    models.save_pretrained(models.init(tiny.SHALLOW_STUDENT, seed=1), tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(teacher / "model.safetensors")
    with pytest.raises(
        InputError,
        match=r"teacher: the SHA-256 of the weights is [0-9a-f]{16}, expected [0-9a-f]{16}",
    ):
        read_teacher(teacher)


def test_teacher_source_of_other_weights_than_its_card_s_is_refused(
    teacher: Path, tmp_path: Path
) -> None:
    models.save_pretrained(models.init(tiny.SHALLOW_STUDENT, seed=1), tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(teacher / "model.safetensors")
    architecture = ModelSpec(**asdict(tiny.SHALLOW_STUDENT))
    config = Config(teacher=TeacherConfig(source=str(teacher), architecture=architecture))
    with pytest.raises(InputError, match=r"the SHA-256 of the weights is"):
        read_checked(config, teacher)


def test_directory_without_a_card_is_read_unchecked(teacher: Path) -> None:
    (teacher / "teacher.json").unlink()
    assert read_card(teacher) == {}
    assert read_teacher(teacher).config.layers == tiny.SHALLOW_STUDENT.layers


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ([], "expected a JSON object, found list"),
        ({}, "expected a JSON object, found an empty one"),
        (
            {"training_flops": "many"},
            "training_flops is 'many', expected a number of FLOPs, at least 0",
        ),
        ({"head_flops": -1}, "head_flops is -1, expected a number of FLOPs"),
        ({"tuning_flops": None}, "tuning_flops is None, expected a number of FLOPs"),
        ({"training_flops": float("nan")}, "training_flops is nan, expected a number of FLOPs"),
        ({"pretraining": 3}, "pretraining is 3, expected a JSON object"),
    ],
)
def test_card_without_usable_facts_is_refused(tmp_path: Path, facts: Any, message: str) -> None:
    write_card(tmp_path, facts)
    with pytest.raises(InputError, match=message):
        read_card(tmp_path)


def test_checkpoint_names_differ_between_shares() -> None:
    shares = (0.1234567, 0.12345671, 0.25, 0.9999999999, 1.0)
    names = [checkpoint_name(share) for share in shares]
    assert len(set(names)) == len(shares)
    assert names[2:] == ["at-0.25", "at-0.9999999999", "at-1"]
    assert checkpoint_name(1) == "at-1"
