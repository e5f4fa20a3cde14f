"""The primary endpoint: what is tested, what is said of it, and what is refused."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import pytest
from rich.console import Console

from kdjax.arms.check_primary import check_primary
from kdjax.arms.recipe_arms import arms_of
from kdjax.config import (
    ArmConfig,
    Config,
    EvaluationConfig,
    MlmProbeConfig,
    ModelSpec,
    TaskConfig,
    TeacherConfig,
)
from kdjax.errors import InputError
from kdjax.report import primary_endpoint
from kdjax.report import study_page as report
from kdjax.report import terminal as table
from kdjax.results.study import Results
from kdjax.results.verdicts import PairVerdict, PrimaryResult
from kdjax.study.judgement import primary
from tests.report import results as made_up

PROBE = MlmProbeConfig(tokens=1_000_000)


def study(endpoint: str) -> Results:
    """Return a made-up study that names a primary endpoint."""
    results = made_up.study()
    evaluation = EvaluationConfig(primary=endpoint)
    tests = primary.primary_endpoint(
        evaluation, results.endpoints, results.baseline_arm, results.runs
    )
    return replace(results, primary=tests)


def test_every_arm_is_tested_against_the_first_without_a_teacher() -> None:
    tests = study("probe.topic").primary
    assert tests is not None
    assert tests.baseline == "scratch"
    assert [row.arm for row in tests.comparisons] == ["logit", "tinybert", "minilm"]
    for row in tests.comparisons:
        assert row.p_value is not None
        assert row.p_adjusted is not None
        assert row.p_adjusted >= row.p_value


def test_arms_without_the_endpoint_are_left_out() -> None:
    tests = study("mlm_loss").primary
    assert tests is not None
    assert [row.arm for row in tests.comparisons] == ["logit"]


def test_study_without_a_primary_endpoint_has_no_sentence_on_it() -> None:
    assert study("").primary is None
    assert primary_endpoint.sentences(study("")) == []


def test_verdict_interval_and_adjusted_p_are_printed_and_on_the_page() -> None:
    results = study("probe.topic")
    heading, *sentences = primary_endpoint.sentences(results)
    assert "3 paired t-tests, adjusted by Holm's method" in heading
    assert sentences[1].startswith("tinybert BEATS scratch: +0.0")
    page = report.html(results)
    console = Console(file=io.StringIO(), width=200)
    console.print(table.summary(results))
    for sentence in sentences:
        assert sentence in page.replace("&lt;", "<")
        assert sentence in console.file.getvalue()


def test_endpoint_that_is_not_measured_is_refused_by_one_line() -> None:
    evaluation = EvaluationConfig(primary="probe.topik", tasks={"topic": TaskConfig("a.csv")})
    with pytest.raises(
        InputError, match=r"'probe.topik', expected one of mlm_loss, .*did you mean 'probe.topic'"
    ):
        check_primary(Config(evaluation=evaluation), {})
    without = replace(evaluation, primary="fixed.topic", protocols=("probe",))
    with pytest.raises(InputError, match=r"'fixed.topic', expected one of mlm_loss, probe.topic"):
        check_primary(Config(evaluation=without), {})


@pytest.mark.parametrize("primary", ["grid.glue", "grid.mnli-mm", "probe.topic", "mlm_loss"])
def test_primary_may_be_any_protocol_s_result_or_mean(primary: str) -> None:
    evaluation = EvaluationConfig(
        primary=primary,
        tasks={"topic": TaskConfig("a.csv")},
        suite="glue",
        glue="glue",
        protocols=("probe", "grid"),
    )
    check_primary(Config(evaluation=evaluation), {})


@pytest.mark.parametrize(
    ("primary", "tasks", "hint"),
    [
        ("fixed.glue", (), r"did you mean 'grid.glue'"),
        # A part of a suite has no mean.
        ("grid.glue", ("rte", "mrpc"), "expected one of mlm_loss, grid.mrpc, grid.rte"),
        ("grid.sst2", ("rte",), "expected one of mlm_loss, grid.rte"),
        ("finetune.rte", ("rte",), "expected one of mlm_loss, grid.rte"),
    ],
)
def test_primary_that_no_protocol_measures_is_refused(
    primary: str, tasks: tuple[str, ...], hint: str
) -> None:
    evaluation = EvaluationConfig(
        primary=primary, suite="glue", glue="glue", suite_tasks=tasks, protocols=("grid",)
    )
    with pytest.raises(InputError, match=hint):
        check_primary(Config(evaluation=evaluation), {})


def test_loss_that_only_one_arm_has_is_refused_as_primary() -> None:
    config = Config(
        evaluation=EvaluationConfig(primary="mlm_loss"),
        student=ModelSpec(size="1x64"),
        teacher=TeacherConfig(architecture=ModelSpec(size="2x64")),
        arms={"scratch": ArmConfig(), "minilm": ArmConfig()},
    )
    with pytest.raises(
        InputError,
        match=r"primary is 'mlm_loss', expected an endpoint that scratch and another arm",
    ):
        arms_of(config)
    assert arms_of(replace(config, arms={"scratch": ArmConfig(), "logit": ArmConfig()}))
    assert arms_of(replace(config, arms={"scratch": ArmConfig()}))
    assert arms_of(
        replace(config, evaluation=EvaluationConfig(primary="mlm_probe", mlm_probe=PROBE))
    )


def test_win_over_the_baseline_that_holm_does_not_leave_standing_is_taken_back() -> None:
    won = study("probe.topic").primary
    assert won is not None
    logit, minilm, _ = won.comparisons
    tests = PrimaryResult(
        "mlm_probe",
        "scratch",
        (
            replace(logit, arm="logit", verdict="INCONCLUSIVE"),
            replace(minilm, arm="minilm", verdict="BEATS"),
        ),
    )
    pairs = (("logit", "scratch"), ("minilm", "scratch"), ("minilm", "logit"))
    rows = tuple(
        PairVerdict(endpoint, a, b, 0.5, 0.1, 0.9, 3, "BEATS")
        for endpoint, (a, b) in itertools.product(("mlm_probe", "mlm_loss"), pairs)
    )
    adjusted = primary.after_holm(rows, tests)
    assert [row.verdict for row in adjusted] == ["INCONCLUSIVE", *["BEATS"] * 5]
    assert primary.after_holm(rows, None) == rows
