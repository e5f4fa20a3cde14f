"""A study's check for evaluation rows within its text: found once, refused where asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdjax.audit.files import audit_files
from kdjax.audit.findings import AuditFindings
from kdjax.config import Config, ContaminationConfig, DataConfig, EvaluationConfig, TaskConfig
from kdjax.data.contamination import check
from kdjax.data.contamination.check import PATTERN, Contamination, read
from kdjax.data.corpus import Corpus
from kdjax.data.prepare.local import prepare
from kdjax.errors import InputError
from kdjax.progress import Reporter
from kdjax.report.contamination_table import in_words, line, notes, rows
from kdjax.study.artifacts.contamination import study_contamination
from kdjax.study.manifest import shared_settings
from kdjax.text.document import Document
from tests.support.corpora import make_tokenizer, texts

HELD_OUT = 0.2


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return a recipe of a prepared text, and of a task half of whose rows are documents of it."""
    documents = [f"d{number} {text}" for number, text in enumerate(texts(80, longest=30))]
    records = [json.dumps({"text": text}) for text in documents]
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(records))
    of_task = [*documents[::2], *(f"e{number} {text}" for number, text in enumerate(texts(40, 1)))]
    labels = ("good", "bad") * 40
    rows_of_task = [
        json.dumps({"text": text, "label": label})
        for text, label in zip(of_task, labels, strict=True)
    ]
    (tmp_path / "task.jsonl").write_text("\n".join(rows_of_task))
    data = DataConfig(files=str(path), seq_len=24, validation=HELD_OUT, workers=1)
    prepare(data, make_tokenizer(tmp_path / "tokenizer.json"), tmp_path / "data")
    # Test rows are not held-out documents: the check has something to tell apart.
    task = TaskConfig(str(tmp_path / "task.jsonl"), test=0.4, dev=0.3)
    return Config(data=data, evaluation=EvaluationConfig(tasks={"task": task}))


def checked(config: Config, directory: Path, **settings: Any) -> Contamination | None:
    """Check the prepared text in a directory."""
    contamination = ContaminationConfig(**settings)
    evaluation = replace(config.evaluation, contamination=contamination)
    with Reporter() as reporter:
        corpus = Corpus.open(directory / "data")
        return study_contamination(replace(config, evaluation=evaluation), corpus, reporter)


def test_rows_that_are_training_documents_are_counted_and_held_out_ones_are_not(
    config: Config, tmp_path: Path
) -> None:
    contamination = checked(config, tmp_path)
    assert contamination is not None
    written = [json.loads(row)["text"] for row in (tmp_path / "task.jsonl").read_text().split("\n")]
    tested = [text for text in written if Document(text, text).is_held_out(0.4)]
    trained = [
        text for text in tested if text[0] == "d" and not Document(text, text).is_held_out(HELD_OUT)
    ]
    reported = contamination.overlaps[1]
    assert reported.use == "reported"
    assert reported.rows == len(tested)
    assert reported.found == len(trained)
    assert 0 < len(trained) < len([text for text in tested if text[0] == "d"])


def test_second_check_reads_what_the_first_one_found(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = checked(config, tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("compared again")

    with monkeypatch.context() as patch:
        patch.setattr(check, "compare", refuse)
        assert checked(config, tmp_path) == first
        # What is stored does not need the sources.
        (tmp_path / "text.jsonl").unlink()
        assert checked(config, tmp_path) == first
    assert [read(path) for path in (tmp_path / "data").glob(PATTERN)] == [first]


def test_other_rows_are_checked_anew(config: Config, tmp_path: Path) -> None:
    first = checked(config, tmp_path)
    path = tmp_path / "task.jsonl"
    path.write_text(path.read_text() + '\n{"text": "one more", "label": "good"}')
    second = checked(config, tmp_path)
    assert first is not None
    assert second is not None
    assert first.tasks != second.tasks
    assert len(list((tmp_path / "data").glob(PATTERN))) == 2


@pytest.mark.parametrize("change", ["gone", "other"])
def test_text_that_is_gone_or_another_is_said_and_nothing_is_stored(
    config: Config, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "text.jsonl"
    if change == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text() + '\n{"text": "one more"}')
    contamination = checked(config, tmp_path)
    assert contamination is not None
    assert str(path) in contamination.unchecked
    assert contamination.overlaps == ()
    assert list((tmp_path / "data").glob(PATTERN)) == []
    assert "was not looked at" in line(contamination)
    assert "is not known" in notes(contamination, share=1)[0]
    with pytest.raises(InputError, match="pretraining text was not looked at"):
        checked(config, tmp_path, check="refuse")


def test_corpus_of_a_recipe_without_files_is_read_where_its_manifest_says(
    config: Config, tmp_path: Path
) -> None:
    expected = checked(config, tmp_path)
    for path in (tmp_path / "data").glob(PATTERN):
        path.unlink()
    assert checked(replace(config, data=replace(config.data, files=())), tmp_path) == expected


def test_share_above_the_limit_is_refused_in_one_line(config: Config, tmp_path: Path) -> None:
    contamination = checked(config, tmp_path)
    assert contamination is not None
    worst = max(contamination.overlaps, key=lambda overlap: overlap.share)
    with pytest.raises(InputError) as refusal:
        checked(config, tmp_path, check="refuse", share=worst.share - 0.001)
    assert in_words(worst) in str(refusal.value)
    assert worst.examples[0] in str(refusal.value)
    # The limit itself may be reached.
    assert checked(config, tmp_path, check="refuse", share=worst.share) == contamination


def test_check_that_is_off_or_has_no_tasks_looks_at_nothing(config: Config, tmp_path: Path) -> None:
    assert checked(config, tmp_path, check="off") is None
    assert checked(replace(config, evaluation=EvaluationConfig()), tmp_path) is None
    assert list((tmp_path / "data").glob(PATTERN)) == []


def test_report_has_a_row_for_each_overlap_and_notes_for_large_ones(
    config: Config, tmp_path: Path
) -> None:
    contamination = checked(config, tmp_path)
    assert contamination is not None
    table = rows(contamination)
    assert [row["name"] for row in table] == ["task, selection", "task, reported"]
    assert [int(row["found"]) for row in table] == [o.found for o in contamination.overlaps]
    assert len(notes(contamination, share=0.0)) == 2
    assert notes(contamination, share=1.0) == []
    assert line(contamination).count("of task") == 2


def test_audit_names_a_damaged_file(config: Config, tmp_path: Path) -> None:
    checked(config, tmp_path)
    (path,) = (tmp_path / "data").glob(PATTERN)
    intact = AuditFindings()
    audit_files(tmp_path / "out", tmp_path / "data", tmp_path / "teacher", intact)
    assert intact.differences == []
    content = json.loads(path.read_text())
    content["overlaps"][0]["rows"] = "many"
    path.write_text(json.dumps(content))
    findings = AuditFindings()
    audit_files(tmp_path / "out", tmp_path / "data", tmp_path / "teacher", findings)
    (difference,) = findings.differences
    assert "overlaps[0].rows is 'many'" in str(difference)


def test_setting_may_change_when_a_study_goes_on(config: Config) -> None:
    off = replace(config.evaluation, contamination=ContaminationConfig("off"))
    assert shared_settings(replace(config, evaluation=off)) == shared_settings(config)


@pytest.mark.parametrize("settings", [{"check": "warn"}, {"share": 1.5}, {"share": float("nan")}])
def test_setting_out_of_range_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"evaluation\.contamination\."):
        ContaminationConfig(**settings)
