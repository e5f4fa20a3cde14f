"""The front door: what `import kdjax` gives, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kdjax
from kdjax.api import ArmWithModels, PreparedText
from kdjax.config import (
    ArmConfig,
    CheckpointConfig,
    MlmProbeConfig,
    StartConfig,
    TokenizerConfig,
    TrainConfig,
)
from kdjax.errors import InputError
from kdjax.progress import Progress
from kdjax.training.checksum import sha256
from tests.support import small_study, tiny
from tests.support.corpora import make_corpus, make_tokenizer
from tests.support.doctests import check_example

pytestmark = pytest.mark.usefixtures("one_device")

BATCH_SIZE = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedText:
    directory = tmp_path_factory.mktemp("api")
    return kdjax.prepare(
        str(make_corpus(directory / "text.jsonl")),
        directory / "data",
        tokenizer=make_tokenizer(directory / "tokenizer.json"),
        seq_len=tiny.SHAPE.seq_len,
        max_predictions=tiny.SHAPE.max_predictions,
    )


@pytest.fixture(scope="module")
def logit() -> ArmWithModels:
    student = kdjax.models.init(tiny.SHALLOW_STUDENT, seed=0)
    return kdjax.arm("logit", student, kdjax.models.init(tiny.SHALLOW_TEACHER, seed=9))


def test_import_loads_neither_jax_nor_a_package_below() -> None:
    # A fresh process: this one has long imported JAX.
    program = "import kdjax, sys; assert 'jax' not in sys.modules; print(kdjax.__version__)"
    command = [sys.executable, "-c", program]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.stdout.strip() == kdjax.__version__, finished.stderr


def test_each_name_of_the_front_door_is_there() -> None:
    # Names come as they are asked for; a misspelling is told at once.
    for name in kdjax.__all__:
        assert getattr(kdjax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = kdjax.trian


def test_small_model_is_made_from_settings_by_name() -> None:
    model = kdjax.models.init("1x32", seed=0, heads=2, vocab_size=53, max_positions=12)
    config = model.config
    assert (config.layers, config.width, config.heads, config.ffn) == (1, 32, 2, 128)
    assert model.params["embeddings"]["word"]["embedding"].shape == (53, 32)
    # A configuration takes them as well.
    assert kdjax.models.init(config, seed=0, heads=4).config == replace(config, heads=4)


def test_setting_that_no_model_has_is_refused_with_the_nearest() -> None:
    for size in ("1x64", tiny.SHALLOW_STUDENT):
        with pytest.raises(InputError, match=r"vocabsize is no setting of a model.*vocab_size"):
            kdjax.models.init(size, seed=0, vocabsize=53)


def test_price_with_data_is_that_of_the_texts_sequences(
    data: PreparedText, logit: ArmWithModels
) -> None:
    by_sizes = kdjax.price(
        logit,
        batch_size=BATCH_SIZE,
        seq_len=tiny.SHAPE.seq_len,
        max_predictions=tiny.SHAPE.max_predictions,
    )
    assert kdjax.price(logit, batch_size=BATCH_SIZE, data=data) == by_sizes


def test_plain_script_may_prepare_text_of_several_blocks(tmp_path: Path) -> None:
    # A process more would import the script, and the script would start one more.
    lines = [f"w{n % 48} w{n // 48 % 48} w{n // 48**2}" for n in range(5000)]
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    make_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "script.py").write_text(
        "import kdjax\n"
        "data = kdjax.prepare('text.txt', 'data', tokenizer='tokenizer.json', documents='lines')\n"
        "print(sum(data.corpus.manifest.documents.values()))\n",
        encoding="utf-8",
    )
    command = [sys.executable, "script.py"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.stdout.strip() == "5000", finished.stderr


def test_prepare_takes_the_settings_of_how_text_is_read(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json")
    records = [{"body": f"w{n} w{n + 1}"} for n in range(40)]
    # A repeat, and a record without a text.
    records += [records[0], {"other": "w1"}]
    text = "\n".join(json.dumps(record) for record in records)
    (tmp_path / "text.jsonl").write_text(text, encoding="utf-8")
    data = kdjax.prepare(
        str(tmp_path / "text.jsonl"),
        tmp_path / "data",
        tokenizer=tokenizer,
        text_field=["body"],
        unusable="skip",
        deduplicate=True,
        validation=0.3,
    )
    assert sum(data.corpus.manifest.documents.values()) == 40


def test_evaluation_without_head_and_probe_is_refused(data: PreparedText) -> None:
    student = kdjax.models.init(tiny.SHALLOW_STUDENT, seed=0)
    params = {name: part for name, part in student.params.items() if name != "mlm"}
    model = kdjax.models.Model(student.config, params)
    with pytest.raises(InputError, match=r"no trained MLM head and mlm_probe\.tokens is 0"):
        kdjax.evaluate(model, data)


def test_training_spends_the_budget_to_less_than_one_step(
    data: PreparedText, logit: ArmWithModels
) -> None:
    price = kdjax.price(
        logit,
        batch_size=BATCH_SIZE,
        seq_len=tiny.SHAPE.seq_len,
        max_predictions=tiny.SHAPE.max_predictions,
    )
    # The budget pays three and a half steps.
    budget = 3.5 * price.total
    run = kdjax.train(logit, data, kdjax.flops(budget), batch_size=BATCH_SIZE)
    assert run.ledger.steps == 3
    assert run.ledger.charged_flops == 3 * price.total
    figures = kdjax.evaluate(run, data, mlm_probe=MlmProbeConfig(tokens=2000.0))
    assert set(figures) == {"mlm_loss", "mlm_accuracy", "mlm_probe"}
    # The run can be measured on the text's held-out part.
    assert all(np.isfinite(value) for value in figures.values())


def test_interrupted_training_goes_on_in_its_directory(
    data: PreparedText, logit: ArmWithModels, tmp_path: Path
) -> None:
    def stop_at_second_step(progress: Progress) -> None:
        if progress.ledger.steps == 2:
            raise KeyboardInterrupt

    budget = kdjax.tokens(4 * BATCH_SIZE * tiny.SHAPE.seq_len)
    every_step = TrainConfig(checkpoint=CheckpointConfig(seconds=0.0))
    options = {"batch_size": BATCH_SIZE, "settings": every_step}
    # The run without an interruption, and without a directory.
    whole = kdjax.train(logit, data, budget, **options)
    with pytest.raises(KeyboardInterrupt):
        kdjax.train(logit, data, budget, out=tmp_path / "run", watch=stop_at_second_step, **options)
    # It goes on from the second step, to the same bits.
    resumed = kdjax.train(logit, data, budget, out=tmp_path / "run", **options)
    assert sha256(resumed.params) == sha256(whole.params)


def test_saved_student_reads_back_bit_for_bit(
    data: PreparedText, logit: ArmWithModels, tmp_path: Path
) -> None:
    kdjax.save(logit.student, tmp_path / "student", data)
    again = kdjax.models.from_pretrained(tmp_path / "student")
    assert sha256(again.params) == sha256(logit.student.params)
    assert (tmp_path / "student" / "tokenizer.json").is_file()


def test_paths_are_text_or_path_objects_alike(
    data: PreparedText, logit: ArmWithModels, tmp_path: Path
) -> None:
    for number, kind in enumerate((str, Path)):
        out = tmp_path / str(number)
        files = [kind(path) for path in sorted(data.tokenizer.parent.glob("*.jsonl"))]
        assert files
        prepared = kdjax.prepare(
            files,
            kind(out / "data"),
            tokenizer=kind(data.tokenizer),
            seq_len=data.settings.seq_len,
            validation=data.settings.validation,
        )
        assert prepared.corpus.digest
        kdjax.models.save_pretrained(
            logit.student, kind(out / "student"), tokenizer=kind(data.tokenizer)
        )
        assert kdjax.models.from_pretrained(kind(out / "student")).config == logit.student.config
        budget = kdjax.tokens(BATCH_SIZE * tiny.SHAPE.seq_len)
        run = kdjax.train(logit, data, budget, batch_size=BATCH_SIZE, out=kind(out / "run"))
        assert run.ledger.steps == 1


@pytest.mark.parametrize("path", [None, 3, b"bytes", ["a list"]])
def test_what_is_no_path_is_refused_in_one_line(
    data: PreparedText, logit: ArmWithModels, tmp_path: Path, path: Any
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: kdjax.save(logit.student, path),
        lambda: kdjax.models.save_pretrained(logit.student, path),
        lambda: kdjax.models.from_pretrained(path),
        lambda: kdjax.models.pretrained_config(path),
        lambda: kdjax.models.check_saveable(path),
        lambda: kdjax.compare(path, tmp_path / "out"),
        lambda: kdjax.prepare("text.txt", path, tokenizer=data.tokenizer),
        lambda: kdjax.prepare("text.txt", tmp_path / "out", tokenizer=path),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"expected a .*(str or a Path|TokenizerConfig)"):
            call()
    if path is not None and not isinstance(path, list):
        with pytest.raises(InputError, match=r"files is .*, expected a path"):
            kdjax.prepare(path, tmp_path / "out", tokenizer=data.tokenizer)


def test_directory_before_the_model_is_refused(logit: ArmWithModels, tmp_path: Path) -> None:
    swapped: Any = (tmp_path / "student", logit.student)
    with pytest.raises(InputError, match=r"expected a kdjax\.models\.Model, and the"):
        kdjax.models.save_pretrained(*swapped)


def test_bad_input_is_refused_in_one_line(
    data: PreparedText, logit: ArmWithModels, tmp_path: Path
) -> None:
    # What does not fit together is refused before anything is computed.
    student = logit.student
    with pytest.raises(InputError, match="looks at a teacher, expected one"):
        kdjax.arm("minilm", student)
    with pytest.raises(InputError, match="settings of student and start"):
        kdjax.arm("scratch", student, settings=ArmConfig(start=StartConfig("teacher")))
    with pytest.raises(InputError, match="teacher is 'trainng'"):
        kdjax.flops(1e9, teacher="trainng")
    # The text has token ids that this model does not.
    small = replace(tiny.SHALLOW_STUDENT, vocab_size=8)
    arm = kdjax.arm("scratch", kdjax.models.init(small, seed=0))
    with pytest.raises(InputError, match=r"the student's vocab_size is 8, expected 53, .* takes"):
        kdjax.train(arm, data, kdjax.flops(1e9))
    # The other way round, rows that no token has would be paid for in every step.
    large = kdjax.arm("scratch", kdjax.models.init(small, seed=0, vocab_size=300))
    with pytest.raises(InputError, match="the student's vocab_size is 300, expected 53"):
        kdjax.price(large, batch_size=8, data=data)
    with pytest.raises(InputError, match="seq_len is not given, expected"):
        kdjax.price(large, batch_size=8)
    with pytest.raises(InputError, match=r"data\.documents is 'line', expected .* or lines or"):
        kdjax.prepare("text.txt", tmp_path / "new", tokenizer="t.json", documents="line")
    with pytest.raises(InputError, match=r"size is 20, expected at least"):
        kdjax.prepare("text.txt", tmp_path / "new", tokenizer=TokenizerConfig(size=20))


PUBLIC = [getattr(kdjax.api, name) for name in kdjax.__all__ if hasattr(kdjax.api, name)]
PUBLIC.append(kdjax.objectives.get)


@pytest.fixture(scope="module")
def names(data: PreparedText, logit: ArmWithModels) -> dict[str, Any]:
    """What the examples in docstrings take for granted."""
    return {
        "kdjax": kdjax,
        "get": kdjax.objectives.get,
        "student": logit.student,
        "teacher": logit.teacher,
        "arm": logit,
        "data": data,
        "run": kdjax.train(logit, data, kdjax.tokens(200), batch_size=BATCH_SIZE),
    }


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the examples name."""
    make_corpus(tmp_path / "text.jsonl")
    make_tokenizer(tmp_path / "tokenizer.json")
    small_study.write(
        tmp_path,
        arms={"scratch": {}},
        budget={"flops": 2.0e7},
        evaluation={"mlm_sequences": 16, "tasks": {}},
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("function", PUBLIC, ids=lambda function: function.__name__)
def test_example_in_docstring_prints_what_it_says(function: Any, names: dict[str, Any]) -> None:
    check_example(function, names)
