"""Studies that train their teachers: killed and resumed, reused, swept over, audited, and paid
for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdjax import models, recipes
from kdjax.audit.audit import audit
from kdjax.dry_run.recipe_prices import prices
from kdjax.errors import InputError
from kdjax.study.runs import runner
from kdjax.study.teachers import trained
from kdjax.training.checkpoints.storage import CheckpointStorage
from kdjax.training.checksum import sha256
from kdjax.training.teacher.pretraining import stream_seed
from tests.study.conftest import kdjax
from tests.support import metrics, small_study
from tests.support.corpora import make_tokenizer

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]

TRAIN = {
    "budget": 8.0e7,
    "batch_size": 8,
    "seeds": [3, 0],
    "checkpoints": [0.25, 1.0],
    "optimizer": {"learning_rate": 1.0e-2},
}
ARMS = ("scratch", "logit")
SEEDS = (0, 1, 2)
TEACHER_OF = {0: 0, 1: 3, 2: 0}
"""Student seed -> teacher seed: the seed modulo 2 among teachers in ascending order."""
STUDENTS = 4
KILLS = (3, 12)
"""The saves of a checkpoint in which the study's first two starts are killed: within the first
teacher, the second.
"""


def settings(directory: Path, **changes: Any) -> dict[str, Any]:
    """Make the settings of a recipe that trains two teachers."""
    tokenizer = make_tokenizer(directory / "tokenizer.json")
    plain = small_study.settings(directory)
    return {
        **plain,
        "data": {**plain["data"], "tokenizer": str(tokenizer)},
        "teacher": {
            "architecture": small_study.TEACHER,
            "train": TRAIN,
            "at": 0.25,
            "note": "A small one.",
        },
        "arms": {arm: {} for arm in ARMS},
        "seeds": list(SEEDS),
        "budget": {"flops": 3.0e7, "teacher": "both", "students": STUDENTS},
        "train": {**plain["train"], "vmapped_seeds": 3, "evaluations": 1},
        "evaluation": {"mlm_sequences": 16, "tasks": {}},
        **changes,
    }


def write(directory: Path, name: str = "recipe.yaml", **changes: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    recipe = directory / name
    recipe.write_text(
        yaml.safe_dump(settings(directory, **changes), sort_keys=False), encoding="utf-8"
    )
    return recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def teachers(recipe: Path) -> Path:
    """The directory that `kdjax teacher` makes of the recipe, in one go."""
    out = recipe.parent / "teachers"
    ended = kdjax("teacher", recipe, "--out", out)
    assert ended.status == 0, ended.err
    assert "seed 3, at 0.25: held-out MLM loss" in ended.err
    return out


@pytest.fixture(scope="module")
def study(recipe: Path) -> Path:
    """A study that was killed twice while it trained its teachers."""
    out = recipe.parent / "study"
    saved = []
    save = CheckpointStorage.save

    def killed(self: CheckpointStorage, *arguments: Any) -> None:
        saved.append(arguments)
        if len(saved) in KILLS:
            raise KeyboardInterrupt
        save(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointStorage, "save", killed)
        for _ in KILLS:
            assert (
                kdjax("compare", recipe, "--out", out, "--train.checkpoint.seconds", "0").status
                == 130
            )
            assert not (out / "study.json").exists()
    ended = kdjax("compare", recipe, "--out", out)
    assert ended.status == 0, ended.err
    return out


def results(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "results.json").read_text())
    return content


def card(directory: Path, seed: int, at: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (directory / f"seed{seed}" / f"at-{at}" / "teacher.json").read_text()
    )
    return content


def test_teachers_of_a_killed_study_equal_those_trained_in_one_go(
    study: Path, teachers: Path
) -> None:
    for seed in TRAIN["seeds"]:
        for at in ("0.25", "1"):
            assert card(study / "teacher", seed, at) == card(teachers, seed, at)
        # The training ended with the same parameters, figures and account.
        run = study / "teacher" / f"seed{seed}"
        expected = teachers / f"seed{seed}"
        assert metrics.same_each_time(run) == metrics.same_each_time(expected)
        result = json.loads((run / "result.json").read_text())
        straight = json.loads((expected / "result.json").read_text())
        for name in ("params_sha256", "spent", "steps", "phases", "tokens_seen", "curve"):
            assert result[name] == straight[name], name
        assert not (run / "checkpoints").exists()
    # It was indeed killed.
    events = [
        json.loads(line)["event"]
        for line in (study / "teacher/seed3/ledger.jsonl").read_text().splitlines()
    ]
    assert "restart" in events


def test_card_holds_cost_and_quality_of_the_checkpoint(teachers: Path) -> None:
    early = card(teachers, 0, "0.25")
    whole = card(teachers, 0, "1")
    step = early["pretraining"]["step_flops"]
    assert early["training_flops"] == int(0.25 * TRAIN["budget"] / step) * step
    assert whole["training_flops"] == int(TRAIN["budget"] / step) * step
    other = card(teachers, 3, "1")
    assert len({facts["params_sha256"] for facts in (early, whole, other)}) == 3
    # The weights are those that the card was written for.
    model = models.from_pretrained(teachers / "seed0" / "at-0.25")
    assert sha256(model.params) == early["params_sha256"]
    # People read the same in the card.
    card_text = (teachers / "seed0" / "at-0.25" / "README.md").read_text(encoding="utf-8")
    for words in (
        "2 layers, width 24, 2 heads, feed-forward 48",
        f"{early['pretraining']['steps']} steps of {step:.6g}",
        f"{early['mlm_loss']:.4f} nats",
        "| seed | 0 |",
        "has used 0.25 |",
        "its\nlearning rate was still on its way down to 0",
        early["pretraining"]["corpus"][:16],
        f"{early['pretraining']['tokens']:,}",
        "A small one.",
    ):
        assert words in card_text, words


def test_student_learns_from_the_teacher_of_its_seed_modulo_their_number(study: Path) -> None:
    losses = {seed: card(study / "teacher", seed, "0.25")["mlm_loss"] for seed in TRAIN["seeds"]}
    for seed, of in TEACHER_OF.items():
        for arm in ARMS:
            run = study / "runs" / f"{arm}-seed{seed}"
            taught_by = json.loads((run / "manifest.json").read_text())["teacher"]
            if arm == "scratch":
                assert taught_by is None
            else:
                assert taught_by == card(study / "teacher", of, "0.25")
            # Its losses stand beside those of the student.
            beside = [
                line["teacher_mlm_loss"]
                for line in metrics.lines(run)
                if "teacher_mlm_loss" in line
            ]
            assert beside
            assert beside == pytest.approx([losses[of]] * len(beside))


def test_vmapped_seeds_share_a_teacher(study: Path) -> None:
    together = {
        (run["arm"], run["seed"]): run["hardware"]["side_by_side"] for run in results(study)["runs"]
    }
    assert {seed: together["logit", seed] for seed in SEEDS} == {0: 2, 1: 1, 2: 2}
    assert {seed: together["scratch", seed] for seed in SEEDS} == {0: 3, 1: 3, 2: 3}


def test_arms_with_a_teacher_pay_a_share_of_its_training(study: Path, recipe: Path) -> None:
    training = card(study / "teacher", 0, "0.25")["training_flops"]
    known = prices(recipes.load(recipe))
    for run in results(study)["runs"]:
        expected = 0 if run["arm"] == "scratch" else -(-training // STUDENTS)
        assert run["spent"]["teacher_training"] == expected
        assert [row["steps"] for row in known[run["arm"]]] == [
            phase["steps"] for phase in run["phases"]
        ]


def test_notes_say_how_teachers_were_trained_and_what_intervals_cover(study: Path) -> None:
    notes = " ".join(results(study)["notes"])
    for words in (
        "Teachers pretrained from scratch by masked language modelling: 2; seeds 0 and 3; FLOPs",
        "Students learn from the teacher at 25% of its budget of 8.00e7 FLOPs, while its learning",
        "as far as 2 teachers can show it",
        "They do not cover the choice of test rows, corpus or hyperparameters.",
    ):
        assert words in notes, words


def test_references_hold_each_teacher_with_its_loss(study: Path) -> None:
    content = results(study)
    references = {row["name"]: row["metrics"]["mlm_loss"] for row in content["references"][-2:]}
    assert list(references) == ["teacher, seed 0", "teacher, seed 3"]
    losses = [teacher["mlm_loss"] for teacher in content["teacher"]["teachers"]]
    assert list(references.values()) == pytest.approx(losses)


def test_teachers_say_the_words_and_epochs_they_have_seen(study: Path) -> None:
    manifest = json.loads((study / "data" / "manifest.json").read_text(encoding="utf-8"))
    rate = manifest["text"]["words"]["train"] / manifest["tokens"]["train"]
    content = results(study)
    for teacher in content["teacher"]["teachers"]:
        training = teacher["pretraining"]
        assert training["words"] == round(training["tokens"] * rate)
        assert training["epochs"] > 0
    card = (study / "teacher" / "seed0" / "at-0.25" / "README.md").read_text(encoding="utf-8")
    first = content["teacher"]["teachers"][0]["pretraining"]
    assert f"| words seen | {first['words']:,} |" in card
    page = (study / "report.html").read_text(encoding="utf-8")
    assert "with the teacher&#39;s" in page or "with the teacher's" in page


def test_loss_of_several_teachers_is_their_mean(study: Path) -> None:
    teacher = results(study)["teacher"]
    losses = [member["mlm_loss"] for member in teacher["teachers"]]
    assert teacher["mlm_loss"] == pytest.approx(sum(losses) / 2)


def test_page_says_that_teachers_were_trained_here(study: Path) -> None:
    page = (study / "report.html").read_text(encoding="utf-8")
    assert "trained here: 2 layers" in page
    assert "2 teachers, the losses are their mean" in page


def test_audit_finds_a_wrong_teacher_cost(study: Path, tmp_path: Path) -> None:
    assert audit(study) == []
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    # One FLOP less is found.
    path = copy / "teacher" / "seed3" / "at-0.25" / "teacher.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "training_flops": facts["training_flops"] - 1}))
    assert any(
        "seed3/at-0.25/teacher.json: training_flops" in str(finding) for finding in audit(copy)
    )


def test_audit_names_trained_teachers_that_are_gone(study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    shutil.rmtree(copy / "teacher" / "seed3")
    assert any("seed3" in str(finding) for finding in audit(copy))
    shutil.rmtree(copy / "teacher")
    (finding,) = [found for found in audit(copy) if found.where == str(copy / "teacher")]
    assert finding.expected == "the teachers trained here, seeds 0, 3"


def test_teachers_are_reused_by_their_directory(
    study: Path, teachers: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_training(*args: object) -> None:
        pytest.fail("a finished teacher was trained again")

    monkeypatch.setattr(trained, "train", no_training)
    teacher = {"architecture": small_study.TEACHER, "source": str(teachers), "at": 0.25}
    again = write(recipe.parent, "reuse.yaml", teacher=teacher, arms={"logit": {}})
    out = recipe.parent / "reuse"
    ended = kdjax("compare", again, "--out", out)
    assert ended.status == 0, ended.err
    before = {run["seed"]: run for run in results(study)["runs"] if run["arm"] == "logit"}
    for run in results(out)["runs"]:
        for name in ("params_sha256", "spent", "steps"):
            assert run[name] == before[run["seed"]][name], name
    assert [facts["pretraining"]["seed"] for facts in results(out)["teacher"]["teachers"]] == [0, 3]
    assert audit(out) == []


def test_compare_of_finished_study_trains_no_teacher(
    study: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_training(*args: object) -> None:
        pytest.fail("trained again")

    monkeypatch.setattr(trained, "train", no_training)
    monkeypatch.setattr(runner, "train", no_training)
    before = results(study)
    assert kdjax("compare", recipe, "--out", study).status == 0
    assert results(study) == before


def test_sweep_over_checkpoints_trains_the_teacher_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = []
    train = trained.train

    def counted(*runs: Any) -> Any:
        trainings.append(runs)
        return train(*runs)

    monkeypatch.setattr(trained, "train", counted)
    teacher = {"architecture": small_study.TEACHER, "train": {**TRAIN, "seeds": [0]}}
    swept = {"teacher.at": [0.25, 1.0]}
    # Two seeds and two budgets would say no more.
    recipe = write(
        tmp_path,
        teacher=teacher,
        arms={"logit": {}},
        seeds=[0],
        sweep=swept,
        budget={"flops": 1.5e7},
    )
    ended = kdjax("sweep", recipe, "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    assert len(trainings) == 1
    assert len(list((tmp_path / "out" / "shared").glob("teacher-*"))) == 1
    cells = [results(cell) for cell in sorted((tmp_path / "out" / "cells").iterdir())]
    # Each study learnt from another checkpoint.
    used = [cell["teacher"]["pretraining"]["at"] for cell in cells]
    assert sorted(used) == [0.25, 1.0]
    params = {cell["runs"][0]["params_sha256"] for cell in cells}
    assert len(params) == 2


def test_teacher_training_on_a_full_disk_keeps_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*runs: Any) -> None:
        raise InputError(
            "checkpoints cannot be written (No space left on device), expected room for it"
        )

    monkeypatch.setattr(trained, "train", full)
    recipe = write(tmp_path)
    ended = kdjax("compare", recipe, "--out", tmp_path / "out")
    assert ended.status == 2
    assert "No space left" in ended.err
    assert (tmp_path / "out" / "teacher" / "seed0" / "manifest.json").exists()
    # The directory is still that training's alone.
    other = {
        "architecture": small_study.TEACHER,
        "train": {**TRAIN, "optimizer": {"learning_rate": 2.0e-2}},
    }
    ended = kdjax(
        "compare", write(tmp_path, "other.yaml", teacher=other), "--out", tmp_path / "out"
    )
    assert ended.status == 2
    assert "holds a teacher whose train.optimizer.learning_rate is 0.01, expected 0.02" in ended.err


BAD: tuple[tuple[Mapping[str, Any], str], ...] = (
    (
        {"source": "somewhere"},
        "teacher.source is 'somewhere' and teacher.train.budget 8e+07, expected one of them",
    ),
    ({"at": 0.5}, "teacher.at is 0.5, expected one of teacher.train.checkpoints, [0.25, 1.0]"),
    ({"at": 0.0}, "teacher.at is 0.0, expected a share of the training budget above 0, up to 1"),
    (
        {"training_flops": 5.0},
        "teacher.training_flops is 5 and teacher.train.budget 8e+07, expected 0",
    ),
    (
        {"head": {"budget": 5.0}},
        "teacher.head.budget is 5 and teacher.train.budget 8e+07, expected 0",
    ),
    (
        {"train": {**TRAIN, "seeds": []}},
        "teacher.train.seeds is [], expected one or more whole numbers from 0",
    ),
    ({"train": {**TRAIN, "seeds": [1, 1]}}, "teacher.train.seeds is [1, 1], expected one or more"),
    (
        {"train": {**TRAIN, "checkpoints": [0.5]}},
        "teacher.train.checkpoints is [0.5], expected ascending shares",
    ),
    (
        {"train": {**TRAIN, "checkpoints": [0.5, 0.25, 1.0]}},
        "expected ascending shares of the budget that end at 1",
    ),
    (
        {"train": {**TRAIN, "budget": 1.0e7}},
        "teacher.train.budget is 1e+07, expected at least the price of one step",
    ),
)


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_impossible_teacher_settings_are_refused(
    changes: Mapping[str, Any], message: str, recipe: Path, tmp_path: Path
) -> None:
    values = yaml.safe_load(recipe.read_text())
    values["teacher"] = {**values["teacher"], **changes}
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump(values), encoding="utf-8")
    ended = kdjax("compare", bad, "--out", tmp_path / "out")
    assert ended.status == 2, ended.err
    assert message in ended.err, ended.err
    assert ended.err.count("\n") == 1, ended.err
    assert not (tmp_path / "out").exists()


def test_cached_arm_with_several_teachers_is_refused(recipe: Path, tmp_path: Path) -> None:
    words = ("--arms", "{logit: {teacher: cached}}", "--data.mask_copies", "2", "--cache.k", "8")
    ended = kdjax("compare", recipe, "--out", tmp_path / "out", *words)
    assert ended.status == 2
    assert (
        "arms.logit: teacher is 'cached' and there are 2 teachers, of the seeds [0, 3], expected"
        in ended.err
    )


def test_missing_teacher_checkpoint_is_refused(
    teachers: Path, recipe: Path, tmp_path: Path
) -> None:
    teacher = {"architecture": small_study.TEACHER, "source": str(teachers), "at": 0.5}
    ended = kdjax(
        "compare", write(recipe.parent, "at.yaml", teacher=teacher), "--out", tmp_path / "out"
    )
    assert ended.status == 2
    assert "teacher.at is 0.5, expected a checkpoint of" in ended.err
    assert "it has 0.25, 1" in ended.err


def test_stream_seeds_of_teachers_are_none_of_students() -> None:
    drawn = {stream_seed(seed) for seed in range(1000)}
    assert len(drawn) == 1000
    assert not drawn & set(range(1000))
    assert max(drawn) < 2**31
