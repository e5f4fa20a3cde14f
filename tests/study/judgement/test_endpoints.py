"""Which endpoints a recipe has, and what they are called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kdjax.config import Config, EvaluationConfig, FewShotConfig, FinetuneConfig
from kdjax.config.suites import suite_tasks
from kdjax.data.tasks.task import Task
from kdjax.results.verdicts import MeasuredEndpoint
from kdjax.study.judgement.endpoints import endpoints_of, protocol_label
from tests.evaluation.handmade import ragged
from tests.report import results as made_up
from tests.support import tiny

ARMS = {name: tiny.arm(name) for name in ("scratch", "minilm")}
LABELS = np.array([0, 1, 1, 1], np.int32)
"""Of any rows: the second class is the most frequent one, in three rows of four."""


def glue_task(name: str) -> Task:
    """Return a task of GLUE with four rows in each split."""
    (suite_task,) = suite_tasks("glue", (name,))
    labels = LABELS if suite_task.classes else LABELS.astype(np.float32)
    rows = ragged([np.array([2, 5, 3])] * len(LABELS), labels)
    reported = {result: rows for result, _ in suite_task.results}
    return Task(name, suite_task.classes, suite_task.metrics, rows, rows, reported, {}, 0.0, {})


def endpoints(*names: str, **settings: Any) -> dict[str, MeasuredEndpoint]:
    """Return the endpoints on tasks of GLUE by name."""
    evaluation = EvaluationConfig(suite="glue", glue="glue", suite_tasks=names, **settings)
    tasks = [glue_task(task.name) for task in suite_tasks("glue", names)]
    corpus = made_up.study().corpus
    found = endpoints_of(Config(evaluation=evaluation), corpus, tasks, (), ARMS)
    return {endpoint.name: endpoint for endpoint in found if endpoint.kind != "mlm"}


@pytest.mark.parametrize(
    ("protocol", "changes", "label"),
    [
        ("probe", {"seeds": 3}, "linear probe, best layer"),
        ("fixed", {}, "fine-tuned, one setting"),
        ("fixed", {"seeds": 3}, "fine-tuned, one setting, 3 seeds"),
        (
            "grid",
            {"learning_rates": (1e-4, 1e-3, 1e-2), "batch_sizes": (16, 32), "epoch_counts": (1, 2)},
            "fine-tuned, best of 12 settings",
        ),
        (
            "few_shot",
            {"few_shot": FewShotConfig(examples=8, draws=4), "seeds": 2},
            "fine-tuned on 8 rows, 4 draws, 2 seeds",
        ),
    ],
)
def test_label_of_a_protocol_counts_what_is_tried(
    protocol: Any, changes: dict[str, Any], label: str
) -> None:
    evaluation = EvaluationConfig(finetune=FinetuneConfig(**changes))
    assert protocol_label(evaluation, protocol) == label


def test_task_has_an_endpoint_for_each_protocol_and_result() -> None:
    found = endpoints("mnli", "rte", protocols=("probe", "grid"))
    results = ("mnli", "mnli-mm", "rte")
    assert list(found) == [f"{protocol}.{r}" for protocol in ("probe", "grid") for r in results]
    assert {endpoint.kind for endpoint in found.values()} == {"probe", "grid"}
    assert found["grid.rte"].arms == ("scratch", "minilm")
    assert found["grid.rte"].rows == len(LABELS)
    assert found["grid.rte"].label == "rte, fine-tuned, best of 8 settings"


def test_baseline_is_what_the_most_frequent_class_scores() -> None:
    found = endpoints("cola", "mrpc", "rte", protocols=("fixed",))
    # Always the second class: three rows of four, with precision 3/4 and recall 1.
    assert found["fixed.rte"].baseline == 0.75
    assert found["fixed.mrpc"].baseline == pytest.approx((0.75 + 6 / 7) / 2)
    assert found["fixed.mrpc"].unit == "mean of accuracy and F1"
    assert found["fixed.cola"].baseline == 0


def test_whole_suite_has_a_mean_that_counts_mnli_once_and_no_wnli() -> None:
    found = endpoints(protocols=("probe", "fixed"))
    mean = found["fixed.glue"]
    # CoLA and STS-B 0; SST-2, MNLI, QNLI and RTE 3/4; MRPC and QQP with F1.
    with_f1 = (0.75 + 6 / 7) / 2
    assert mean.baseline == pytest.approx((4 * 0.75 + 2 * with_f1) / 8)
    assert mean.label == "GLUE mean, fine-tuned, one setting"
    assert list(found)[-1] == "fixed.glue"


def test_part_of_a_suite_has_no_mean() -> None:
    assert "fixed.glue" not in endpoints("sst2", "mrpc", protocols=("fixed",))


def test_names_of_endpoints_are_those_that_the_recipe_may_name() -> None:
    evaluation = EvaluationConfig(suite="glue", glue="glue", protocols=("grid", "few_shot"))
    found = endpoints(protocols=evaluation.protocols)
    assert tuple(found) == evaluation.task_endpoints
    subset = replace(evaluation, suite_tasks=("mnli",))
    assert tuple(endpoints("mnli", protocols=subset.protocols)) == subset.task_endpoints
