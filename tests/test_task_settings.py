"""What a recipe says of tasks and suites is checked when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdjax import recipes
from kdjax.arms.recipe_arms import arms_of
from kdjax.config import (
    ArmConfig,
    BudgetConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    ModelSpec,
    TeacherConfig,
    TuneConfig,
)
from kdjax.config.suites import SUITES
from kdjax.config.tasks import TaskConfig
from kdjax.errors import InputError
from kdjax.tuning.trial import recipe_of

FILES = {"train": "a.csv", "dev": "b.csv", "test": "c.csv"}


def test_recipe_names_a_suite_and_files_of_splits(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "evaluation:\n"
        "  suite: glue\n"
        "  glue: tfds:glue\n"
        "  suite_tasks: [mnli, sst2]\n"
        "  tasks:\n"
        "    mine: {train: a.csv, dev: b.csv, test: c.csv, text_b: other}\n"
        "    yours: {file: a.csv, dev: 0.2}\n"
    )
    evaluation = recipes.load(path).evaluation
    assert evaluation.task_results == ("mine", "yours", "sst2", "mnli", "mnli-mm")
    assert evaluation.suite_place == "tfds:glue"
    assert evaluation.tasks["mine"].dev == "b.csv"
    assert evaluation.tasks["yours"].shares == (0.2, 0.1)


def test_all_results_of_glue_have_names() -> None:
    results = EvaluationConfig(suite="glue", glue="x").task_results
    names = [task.name for task in SUITES["glue"]]
    assert results == (*names[:6], "mnli-mm", *names[6:])
    assert EvaluationConfig().task_results == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"suite": "glue"},
            r"evaluation\.suite is glue and evaluation\.glue is empty, expected the",
        ),
        ({"suite": "babylm", "glue": "x"}, r"and evaluation\.babylm is empty"),
        ({"suite_tasks": ["rte"]}, r"evaluation\.suite_tasks is \['rte'\], expected none without"),
        (
            {"suite": "glue", "glue": "x", "suite_tasks": ["sst-2"]},
            r"suite_tasks has 'sst-2' \(did you mean 'sst2'\?\), expected tasks of glue",
        ),
        ({"suite": "glue", "glue": "x", "suite_tasks": ["rte", "rte"]}, "each name once"),
        (
            {"suite": "glue", "glue": "x", "tasks": {"rte": {"file": "a.csv"}}},
            r"evaluation\.tasks has 'rte', the name of a result of glue, expected another",
        ),
        ({"suite": "superglue"}, "superglue"),
        ({"report_on": "test"}, "report_on"),
        ({"selection": 0.0}, r"evaluation\.selection is 0\.0, expected more than 0"),
        ({"selection": 0.6}, r"evaluation\.selection is 0\.6, expected .* at most 0\.5"),
        ({"glue": "https://a/b"}, r"evaluation\.glue is 'https://a/b', expected a path"),
    ],
)
def test_suite_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    dotted = {f"evaluation.{name}": value for name, value in settings.items()}
    with pytest.raises(InputError, match=message) as e:
        recipes.changed(Config(), dotted)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"\.file and evaluation\.tasks\.t\.train are both empty, expected one"),
        ({"file": "a", **FILES}, r"\.file and evaluation\.tasks\.t\.train are both set"),
        ({"train": "a"}, r"\.dev is 0\.1, expected a file, as train is one"),
        ({"file": "a", "dev": "b"}, r"\.dev is 'b', expected a share of the rows of"),
        ({**FILES, "identity": "id"}, r"\.identity is 'id', expected nothing"),
        ({"file": "a", "metrics": ("acuracy",)}, r"has 'acuracy' \(did you mean 'accuracy'\?\)"),
        ({"file": "a", "metrics": ("pearson",)}, r"has 'pearson' \(valid: .*\), .* of classes"),
        ({"file": "a", "regression": True, "metrics": ("f1",)}, r"has 'f1'.* metrics of numbers"),
        (
            {"file": "a", "metrics": ("f1", "f1")},
            r"\.metrics is \['f1', 'f1'\], expected each name",
        ),
        ({"file": "a", "classes": ("x",)}, r"\.classes is \['x'\], expected two or more"),
        (
            {"file": "a", "regression": True, "classes": ("x", "y")},
            r"\.classes is .* expected none",
        ),
    ],
)
def test_task_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EvaluationConfig(tasks={"t": TaskConfig(**settings)})


def test_default_metric_follows_the_kind_of_label() -> None:
    assert TaskConfig("a").metric_names == ("accuracy",)
    assert TaskConfig("a", regression=True).metric_names == ("pearson",)
    assert TaskConfig("a", metrics=("f1", "accuracy")).metric_names == ("f1", "accuracy")


TEACHER_OF_32 = {
    "student": ModelSpec(size="1x64", max_positions=64),
    "teacher": TeacherConfig(architecture=ModelSpec(size="2x64", max_positions=32)),
    "data": DataConfig(seq_len=32),
    "arms": {"scratch": ArmConfig(), "logit": ArmConfig()},
}
"""A recipe whose teacher has read shorter sequences than its students can."""


def test_rows_may_be_longer_than_a_teacher_that_is_not_probed_can_read() -> None:
    evaluation = EvaluationConfig(seq_len=64, protocols=("fixed", "grid"))
    assert list(arms_of(Config(evaluation=evaluation, **TEACHER_OF_32))) == ["scratch", "logit"]


@pytest.mark.parametrize(
    ("seq_len", "protocols", "message"),
    [
        (65, ("fixed",), r"evaluation\.seq_len is 65, expected at most student\.max_positions, 64"),
        (64, ("probe",), r"evaluation\.seq_len is 64, expected at most teacher\.architecture\.max"),
    ],
)
def test_rows_longer_than_a_model_that_reads_them_are_refused(
    seq_len: int, protocols: tuple[Any, ...], message: str
) -> None:
    evaluation = EvaluationConfig(seq_len=seq_len, protocols=protocols)
    with pytest.raises(InputError, match=message):
        arms_of(Config(evaluation=evaluation, **TEACHER_OF_32))


@pytest.mark.parametrize(
    ("endpoint", "tasks", "results"),
    [
        ("probe.mrpc", ("mrpc",), ("mrpc",)),
        ("probe.mnli-mm", ("mnli",), ("mnli", "mnli-mm")),
        ("probe.mine", (), ("mine",)),
        ("mlm_loss", (), ()),
    ],
)
def test_trials_of_tuning_read_the_task_of_their_endpoint_alone(
    endpoint: str, tasks: tuple[str, ...], results: tuple[str, ...]
) -> None:
    evaluation = EvaluationConfig(
        suite="glue", glue="glue", tasks={"mine": TaskConfig("a.csv"), "other": TaskConfig("b.csv")}
    )
    budget = BudgetConfig(flops=1e12)
    tune = TuneConfig(endpoint=endpoint)
    config = Config(evaluation=evaluation, tune=tune, budget=budget, **TEACHER_OF_32)
    of_trials = recipe_of(config)
    assert of_trials.evaluation.suite_tasks == tasks
    assert of_trials.evaluation.task_results == results
    assert of_trials.evaluation.protocols == ("probe",)
