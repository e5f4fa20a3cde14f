"""A study whose teacher has another vocabulary than its students: run, stored outputs, audit."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdjax import models
from kdjax.config import Config, DataConfig, MaskingConfig, TeacherConfig, TokenizerConfig
from kdjax.config.teacher import HeadConfig
from kdjax.errors import InputError
from kdjax.progress import Reporter
from kdjax.recipes import changed, load
from kdjax.study.artifacts.corpus import study_corpus
from kdjax.study.manifest import shared_settings
from kdjax.study.teachers.from_directory import read_checked
from tests.study.conftest import kdjax
from tests.support import small_study, tiny
from tests.support.corpora import PIECES, make_corpus, make_pieces_tokenizer, make_tokenizer
from tests.support.small_study import FinishedStudy

pytestmark = pytest.mark.usefixtures("undrawn", "one_device")

TEACHER = replace(tiny.SHALLOW_TEACHER, vocab_size=len(PIECES))
TERMS = [{"name": "mlm"}, {"name": "hidden_mse", "options": {"layers": "last"}}]


def data(directory: Path) -> dict[str, Any]:
    return {
        "files": str(make_corpus(directory / "text.jsonl")),
        "tokenizer": str(make_tokenizer(directory / "words" / "tokenizer.json")),
        "teacher_tokenizer": str(make_pieces_tokenizer(directory / "pieces" / "tokenizer.json")),
        "teacher_seq_len": 24,
        "masking": {"unit": "word"},
        "mask_copies": 1,
        "seq_len": 16,
        "max_predictions": 3,
        "validation": 0.15,
        "workers": 1,
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    """Run an arm whose teacher runs, and one that reads what was stored of it."""
    directory = tmp_path_factory.mktemp("own_tokens")
    settings = data(directory)
    teacher = models.init(TEACHER, 9)
    tokenizer = Path(settings["teacher_tokenizer"])
    models.save_pretrained(teacher, directory / "own", tokenizer=tokenizer)
    architecture = {**small_study.TEACHER, "vocab_size": len(PIECES)}
    recipe = small_study.write(
        directory,
        data=settings,
        teacher={"source": str(directory / "own"), "architecture": architecture},
        arms={
            "online": {"terms": TERMS},
            "stored": {"terms": TERMS, "teacher": "cached"},
        },
        budget={"flops": 2.0e7},
        cache={"shared_by": 1000},
        seeds=[0],
        evaluation={"mlm_sequences": 16},
    )
    ended = kdjax("compare", recipe, "--out", directory / "out")
    assert ended.status == 0, ended.err
    return FinishedStudy.read(recipe, directory / "out")


@pytest.mark.system
def test_study_of_two_vocabularies_is_run_priced_and_audited(study: FinishedStudy) -> None:
    online = study.run("online")
    stored = study.run("stored")
    assert online["spent"]["teacher_forward"] > 0
    # Reading what is stored is next to nothing.
    assert stored["spent"]["teacher_forward"] < online["spent"]["teacher_forward"] / 20
    # The same loss of the first batch; stored states are rounded to float16.
    losses = [study.lines(arm)[0]["loss/hidden_mse"] for arm in ("online", "stored")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    # The teacher's tokens are not the students': nothing that would be compared is measured of it.
    assert study.results["teacher"]["mlm_loss"] is None
    assert {row["name"] for row in study.results["references"]} == {"untrained start"}
    tokens = study.results["corpus"]["teacher_tokens"]
    assert tokens["vocabulary"] == len(PIECES)
    assert tokens["left_out"] == {"train": 0, "validation": 0}
    page = (study.out / "report.html").read_text(encoding="utf-8")
    assert "The teacher reads the text by its own tokenizer" in page
    audit = kdjax("audit", study.out)
    assert audit.status == 0, audit.err


@pytest.mark.system
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--arms", "{logit: {}}"), r"arms\.logit: logit: asks for logits under data\.teacher_t"),
        (("--arms", "{minilm: {}}"), r"arms\.minilm: relation: asks for query"),
        (
            ("--data.teacher_seq_len", "25"),
            r"data\.teacher_seq_len is 25, expected at most teacher\.architecture\.max_pos.*, 24",
        ),
    ],
)
def test_what_cannot_be_between_two_vocabularies_is_refused(
    study: FinishedStudy,
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
) -> None:
    ended = kdjax("compare", study.recipe, "--out", tmp_path / "out", *words)
    assert ended.status == 2
    assert re.search(message, ended.complaint), ended.complaint
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.system
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"data.teacher_tokenizer": "words/tokenizer.json"},
            r"words/tokenizer\.json: has 53 entries, expected those of .*own, whose .* has 26",
        ),
        (
            {"data.teacher_tokenizer": "", "data.teacher_seq_len": 0},
            r"entries, expected those of .*; a teacher with another vocabulary needs data\.te",
        ),
    ],
)
def test_teacher_of_another_tokenizer_than_it_reads_by_is_refused(
    study: FinishedStudy,
    settings: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(study.recipe.parent)
    with pytest.raises(InputError, match=message):
        read_checked(changed(load(study.recipe), settings), study.recipe.parent / "own")


@pytest.mark.system
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"data.teacher_seq_len": 20},
            r"sequences of 24 tokens of the teacher, expected data\.teacher_seq_len, 20",
        ),
        (
            {"data.teacher_tokenizer": "words/tokenizer.json"},
            r"prepared with another teacher_tokenizer, expected words/tokenizer\.json",
        ),
        # One that has a teacher's tokens is read without them, too.
        ({"data.teacher_tokenizer": "", "data.teacher_seq_len": 0}, ""),
    ],
)
def test_named_corpus_has_the_teachers_tokens_that_are_asked_for(
    study: FinishedStudy,
    settings: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(study.recipe.parent)
    prepared = {"data.prepared": str(study.out / "data")}
    config = changed(load(study.recipe), {**prepared, **settings})
    refusal = pytest.raises(InputError, match=message) if message else nullcontext()
    with Reporter() as reporter, refusal:
        study_corpus(config, tmp_path, reporter)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"masking": MaskingConfig()}, r"data\.masking\.unit is 'token' under data\.teacher_tok"),
        (
            {"tokenizer": ""},
            r"data\.tokenizer is empty, the teacher's, and data\.teacher_tokenizer",
        ),
        ({"teacher_seq_len": 4}, r"data\.teacher_seq_len is 4, expected"),
        (
            {"teacher_tokenizer": "", "teacher_seq_len": 9},
            r"data\.teacher_seq_len is 9, expected 0",
        ),
    ],
)
def test_settings_of_own_tokens_that_contradict_others_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    own: dict[str, Any] = {"tokenizer": "a.json", "teacher_tokenizer": "b.json"}
    with pytest.raises(InputError, match=message):
        DataConfig(**{**own, "masking": MaskingConfig(unit="word"), **settings})


def own_data(**settings: Any) -> DataConfig:
    return DataConfig(teacher_tokenizer="b.json", masking=MaskingConfig(unit="word"), **settings)


def test_trained_vocabulary_is_the_students_alone() -> None:
    config = Config(data=own_data(tokenizer=TokenizerConfig(size=1024)))
    assert config.student.vocab_size == 1024
    assert config.teacher.architecture.vocab_size == 30522
    larger = changed(config, {"data.tokenizer.size": 2048})
    assert larger.student.vocab_size == 2048
    assert larger.teacher.architecture.vocab_size == 30522
    # The teacher's sequences follow the student's where nothing else is said.
    assert changed(config, {"data.seq_len": 64}).data.own_seq_len == 64


def test_teacher_of_own_tokens_is_not_trained_here() -> None:
    with pytest.raises(
        InputError, match=r"teacher\.head\.budget is 1e\+09 under data\.teacher_tok"
    ):
        Config(
            data=own_data(tokenizer="a.json"), teacher=TeacherConfig(head=HeadConfig(budget=1e9))
        )


def test_own_tokens_are_named_only_where_they_are_set() -> None:
    assert not {"teacher_tokenizer", "teacher_seq_len"} & shared_settings(Config())["data"].keys()
    config = Config(data=own_data(tokenizer="a.json"))
    assert shared_settings(config)["data"]["teacher_tokenizer"] == "b.json"
