"""Scores are added up again from their details, and trials held against recipe and files."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdjax.audit.findings import AuditFindings
from kdjax.audit.finetuning import audit_finetuning
from kdjax.audit.scores import audit_scores
from kdjax.config import EvaluationConfig, FinetuneConfig
from kdjax.config.suites import suite_tasks
from kdjax.evaluation.finetuning.protocols import seeds_of
from kdjax.evaluation.finetuning.results import FinetunedTask
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.evaluation.finetuning.trial_files import write_trial
from kdjax.results.runs import ReferenceModel
from kdjax.storage.typed_json import from_plain

SETTINGS = FinetuneConfig(
    learning_rates=(1e-4, 1e-3), batch_sizes=(8,), epoch_counts=(1,), seeds=2, intermediate=""
)
EVALUATION = EvaluationConfig(
    suite="glue", glue="glue", protocols=("probe", "grid"), finetune=SETTINGS
)
SEEDS = seeds_of(0, 2)
PATH = Path("result.json")
Edit = Callable[[dict[str, Any]], object]


def finetuned(task: str, results: tuple[str, ...], metrics: tuple[str, ...]) -> dict[str, Any]:
    """Return the details of a grid of two rates and two seeds, of which the second rate wins."""
    trials: list[dict[str, Any]] = []
    for rate, selection in ((1e-4, 0.4), (1e-3, 0.6)):
        setting = {"learning_rate": rate, "batch_size": 8, "epochs": 1, "steps": 5}
        for number, seed in enumerate(SEEDS):
            values = {name: 0.5 + 0.25 * number + 0.125 * n for n, name in enumerate(metrics)}
            trials.append(
                {
                    "setting": dict(setting),
                    "seed": seed,
                    "draw": None,
                    "selection": selection,
                    "metrics": {result: dict(values) for result in results},
                    "failed": rate == 1e-4,
                    "diverged_step": None,
                }
            )
    # By hand: 0.5 and 0.75 of the first metric; 0.125 more of the second.
    means = {name: 0.625 + 0.125 * n for n, name in enumerate(metrics)}
    score = 0.625 + 0.0625 * (len(metrics) - 1)
    return {
        "task": task,
        "protocol": "grid",
        "intermediate": "",
        "chosen": dict(trials[-1]["setting"]),
        "selection": 0.6,
        "metrics": {result: dict(means) for result in results},
        "scores": dict.fromkeys(results, score),
        "baseline": dict.fromkeys(results, 0.5),
        "trials": trials,
        "failed": 0,
        "diverged": 0,
    }


def measured() -> dict[str, Any]:
    """Return a model on GLUE by a grid, on one probe and on a set of minimal pairs."""
    details: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    for task in suite_tasks("glue"):
        results = tuple(result for result, _ in task.results)
        details[f"grid.{task.name}"] = finetuned(task.name, results, task.metrics)
        for result in results:
            metrics[f"grid.{result}"] = 0.6875 if len(task.metrics) == 2 else 0.625
    # Eight tasks, of which MRPC, QQP and STS-B have two metrics.
    metrics["grid.glue"] = (5 * 0.625 + 3 * 0.6875) / 8
    layers = [
        {"layer": 0, "strength": 1.0, "dev": 0.5, "test": 0.75},
        {"layer": 1, "strength": 0.1, "dev": 0.625, "test": 0.5},
        {"layer": 2, "strength": 0.1, "dev": 0.5, "test": 0.25},
    ]
    details["probe.rte"] = {"layer": 1, "strength": 0.1, "last_layer": 0.25, "layers": layers}
    metrics["probe.rte"] = 0.5
    phenomena = {
        "a": {"accuracy": 0.25, "pairs": 4, "ties": 0},
        "b": {"accuracy": 0.75, "pairs": 2, "ties": 1},
    }
    details["minimal_pairs.blimp"] = {
        "pairs": 6,
        "sentences": 12,
        "scoring": {"pll": {"accuracy": 0.5, "ties": 1, "phenomena": phenomena}},
        "flops": 1,
        "digest": "",
    }
    metrics["minimal_pairs.blimp"] = 0.5
    return {"name": "a model", "seed": 0, "metrics": metrics, "details": details}


MEASURED = measured()


def row_of(values: dict[str, Any]) -> ReferenceModel:
    return from_plain(ReferenceModel, values, "result.json:")


def differences(values: dict[str, Any]) -> list[str]:
    """Return the places where scores do not add up."""
    findings = AuditFindings()
    audit_scores(PATH, row_of(values), EVALUATION, findings)
    return [difference.where for difference in findings.differences]


def test_scores_that_follow_from_their_details_have_no_difference() -> None:
    assert differences(MEASURED) == []


def to(value: float, *keys: str | int) -> Edit:
    """Return an edit of one value."""

    def change(values: dict[str, Any]) -> None:
        inner: Any = values
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


PROBE = ("details", "probe.rte")
PAIRS = ("details", "minimal_pairs.blimp")
PLL = (*PAIRS, "scoring", "pll")
MRPC = ("details", "grid.mrpc")
EDITS: dict[str, Edit] = {
    "metrics.grid.glue": to(0.9, "metrics", "grid.glue"),
    "metrics.grid.mrpc": to(0.95, "metrics", "grid.mrpc"),
    "metrics.grid.mnli-mm": to(0.95, "metrics", "grid.mnli-mm"),
    "metrics.probe.rte": to(0.75, "metrics", "probe.rte"),
    "metrics.minimal_pairs.blimp": to(1.0, "metrics", "minimal_pairs.blimp"),
    "details.grid.mrpc.scores.mrpc": to(0.95, *MRPC, "scores", "mrpc"),
    "details.grid.mrpc.metrics.mrpc.f1": to(0.95, *MRPC, "metrics", "mrpc", "f1"),
    "details.grid.mrpc.selection": to(0.4, *MRPC, "selection"),
    "details.grid.mrpc.failed": to(1, *MRPC, "failed"),
    "details.grid.mrpc.diverged": to(1, *MRPC, "diverged"),
    "details.grid.mrpc.chosen.learning_rate": to(1e-4, *MRPC, "chosen", "learning_rate"),
    "details.probe.rte.layer": to(2, *PROBE, "layer"),
    "details.probe.rte.strength": to(1.0, *PROBE, "strength"),
    "details.probe.rte.last_layer": to(0.5, *PROBE, "last_layer"),
    "details.minimal_pairs.blimp.scoring.pll.accuracy": to(0.75, *PLL, "accuracy"),
    "details.minimal_pairs.blimp.scoring.pll.ties": to(0, *PLL, "ties"),
    "details.minimal_pairs.blimp.pairs": to(7, *PAIRS, "pairs"),
    "details.minimal_pairs.blimp.scoring.pll.phenomena.a.accuracy": to(
        0.3, *PLL, "phenomena", "a", "accuracy"
    ),
}


@pytest.mark.parametrize("place", EDITS)
def test_changed_score_is_named(place: str) -> None:
    values = copy.deepcopy(MEASURED)
    EDITS[place](values)
    assert any(where.startswith(f"{PATH}: {place}") for where in differences(values))


def test_value_outside_its_metrics_range_is_named() -> None:
    values = copy.deepcopy(MEASURED)
    trial = values["details"]["grid.mrpc"]["trials"][0]
    # It was not chosen, so no mean tells of it.
    trial["metrics"]["mrpc"]["accuracy"] = 7.5
    findings = AuditFindings()
    audit_scores(PATH, row_of(values), EVALUATION, findings)
    (difference,) = findings.differences
    assert difference.found == "details.grid.mrpc.trials.0.metrics.mrpc.accuracy is 7.5"
    assert difference.expected == "0 to 1"


def test_score_without_its_details_is_named() -> None:
    values = copy.deepcopy(MEASURED)
    del values["details"]["grid.rte"]
    places = differences(values)
    assert f"{PATH}: metrics.grid.rte" in places
    assert f"{PATH}: metrics.grid.glue" in places


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the result.json of a model, beside the files of its trials on RTE."""
    row = row_of(MEASURED)
    task = row.details["grid.rte"]
    assert isinstance(task, FinetunedTask)
    for trial in task.trials:
        # Outcomes of single rows stay in the files of trials that were not chosen.
        stored = dataclasses.replace(trial, rows={"rte": "gA=="})
        if trial.setting == task.chosen:
            stored = trial
        name = TrialSpec(trial.setting, trial.seed).name
        write_trial(tmp_path / "finetuning" / "grid" / "rte", name, "key", stored)
    return tmp_path / "result.json"


def rte_alone() -> dict[str, Any]:
    """Return a model on RTE alone."""
    values = copy.deepcopy(MEASURED)
    values["details"] = {"grid.rte": values["details"]["grid.rte"]}
    return values


def places(
    path: Path, values: dict[str, Any], settings: FinetuneConfig = SETTINGS
) -> list[tuple[str, str]]:
    """Return the place of each difference within the model's directory, and what was expected."""
    findings = AuditFindings()
    audit_finetuning(path, row_of(values), 0, settings, findings)
    found = []
    for difference in findings.differences:
        found.append((difference.where.removeprefix(f"{path.parent}/"), difference.expected))
    return found


def test_trials_as_their_files_have_them_have_no_difference(model: Path) -> None:
    assert places(model, rte_alone()) == []


def test_trials_without_their_files_are_held_against_the_recipe_alone(tmp_path: Path) -> None:
    assert places(tmp_path / "result.json", rte_alone()) == []


def test_trial_whose_file_is_gone_edited_or_cut_is_named(model: Path) -> None:
    directory = model.parent / "finetuning" / "grid" / "rte"
    gone, edited, cut, _ = sorted(directory.iterdir())
    gone.unlink()
    edited.write_text(edited.read_text().replace('"selection": 0.4', '"selection": 0.5'))
    cut.write_text(cut.read_text()[:80])
    named = {place for place, _ in places(model, rte_alone())}
    assert named == {f"finetuning/grid/rte/{path.name}" for path in (gone, edited, cut)}


def test_trial_edited_in_the_results_is_named(model: Path) -> None:
    values = rte_alone()
    values["details"]["grid.rte"]["trials"][3]["metrics"]["rte"]["accuracy"] = 1.0
    expected = ("result.json: details.grid.rte.trials.3.metrics.rte.accuracy", "0.75")
    assert places(model, values) == [expected]


def test_trial_cut_from_the_results_is_named(model: Path) -> None:
    values = rte_alone()
    del values["details"]["grid.rte"]["trials"][2]
    expected = ("result.json: details.grid.rte.trials", "the 4 that the recipe makes")
    assert places(model, values) == [expected]


def test_trials_of_other_settings_are_named(model: Path) -> None:
    other = dataclasses.replace(SETTINGS, learning_rates=(1e-4, 2e-3))
    expected = ("result.json: details.grid.rte.trials", "the 4 that the recipe makes")
    assert places(model, rte_alone(), other) == [expected]


def test_start_that_the_recipe_does_not_give_is_named(model: Path) -> None:
    other = dataclasses.replace(SETTINGS, intermediate="mnli")
    expected = ("result.json: details.grid.rte.intermediate", "mnli")
    assert places(model, rte_alone(), other) == [expected]


def test_damaged_encoder_of_another_task_is_named(model: Path) -> None:
    state = model.parent / "finetuning" / "intermediate" / "mnli.encoder.step3.safetensors"
    state.parent.mkdir()
    state.write_bytes(b"none")
    assert [place for place, _ in places(model, rte_alone())] == [
        f"finetuning/intermediate/{state.name}"
    ]
