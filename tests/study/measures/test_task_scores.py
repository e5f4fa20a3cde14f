"""The scores of a model on tasks: which protocols measure it, and what they are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdjax.config import EvaluationConfig, FinetuneConfig, ProbeConfig
from kdjax.config.suites import SUITES, suite_tasks
from kdjax.data.tasks.suite import suite_mean
from kdjax.data.tasks.task import Task
from kdjax.evaluation.finetuning import FinetunedTask, Setting, TunedEncoder
from kdjax.evaluation.probe import LayerProbe, ProbeResult
from kdjax.models import init
from kdjax.study.measures import task_scores
from kdjax.study.measures.task_scores import FinetuningRecords, TaskScores
from tests.evaluation import handmade

MODEL = init(handmade.MODEL, 0)
SETTINGS = FinetuneConfig(steps=2, batch_size=8, lanes=1)
PROBE = ProbeConfig(examples=30, strengths=(0.1,))


def measure(
    tasks: tuple[Task, ...], finetuning: FinetuneConfig | None = SETTINGS, **settings: Any
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure the model on tasks."""
    config = EvaluationConfig(probe=PROBE, **settings)
    scores = TaskScores(config, tasks, handmade.alone())
    return scores.measure(handmade.MODEL, MODEL.params, 0, finetuning)


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every task score a tenth of the number of letters of its name, without a model."""

    def finetuned(
        *args: Any,
        protocol: str,
        start: TunedEncoder | None,
        show: Callable[[int, int], None],
        **_: Any,
    ) -> FinetunedTask:
        task = args[2]
        show(0, 3)
        scores = {result: len(result) / 10 for result in task.reported}
        return FinetunedTask(
            task=task.name,
            protocol=protocol,
            intermediate="" if start is None else start.task,
            chosen=Setting(1e-3, 8, None, 2),
            selection=0.5,
            metrics={},
            scores=scores,
            baseline=scores,
            trials=(),
            failed=0,
            diverged=0,
        )

    def probed(*args: Any) -> ProbeResult:
        scores = {result: len(result) / 10 for result in args[2].reported}
        layers = (LayerProbe(0, 0.1, 0.7, scores),)
        return ProbeResult(scores, 0.7, 0, 0.1, scores, scores, layers, 30, 0)

    monkeypatch.setattr(task_scores, "finetune", finetuned)
    monkeypatch.setattr(task_scores, "probe", probed)
    monkeypatch.setattr(
        task_scores, "tuned_start", lambda *args, **_: TunedEncoder(args[2].name, {})
    )


def suite(*names: str) -> tuple[Task, ...]:
    """Return GLUE's tasks without rows of any sense."""
    rows = handmade.ragged([np.array([1, 2])], np.array([0], np.int32))
    tasks = []
    for task in suite_tasks("glue", names):
        reported = {result: rows for result, _ in task.results}
        tasks.append(Task(task.name, task.classes, ("f1",), rows, rows, reported, {}, 0.0, {}))
    return tuple(tasks)


def test_each_protocol_measures_the_task_under_its_own_name() -> None:
    metrics, details = measure((handmade.task(),), protocols=("fixed", "probe"))
    assert list(metrics) == ["fixed.handmade", "probe.handmade"]
    assert list(details) == list(metrics)
    assert metrics["fixed.handmade"] == details["fixed.handmade"].scores["handmade"]
    layers = details["probe.handmade"].layers
    assert metrics["probe.handmade"] in [layer.test for layer in layers]


def test_model_that_is_not_fine_tuned_has_probes_alone() -> None:
    metrics, _ = measure((handmade.task(),), None, protocols=("fixed", "probe", "grid"))
    assert list(metrics) == ["probe.handmade"]


def test_study_without_tasks_measures_nothing() -> None:
    assert measure(()) == ({}, {})


@pytest.mark.usefixtures("score")
def test_mean_of_the_suite_stands_beside_the_scores_of_each_protocol() -> None:
    tasks = suite()
    metrics, details = measure(tasks, suite="glue", glue="glue", protocols=("probe", "few_shot"))
    scores = {name: len(name) / 10 for task in tasks for name in task.reported}
    assert metrics["probe.glue"] == suite_mean("glue", scores)
    assert metrics["few_shot.glue"] == suite_mean("glue", scores)
    assert metrics["few_shot.mnli-mm"] == 0.7
    assert "few_shot.glue" not in details


@pytest.mark.usefixtures("score")
def test_part_of_a_suite_has_no_mean() -> None:
    names = ("sst2", "mnli")
    metrics, _ = measure(
        suite(*names), suite="glue", glue="glue", suite_tasks=names, protocols=("grid",)
    )
    assert list(metrics) == ["grid.sst2", "grid.mnli", "grid.mnli-mm"]


@pytest.mark.usefixtures("score")
def test_chosen_tasks_start_from_the_intermediate_one() -> None:
    settings = dataclasses.replace(
        SETTINGS, intermediate="mnli", intermediate_tasks=("rte", "mrpc")
    )
    _, details = measure(suite(), settings, suite="glue", glue="glue", protocols=("fixed",))
    started = [name for name, detail in details.items() if detail.intermediate == "mnli"]
    assert started == ["fixed.mrpc", "fixed.rte"]


@pytest.mark.usefixtures("score")
def test_records_hear_of_each_task_before_and_after_it(tmp_path: Path) -> None:
    heard: list[str] = []
    records = FinetuningRecords(tmp_path, heard.append, lambda: heard.append("finished"))
    config = EvaluationConfig(suite="glue", glue="glue", protocols=("probe", "fixed"))
    scores = TaskScores(config, suite("sst2", "rte"))
    scores.measure(handmade.MODEL, MODEL.params, 0, SETTINGS, records)
    assert heard == [
        "linear probes on sst2",
        "linear probes on rte",
        "fine-tuning on sst2, fixed, 0 of 3 trials done",
        "finished",
        "fine-tuning on rte, fixed, 0 of 3 trials done",
        "finished",
    ]


@pytest.mark.usefixtures("score")
def test_every_task_of_the_suite_is_measured() -> None:
    _, details = measure(suite(), suite="glue", glue="glue", protocols=("grid",))
    assert list(details) == [f"grid.{task.name}" for task in SUITES["glue"]]
