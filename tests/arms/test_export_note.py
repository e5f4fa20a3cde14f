"""What is said of export before a recipe is run."""

from __future__ import annotations

from pathlib import Path

from kdjax.arms.export_note import export_note
from kdjax.recipes import reading

CONFIGS = Path(__file__).parents[2] / "configs"
EXPORTED = ["--student.rotary_base", "10000", "--student.type_vocab_size", "0"]


def test_students_of_no_class_of_transformers_are_named_with_settings_that_would_have_one() -> None:
    note = export_note(reading.load(CONFIGS / "own-text.yaml"))
    assert note is not None
    assert "student.rotary_base: 10000.0, student.type_vocab_size: 0" in note
    assert "\n" not in note


def test_those_settings_make_a_student_that_needs_no_note() -> None:
    assert export_note(reading.load(CONFIGS / "own-text.yaml", EXPORTED)) is None


def test_arms_are_named_where_only_some_have_such_a_student() -> None:
    own_student = ["--arms.scratch.student", "{rotary_base: 50.0}"]
    note = export_note(reading.load(CONFIGS / "own-text.yaml", [*EXPORTED, *own_student]))
    assert note is not None
    assert "the students of scratch," in note
