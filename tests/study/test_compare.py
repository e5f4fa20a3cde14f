"""A whole comparison, from text to report, on eight emulated devices."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdjax import models, recipes
from kdjax.budget.journal import read
from kdjax.config import DataConfig
from kdjax.data.manifest import Manifest
from kdjax.models import zoo
from kdjax.storage.typed_json import to_plain
from kdjax.study import compare
from kdjax.study.artifacts.corpus import differences_from_prepared
from kdjax.study.runs import runner
from kdjax.training.checksum import sha256
from tests.golden import pytorch
from tests.report.page import without_scripts
from tests.study.conftest import Ended, kdjax
from tests.support import small_study
from tests.support.small_study import ARMS, BUDGET, HEAD, SEEDS, TASKS

pytestmark = pytest.mark.system

PARTS = ("student_forward", "student_backward", "teacher_forward", "objective", "optimizer")
WITH_MLM_HEAD = ("scratch", "logit")


@dataclass(frozen=True)
class Study:
    recipe: Path
    out: Path
    ended: Ended
    results: dict[str, Any]

    def run(self, arm: str, seed: int) -> dict[str, Any]:
        return next(run for run in self.results["runs"] if (run["arm"], run["seed"]) == (arm, seed))

    def price(self, arm: str) -> dict[str, int]:
        """Return the price of a step of the arm's only phase."""
        (phase,) = self.results["arms"][arm]["phases"]
        return phase["price"]

    def lines(self, arm: str, seed: int) -> list[dict[str, float]]:
        path = self.out / "runs" / f"{arm}-seed{seed}" / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def params(self, arm: str, seed: int) -> dict[str, np.ndarray]:
        return load_file(self.out / "runs" / f"{arm}-seed{seed}" / "params.safetensors")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    here = tmp_path_factory.mktemp("study")
    recipe = small_study.write(here)
    ended = kdjax("compare", recipe, "--out", here / "out")
    assert ended.status == 0, ended.err
    return Study(
        recipe, here / "out", ended, json.loads((here / "out" / "results.json").read_text())
    )


@pytest.fixture(scope="module")
def scratch_only(study: Study) -> Path:
    """The study's recipe with one arm, which needs no teacher, and one seed."""
    settings = yaml.safe_load(study.recipe.read_text())
    recipe = study.recipe.with_name("scratch.yaml")
    recipe.write_text(
        yaml.safe_dump({**settings, "arms": {"scratch": {}}, "seeds": [0]}, sort_keys=False)
    )
    return recipe


def no_training(*args: object, **kwargs: object) -> None:
    pytest.fail("a finished run was trained again")


def written(directory: Path) -> dict[Path, tuple[int, int]]:
    """Return when each file was last written, and its identity: an untouched file keeps both."""
    stats = {
        path.relative_to(directory): path.stat() for path in directory.rglob("*") if path.is_file()
    }
    return {path: (stat.st_mtime_ns, stat.st_ino) for path, stat in stats.items()}


def test_results_have_a_row_for_each_arm_and_seed(study: Study) -> None:
    runs = {(run["arm"], run["seed"]) for run in study.results["runs"]}
    assert runs == set(product(ARMS, SEEDS))
    assert len(study.results["runs"]) == len(ARMS) * len(SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("arm", ARMS)
def test_each_run_spends_its_budget_within_one_step(study: Study, arm: str, seed: int) -> None:
    run = study.run(arm, seed)
    price = study.price(arm)
    spent = run["spent"]
    assert run["budget"] == study.results["budget"]
    assert (run["budget"]["kind"], run["budget"]["amount"], run["budget"]["teacher"]) == (
        "flops",
        BUDGET,
        "inference",
    )
    # What is charged is whole steps, and one more would exceed the budget.
    assert BUDGET - price["total"] < spent["charged"] <= BUDGET
    assert (
        run["used"]
        == spent["charged"]
        == sum(spent[part] for part in PARTS)
        == run["steps"] * price["total"]
    )
    # The head's fit is booked to the arm with logits, and charged to none.
    assert spent["teacher_cache"] == 0
    assert spent["teacher_training"] == (
        study.results["teacher"]["head_flops"] if arm == "logit" else 0
    )
    assert spent["total"] == spent["charged"] + spent["teacher_training"]
    assert run["phases"] == [{"steps": run["steps"], "batch": 8, "flops": spent["charged"]}]
    assert all(spent[part] == run["steps"] * price[part] for part in PARTS)
    assert (spent["teacher_forward"] > 0) == (arm != "scratch")
    assert run["steps"] == study.results["arms"][arm]["steps"] == study.lines(arm, seed)[-1]["step"]


def test_tokens_epochs_and_words_follow_from_steps(study: Study) -> None:
    sequences = study.results["corpus"]["sequences"]["train"]
    manifest = json.loads((study.out / "data" / "manifest.json").read_text())
    figures = manifest["text"]
    for run in study.results["runs"]:
        assert run["epochs"] == pytest.approx(run["steps"] * 8 / sequences)
        assert run["epochs"] < 1
        assert (
            run["tokens_unique"] == run["tokens_seen"] <= run["positions"] == run["steps"] * 8 * 16
        )
        # One word is one token of this tokenizer, and no more than were seen.
        rate = run["words_seen"] / run["tokens_seen"]
        assert 0.5 < rate < 1
        assert rate == pytest.approx(
            figures["words"]["train"] / manifest["tokens"]["train"], rel=1e-3
        )
        # Every position that is masked was seen.
        assert 0 < run["tokens_masked"] < 0.3 * run["tokens_seen"]


def test_rows_hold_hardware_flops_beside_charged_flops(study: Study) -> None:
    for run in study.results["runs"]:
        used = run["hardware"]
        assert used["model_flops"] == sum(run["spent"][part] for part in PARTS)
        # XLA counts the optimized program, which differs from the reference one that is priced.
        assert used["hardware_flops"] > 0.5 * used["model_flops"]
        assert 0 < used["model_utilisation"] < 1
        assert used["devices"] == 8
        assert used["peak"]["source"] == "measured"
        assert used["program_bytes"] > 0
        assert used["high_water_bytes"] > 0
        assert {"compute", "input", "compile", "evaluation"} <= run["wall_clock"].keys()


def test_ledger_journal_ends_with_the_result_of_the_run(study: Study) -> None:
    for run in study.results["runs"]:
        entries = read(study.out / "runs" / f"{run['arm']}-seed{run['seed']}" / "ledger.jsonl")
        assert [entry["event"] for entry in entries] == ["open", "steps", "close"]
        assert entries[-1]["sha256"] == run["ledger_sha256"]
        assert entries[-1]["params_sha256"] == run["params_sha256"]


def test_results_judge_each_teacher_accounting(study: Study) -> None:
    cases = {case["case"]: case for case in study.results["cases"]}
    assert list(cases) == ["nothing", "inference", "training", "both"]
    assert [name for name, case in cases.items() if case["enforced"]] == ["inference"]
    enforced = [
        (row["endpoint"], row["a"], row["verdict"], row["b"])
        for row in cases["inference"]["verdicts"]
    ]
    assert enforced == [
        (v["endpoint"], v["a"], v["verdict"], v["b"]) for v in study.results["verdicts"]
    ]
    # Who pays for more pays more; what the encoder cost is not known.
    assert cases["nothing"]["costs"]["logit"] < cases["inference"]["costs"]["logit"]
    assert set(cases["both"]["unknown"]) == {"logit", "tinybert", "minilm"}


def test_learning_curve_ends_at_the_budget(study: Study) -> None:
    for arm in WITH_MLM_HEAD:
        for seed in SEEDS:
            run = study.run(arm, seed)
            assert [point["flops"] for point in run["curve"]] == [
                point["step"] * study.price(arm)["total"] for point in run["curve"]
            ]
            assert len(run["curve"]) == 3
            assert run["curve"][-1]["step"] == run["steps"]
            assert run["curve"][-1]["mlm_loss"] == pytest.approx(
                run["metrics"]["mlm_loss"], rel=1e-5
            )
    # An arm that trains no MLM head has no loss of its own.
    assert study.run("tinybert", 0)["curve"] == []
    assert "mlm_loss" not in study.run("tinybert", 0)["metrics"]


def test_metrics_compare_each_run_with_the_teacher(study: Study) -> None:
    """The figures are the teacher's loss as a constant, the divergence from it at temperature 1,
    and how often both predict the same token."""
    loss = study.results["teacher"]["mlm_loss"]
    for arm in ARMS:
        figures = [line for line in study.lines(arm, 0) if "teacher_mlm_loss" in line]
        assert len(figures) == 3
        assert all(line["teacher_mlm_loss"] == pytest.approx(loss, rel=1e-6) for line in figures)
        for line in figures:
            assert ("teacher_kl" in line) == ("teacher_agreement" in line) == (arm in WITH_MLM_HEAD)
        if arm in WITH_MLM_HEAD:
            details = study.run(arm, 0)["details"]["mlm_loss"]
            assert details["teacher_kl"] == pytest.approx(figures[-1]["teacher_kl"], rel=1e-5)
            assert details["teacher_kl"] > 0
            assert details["teacher_agreement"] == pytest.approx(figures[-1]["teacher_agreement"])
    kl = {arm: study.run(arm, 0)["details"]["mlm_loss"]["teacher_kl"] for arm in WITH_MLM_HEAD}
    assert kl["scratch"] != kl["logit"]


def test_each_run_has_probe_and_finetune_metrics_of_each_task(study: Study) -> None:
    for run in study.results["runs"]:
        for task in TASKS:
            assert 0 < run["metrics"][f"probe.{task}"] <= 1
            assert 0 < run["metrics"][f"fixed.{task}"] <= 1
            assert (
                len(run["details"][f"probe.{task}"]["layers"]) == small_study.STUDENT["layers"] + 1
            )


def test_final_params_differ_between_all_runs(study: Study) -> None:
    assert len({run["params_sha256"] for run in study.results["runs"]}) == len(ARMS) * len(SEEDS)


def test_params_sha256_is_of_the_saved_params(study: Study) -> None:
    tree: dict[str, Any] = {}
    for name, array in study.params("minilm", 1).items():
        *branches, leaf = name.split(".")
        below = tree
        for branch in branches:
            below = below.setdefault(branch, {})
        below[leaf] = array
    assert sha256(tree) == study.run("minilm", 1)["params_sha256"]


def test_arms_of_a_seed_share_start_order_and_masks(study: Study) -> None:
    first = {run: study.lines(*run)[0] for run in product(WITH_MLM_HEAD, SEEDS)}
    assert all(line["step"] == 1 for line in first.values())
    assert first["scratch", 0]["loss/mlm"] == pytest.approx(first["logit", 0]["loss/mlm"], rel=1e-6)
    assert first["scratch", 1]["loss/mlm"] == pytest.approx(first["logit", 1]["loss/mlm"], rel=1e-6)
    # Another seed begins elsewhere.
    assert first["scratch", 0]["loss/mlm"] != pytest.approx(
        first["scratch", 1]["loss/mlm"], rel=1e-4
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_params_without_gradient_stay_at_the_start(study: Study, seed: int) -> None:
    student = zoo.resolve(recipes.load(study.recipe).student)
    start = models.init(student, seed).params
    for arm in ("tinybert", "minilm"):
        ended = study.params(arm, seed)
        assert "mlm" in study.results["arms"][arm]["untrained"]
        np.testing.assert_array_equal(ended["mlm.dense.kernel"], start["mlm"]["dense"]["kernel"])
        # The rest has been trained.
        assert not np.array_equal(
            ended["embeddings.word.embedding"], start["embeddings"]["word"]["embedding"]
        )


def test_verdicts_hold_mean_paired_differences(study: Study) -> None:
    endpoints = {endpoint["name"]: endpoint for endpoint in study.results["endpoints"]}
    of_tasks = {f"{kind}.{task}" for kind, task in product(("probe", "fixed"), TASKS)}
    assert set(endpoints) == {"mlm_loss", *of_tasks}
    assert endpoints["mlm_loss"]["arms"] == list(WITH_MLM_HEAD)
    assert len(study.results["verdicts"]) == 1 + 4 * 6
    for verdict in study.results["verdicts"]:
        name = verdict["endpoint"]
        paired = [
            study.run(verdict["a"], seed)["metrics"][name]
            - study.run(verdict["b"], seed)["metrics"][name]
            for seed in SEEDS
        ]
        assert verdict["n"] == len(SEEDS)
        assert verdict["difference"] == pytest.approx(np.mean(paired), abs=1e-9)
        assert verdict["low"] <= verdict["difference"] <= verdict["high"]


def test_starts_and_teacher_are_measured_like_runs(study: Study) -> None:
    names = [(reference["name"], reference["seed"]) for reference in study.results["references"]]
    assert names == [*(("untrained start", seed) for seed in SEEDS), ("teacher", None)]
    for reference in study.results["references"]:
        assert {f"probe.{task}" for task in TASKS} <= reference["metrics"].keys()
    assert (
        study.results["references"][-1]["metrics"]["mlm_loss"]
        == study.results["teacher"]["mlm_loss"]
    )


def test_report_names_each_arm_and_loads_nothing(study: Study) -> None:
    page = without_scripts((study.out / "report.html").read_text(encoding="utf-8"))
    assert all(arm in page for arm in ARMS)
    loads = re.findall(
        r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)|url\(([^)]*)\)|@import\s+(\S+)""", page
    )
    for link in chain.from_iterable(loads):
        assert not link or link.startswith(("#", "data:"))
    assert "<script" not in page


def test_compare_prints_the_summary(study: Study) -> None:
    assert all(arm in study.ended.out for arm in ARMS)
    assert "At 5.00e7 FLOPs" in study.ended.out
    assert f"report: {study.out / 'report.html'}" in study.ended.out
    assert [arm for arm in ARMS if f"{arm}, seed 1: " in study.ended.err] == list(ARMS)


def test_finished_study_leaves_no_temporary_files(study: Study) -> None:
    names = {path.name for path in study.out.rglob("*")}
    # Neither temporary files nor what runs need only while they go on.
    assert not [name for name in names if name.startswith(".") or name.endswith((".tmp", ".fit"))]
    assert "checkpoints" not in names
    assert {path.name for path in study.out.iterdir()} == {
        "data",
        "teacher",
        "runs",
        "references",
        "study.json",
        "results.json",
        "report.html",
        "wall_clock.json",
    }


def test_run_manifest_holds_recipe_cost_and_versions(study: Study) -> None:
    manifest = json.loads((study.out / "runs" / "logit-seed1" / "manifest.json").read_text())
    assert recipes.from_dict(manifest["config"]) == recipes.load(study.recipe)
    assert manifest["cost"] == {
        "prices": [study.price("logit")],
        "upfront": {"teacher_training": study.results["teacher"]["head_flops"]},
    }
    assert manifest["corpus"] == study.results["corpus"]["digest"]
    assert [term["name"] for term in manifest["arm_settings"]["phases"][0]["terms"]] == [
        "mlm",
        "logit",
    ]
    assert {"kdjax", "jax", "python", "device"} <= manifest.keys()
    assert manifest["device"].endswith("x8")


def test_fitted_teacher_is_a_hugging_face_directory(study: Study) -> None:
    directory = study.out / "teacher"
    fitted = load_file(directory / "model.safetensors")
    encoder = load_file(study.recipe.parent / "encoder" / "model.safetensors")

    # Tensors have the names of transformers' masked language model, whose encoder has one layer
    # more.
    theirs = load_file(pytorch.DIRECTORY / "masked_lm" / "model.safetensors")
    more = f"layer.{small_study.TEACHER['layers']}."
    assert {name for name in theirs if more not in name} == fitted.keys() != theirs.keys()

    # The encoder is the one that was given.
    assert {f"bert.{name}" for name in encoder} == {
        name for name in fitted if name.startswith("bert.")
    }
    for name, tensor in encoder.items():
        np.testing.assert_array_equal(fitted[f"bert.{name}"], tensor)
    # The card says what the head cost and how good it is.
    card = (directory / "README.md").read_text(encoding="utf-8")
    facts = study.results["teacher"]
    assert f"{facts['head_flops']:.4g} FLOPs" in card
    assert f"{facts['mlm_loss']:.4f} nats" in card
    assert 0 < facts["head_flops"] <= HEAD
    assert facts["encoder"] == "frozen"


# From here on nobody looks at the pages.
@pytest.mark.usefixtures("undrawn")
def test_compare_of_finished_study_trains_nothing(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "train", no_training)
    before = (study.out / "results.json").read_bytes()
    files = written(study.out / "runs")
    ended = kdjax("compare", study.recipe, "--out", study.out)
    assert ended.status == 0, ended.err
    assert (study.out / "results.json").read_bytes() == before
    assert written(study.out / "runs") == files
    assert ended.out == study.ended.out


@pytest.mark.usefixtures("undrawn")
def test_library_compare_returns_the_results_of_the_command(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "train", no_training)
    results = compare.compare(recipes.load(study.recipe), study.out)
    assert to_plain(results) == study.results


@pytest.mark.usefixtures("undrawn")
def test_new_seed_joins_a_finished_study(study: Study, scratch_only: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(study.out, out)
    before = written(out / "runs")
    ended = kdjax("compare", scratch_only, "--out", out, "--seeds", "[0, 1, 2]")
    assert ended.status == 0, ended.err
    # Finished runs are untouched, and there is one more.
    after = written(out / "runs")
    assert {path: stamp for path, stamp in after.items() if path in before} == before
    assert {path.parts[0] for path in after.keys() - before.keys()} == {"scratch-seed2"}
    runs = json.loads((out / "results.json").read_text())["runs"]
    assert [(run["arm"], run["seed"]) for run in runs] == [("scratch", seed) for seed in (0, 1, 2)]
    assert runs[:2] == [study.run("scratch", seed) for seed in SEEDS]


@pytest.mark.usefixtures("undrawn")
def test_compare_reuses_a_run_of_the_train_command(
    study: Study, scratch_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    ended = kdjax("train", scratch_only, "--out", out, "--arm", "scratch", "--seed", "0")
    assert ended.status == 0, ended.err
    assert not (out / "results.json").exists()
    # The study finds the run done and only measures the rest.
    monkeypatch.setattr(runner, "train", no_training)
    results = compare.compare(recipes.load(scratch_only), out)
    assert [run.params_sha256 for run in results.runs] == [study.run("scratch", 0)["params_sha256"]]
    assert results.runs[0].metrics == study.run("scratch", 0)["metrics"]
    assert results.teacher is None


def test_price_command_equals_what_runs_paid(study: Study) -> None:
    ended = kdjax("price", study.recipe, "--json", "--data.prepared", study.out / "data")
    assert (ended.status, ended.err) == (0, "")
    rows = json.loads(ended.out)
    assert list(rows) == list(ARMS)
    for arm, phases in rows.items():
        assert len(phases) == 1
        assert {"total", *PARTS, "steps", "tokens", "epochs", "words"} <= phases[0].keys()
        assert phases[0]["total"] == study.price(arm)["total"]
        assert phases[0]["steps"] == study.run(arm, 0)["steps"]
        assert phases[0]["epochs"] == pytest.approx(study.run(arm, 0)["epochs"])
        assert phases[0]["tokens"] == pytest.approx(study.run(arm, 0)["tokens_seen"], rel=0.1)
        assert phases[0]["words"] == pytest.approx(study.run(arm, 0)["words_seen"], rel=0.1)


def test_price_command_needs_neither_text_nor_weights(study: Study) -> None:
    nowhere = (
        "--data.files",
        "none.txt",
        "--teacher.source",
        "none",
        "--data.tokenizer",
        "none.json",
    )
    ended = kdjax("price", study.recipe, *nowhere)
    assert ended.status == 0, ended.err
    assert all(arm in ended.out for arm in ARMS)


def test_run_with_prepared_corpus_and_teacher_ends_with_the_same_params(
    study: Study, tmp_path: Path
) -> None:
    prepared = tmp_path / "prepared"
    fitted = tmp_path / "fitted"
    assert kdjax("prepare", study.recipe, "--out", prepared).status == 0
    prepared_teacher = kdjax("teacher", study.recipe, "--out", fitted)
    assert prepared_teacher.status == 0, prepared_teacher.err
    assert f"{study.results['teacher']['mlm_loss']:.3f}" in prepared_teacher.err
    ended = kdjax(
        *("train", study.recipe, "--out", tmp_path / "out", "--arm", "logit", "--seed", "0"),
        *("--data.prepared", prepared, "--teacher.source", fitted, "--teacher.head.budget", "0"),
    )
    assert ended.status == 0, ended.err
    row = json.loads((tmp_path / "out" / "runs" / "logit-seed0" / "result.json").read_text())
    assert row["params_sha256"] == study.run("logit", 0)["params_sha256"]
    assert not (tmp_path / "out" / "data").exists()
    # It was prepared by the same recipe, of which nothing is passed over.
    assert "this corpus was prepared" not in ended.err


def test_prepared_corpus_of_other_settings_is_read_with_a_warning_for_each(study: Study) -> None:
    manifest = Manifest.read(study.out / "data")
    made_with = DataConfig(validation=0.15, files="elsewhere/text.jsonl")
    assert differences_from_prepared(made_with, manifest) == []
    other = DataConfig(validation=0.2, files=("*.jsonl", "news.txt"), documents="lines")
    sentences = differences_from_prepared(other, manifest)
    # Which of the two counts comes first, then what to do.
    prepared = "as this corpus was prepared; the recipe's"
    assert [sentence.partition(" has no effect here. To ")[0] for sentence in sentences] == [
        f"data.validation is 0.15, {prepared} 0.2",
        f"data.documents is 'paragraphs', {prepared} 'lines'",
        f"data.files is 'text.jsonl', {prepared} 'news.txt'",
    ]
    assert all("prepare a corpus of its own" in sentence for sentence in sentences)


def test_tensorboard_files_hold_recipe_and_utilisation(study: Study) -> None:
    run = study.out / "runs" / "minilm-seed1"
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    (recipe,) = events.Tensors("recipe")
    assert b'"evaluations": 3' in recipe.tensor_proto.string_val[0]
    steps = [line for line in study.lines("minilm", 1) if "loss" in line]
    shares = [line["speed/utilisation"] for line in steps if "speed/utilisation" in line]
    assert len(shares) == len(steps)
    assert all(0 < share < 1 for share in shares)
    assert [point.value for point in events.Scalars("speed/utilisation")] == pytest.approx(
        shares, rel=1e-6
    )


def test_wall_clock_parts_add_up(study: Study) -> None:
    spent = study.results["wall_clock"]
    assert {"setting up", "text", "teacher", "compile", "compute", "evaluation"} <= spent.keys()
    assert min(spent.values()) > 0
    runs = sum(
        run["wall_clock"]["compute"] + run["wall_clock"]["evaluation"]
        for run in study.results["runs"]
    )
    assert 0.5 * spent["compute"] < runs < sum(spent.values())
    said = study.ended.err.splitlines()
    (line,) = [line for line in said if line.startswith("wall-clock of this command, ")]
    assert all(f"{kind} " in line for kind in (*spent, "report"))
    assert "Wall-clock of the study, " in (study.out / "report.html").read_text()
