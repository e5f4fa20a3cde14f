"""`kdjax glue-predictions`: a run's directory, made by hand, becomes the files of GLUE's server."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.config import Config
from kdjax.config.suites import suite_tasks
from kdjax.data.tasks.load import load_tasks
from kdjax.evaluation.finetuning import (
    EncoderSetup,
    FinetunedTask,
    finetune,
    finetune_one,
    predict,
    saved,
    tuned_start,
)
from kdjax.results.runs import Divergence, RunResult
from kdjax.storage import locks
from kdjax.storage.files import read_json, write_json
from kdjax.storage.typed_json import from_plain, to_plain
from kdjax.study.runs.recorded_run import PARAMS, recorded_run
from kdjax.training.params_file import load_params, save_params
from tests.evaluation import handmade
from tests.study.conftest import Ended, kdjax
from tests.support import glue, tiny
from tests.support.finished_run import recipe_in, write_run

SEED = 3
TASKS = ("mrpc", "stsb")
EVALUATION = {
    "suite": "glue",
    "suite_tasks": list(TASKS),
    "protocols": ["fixed", "grid"],
    "finetune": {
        "steps": 2,
        "batch_size": 32,
        "learning_rates": [1e-3, 1e-2],
        "batch_sizes": [32],
        "epoch_counts": [2],
        "intermediate": "stsb",
        "intermediate_tasks": ["mrpc"],
    },
}


def config_in(directory: Path, **evaluation: Any) -> Config:
    """Make a recipe that is measured on two tasks of GLUE."""
    measured = {**EVALUATION, "glue": str(directory / "glue"), **evaluation}
    return recipe_in(directory, seed=SEED, evaluation=measured)


def finetuned(config: Config, params: Any) -> dict[str, FinetunedTask]:
    """Fine-tune as a study does: endpoint -> what came of it."""
    setup = EncoderSetup(tiny.SHALLOW_STUDENT, handmade.alone())
    settings = config.evaluation.finetune
    tasks = load_tasks(config.evaluation, Path(str(config.data.tokenizer)), config.data.seq_len)
    (intermediate,) = (task for task in tasks if task.name == settings.intermediate)
    start = tuned_start(setup, params, intermediate, settings, seed=SEED)
    details = {}
    for protocol in ("fixed", "grid"):
        for task in tasks:
            details[f"{protocol}.{task.name}"] = finetune(
                setup,
                params,
                task,
                settings,
                protocol=protocol,
                seed=SEED,
                start=start if task.name in settings.intermediate_tasks else None,
            )
    return details


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, fine-tuned by two protocols."""
    root = tmp_path_factory.mktemp("study")
    glue.write_official(root / "glue", suite_tasks("glue", TASKS))
    config = config_in(root)
    params = tiny.params(tiny.SHALLOW_STUDENT, SEED)
    return write_run(
        root / "runs" / f"scratch-seed{SEED}", config, params, finetuned(config, params)
    )


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, of which nothing was predicted yet."""
    copy = tmp_path / finished.name
    shutil.copytree(finished, copy)
    return copy


def predictions(run: Path, out: Path, *words: str | Path) -> Ended:
    return kdjax("glue-predictions", run, "--out", out, *words)


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_predictions_are_those_of_the_chosen_setting_trained_again(
    run: Path, tmp_path: Path
) -> None:
    ended = predictions(run, tmp_path / "out", "--tasks", "stsb")
    assert ended.status == 0, ended.err
    # The same by hand: setting from the result, seed of the run, rows of the test file.
    recorded = recorded_run(run)
    chosen = recorded.result.details["grid.stsb"]
    assert isinstance(chosen, FinetunedTask)
    (task,) = load_tasks(
        dataclasses.replace(recorded.config.evaluation, suite_tasks=("stsb",)),
        recorded.tokenizer(),
        16,
        with_unlabelled=True,
    )
    trained = finetune_one(
        EncoderSetup(tiny.SHALLOW_STUDENT, handmade.alone()),
        recorded.params(),
        task,
        recorded.finetuning,
        chosen.chosen,
        seed=SEED,
    )
    expected = np.clip(predict(trained, task.unlabelled["stsb"]), 0, 5)
    header, *lines = (tmp_path / "out" / "STS-B.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "index\tprediction"
    assert lines == [f"{number}\t{value:.3f}" for number, value in enumerate(expected)]


def test_setting_scores_and_missing_files_are_printed(run: Path, tmp_path: Path) -> None:
    ended = predictions(run, tmp_path / "out")
    mrpc, stsb, last = ended.out.splitlines()
    result = recorded_run(run).result
    for line, name, file in ((mrpc, "mrpc", "MRPC.tsv"), (stsb, "stsb", "STS-B.tsv")):
        finetuned_task = result.details[f"grid.{name}"]
        assert isinstance(finetuned_task, FinetunedTask)
        assert line.startswith(
            f"{file}: grid, learning rate {finetuned_task.chosen.learning_rate:g}"
        )
        assert f"dev rows {name} {finetuned_task.scores[name]:.4f}; as the run recorded" in line
    assert last == (
        f"{tmp_path / 'out' / 'submission.zip'}; GLUE's server asks for more files: CoLA.tsv, "
        "SST-2.tsv, QQP.tsv, MNLI-m.tsv, MNLI-mm.tsv, QNLI.tsv, RTE.tsv, WNLI.tsv, AX.tsv"
    )


def test_two_calls_write_the_same_bytes(run: Path, tmp_path: Path) -> None:
    predictions(run, tmp_path / "first")
    # The second one finds nothing of the first.
    shutil.rmtree(run / "finetuning")
    predictions(run, tmp_path / "second")
    first = files_of(tmp_path / "first")
    assert sorted(first) == ["MRPC.tsv", "STS-B.tsv", "submission.zip"]
    assert files_of(tmp_path / "second") == first


def test_killed_command_goes_on_to_the_same_bytes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions(run, tmp_path / "whole")
    shutil.rmtree(run / "finetuning")
    saves: list[int] = []
    save = saved.RunningState.save

    def save_twice(state: saved.RunningState, content: Any, step: int) -> None:
        save(state, content, step)
        saves.append(step)
        # In the middle of the second task, after the intermediate one's steps.
        if state.name == "stsb" and step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(saved, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(saved.RunningState, "save", save_twice)
    assert predictions(run, tmp_path / "out").status == 130
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(saved.RunningState, "save", save)
    before = list(saves)
    steps_again: list[int] = []
    monkeypatch.setattr(
        saved.RunningState, "save", lambda state, content, step: steps_again.append(step)
    )
    assert predictions(run, tmp_path / "out").status == 0
    # The first task is finished; of the second one only steps after the third are done.
    assert 1 in before
    assert min(steps_again) == 4
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_other_scores_than_recorded_are_said(run: Path, tmp_path: Path) -> None:
    result = read_json(run / "result.json")
    for trial in result["details"]["grid.stsb"]["trials"]:
        trial["metrics"]["stsb"] = {"pearson": 0.5, "spearman": 0.25}
    write_json(run / "result.json", result)
    ended = predictions(run, tmp_path / "out", "--tasks", "stsb")
    assert ended.status == 0
    assert "not the same numbers as the run recorded, 0.3750" in ended.out


def test_protocol_of_choice_is_taken(run: Path, tmp_path: Path) -> None:
    ended = predictions(run, tmp_path / "out", "--protocol", "fixed", "--tasks", "mrpc")
    assert ended.out.startswith("MRPC.tsv: fixed, learning rate 0.0001, batch 32, 2 steps")
    assert "as the run recorded" in ended.out


def damage_params(run: Path) -> None:
    params = load_params(run / PARAMS)
    save_params(run / PARAMS, jax.tree.map(lambda leaf: leaf + 1, params))


def diverge(run: Path) -> None:
    content = read_json(run / "result.json")
    result = from_plain(RunResult, content, "made up:")
    diverged = dataclasses.replace(result, diverged=Divergence(4, "loss"), params_sha256=None)
    write_json(run / "result.json", to_plain(diverged))


def change_recipe(run: Path, **evaluation: Any) -> None:
    manifest = read_json(run / "manifest.json")
    manifest["config"]["evaluation"] |= evaluation
    write_json(run / "manifest.json", manifest)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (
            lambda run: (run / "manifest.json").unlink(),
            "has no manifest.json, expected the directory",
        ),
        (lambda run: (run / "result.json").unlink(), "has no result.json, expected a finished run"),
        (lambda run: (run / PARAMS).unlink(), "params.safetensors: cannot be read"),
        (lambda run: (run / PARAMS).write_bytes(b"x"), "params.safetensors: cannot be read"),
        (damage_params, "the parameters' SHA-256 is"),
        (diverge, "the run diverged at step 4, expected one that did not"),
        (
            lambda run: change_recipe(run, suite="", suite_tasks=[]),
            "the run was measured on no suite, expected evaluation.suite glue",
        ),
        (
            lambda run: change_recipe(run, suite="babylm", babylm="x", suite_tasks=[]),
            "the run was measured on BabyLM, expected evaluation.suite glue",
        ),
        (
            lambda run: change_recipe(run, protocols=["probe"]),
            "the run was measured by probe, expected grid or fixed among evaluation.protocols",
        ),
    ],
)
def test_unusable_run_is_refused(
    spoil: Callable[[Path], None], line: str, run: Path, tmp_path: Path
) -> None:
    spoil(run)
    ended = predictions(run, tmp_path / "out")
    assert ended.status == 2
    assert line in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not (run / "finetuning").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--tasks", "mrcp"], "--tasks has 'mrcp' (did you mean 'mrpc'?)"),
        (["--protocol", "few_shot"], "--protocol is 'few_shot', expected grid or fixed"),
        (["--glue", "tfds:glue"], "TFDS shuffles rows, expected the official files"),
    ],
)
def test_impossible_arguments_are_refused(
    words: list[str], line: str, run: Path, tmp_path: Path
) -> None:
    ended = predictions(run, tmp_path / "out", *words)
    assert ended.status == 2
    assert line in ended.err
    assert not (tmp_path / "out").exists()


def test_tasks_without_test_rows_are_named_and_left_out_if_asked(run: Path, tmp_path: Path) -> None:
    root = glue.write_official(tmp_path / "glue", suite_tasks("glue", TASKS))
    (root / "MRPC" / "test.tsv").unlink()
    ended = predictions(run, tmp_path / "out", "--glue", root)
    assert ended.status == 2
    assert "without test rows: mrpc; expected their test files, or --tasks stsb" in ended.err
    assert not (tmp_path / "out").exists()
    assert predictions(run, tmp_path / "out", "--glue", root, "--tasks", "stsb").status == 0


def test_test_rows_that_would_be_left_out_are_refused(run: Path, tmp_path: Path) -> None:
    root = glue.write_official(tmp_path / "glue", suite_tasks("glue", ("qqp",)))
    change_recipe(run, suite_tasks=["qqp"])
    content = read_json(run / "result.json")
    content["details"]["grid.qqp"] = {**content["details"]["grid.stsb"], "task": "qqp"}
    content["metrics"]["grid.qqp"] = 0.0
    write_json(run / "result.json", content)
    with (root / "QQP" / "test.tsv").open("a", encoding="utf-8") as file:
        file.write("8\tcut\n")
    ended = predictions(run, tmp_path / "out", "--glue", root)
    assert ended.status == 2
    assert "of its test rows 1 lack columns, expected whole ones beside the other 7" in ended.err


def test_directory_that_holds_files_is_refused_and_stays(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    ended = predictions(run, out)
    assert ended.status == 2
    assert "holds files, expected an empty directory, or none" in ended.err
    assert files_of(out) == {"mine.txt": b"mine"}


def test_empty_directory_is_taken(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert predictions(run, tmp_path / "out", "--tasks", "stsb").status == 0
    assert sorted(files_of(tmp_path / "out")) == ["STS-B.tsv", "submission.zip"]


def test_command_locks_the_run_and_the_output(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Path] = []
    hold = locks.hold

    def note(place: Any, part: str = "") -> Any:
        held.append(Path(place))
        return hold(place, part)

    monkeypatch.setattr(locks, "hold", note)
    predictions(run, tmp_path / "out", "--tasks", "stsb")
    assert held == [run, tmp_path / "out"]
