"""The verdicts of a study: its two families, what is said of them, and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from kdjax.arms.check_verdicts import check_verdicts
from kdjax.arms.recipe_arms import arms_of
from kdjax.config import (
    ArmConfig,
    Config,
    ContrastConfig,
    EvaluationConfig,
    MarginsConfig,
    MlmProbeConfig,
    ModelSpec,
    TaskConfig,
    TeacherConfig,
    plain,
    to_dict,
)
from kdjax.errors import InputError
from kdjax.evaluation.statistics import holm
from kdjax.report import primary_endpoint, sentences
from kdjax.report import study_page as report
from kdjax.report import terminal as table
from kdjax.results.study import Results
from kdjax.results.verdicts import PairVerdict
from kdjax.study.judgement.verdicts import judge_study
from tests.report import results as made_up

PROBE = MlmProbeConfig(tokens=1_000_000)


def study(endpoint: str, **settings: Any) -> Results:
    """Return a made-up study that names a primary endpoint."""
    results = made_up.study()
    evaluation = EvaluationConfig(primary=endpoint, **settings)
    judged = judge_study(evaluation, results.endpoints, results.baseline_arm, results.runs)
    return replace(
        results,
        primary=endpoint or None,
        verdicts=judged.pairs,
        contrasts=judged.contrasts,
        config={**results.config, "evaluation": plain(to_dict(evaluation))},
    )


def confirmatory(results: Results) -> list[PairVerdict]:
    return [verdict for verdict in results.verdicts if verdict.family == "confirmatory"]


def test_every_arm_is_tested_against_the_baseline_and_all_else_is_secondary() -> None:
    results = study("probe.topic")
    tested = confirmatory(results)
    assert [{row.a, row.b} - {"scratch"} for row in tested] == [{"logit"}, {"tinybert"}, {"minilm"}]
    assert {row.endpoint for row in tested} == {"probe.topic"}
    others = [row for row in results.verdicts if row not in tested]
    assert {row.family for row in others} == {"secondary"}
    for row in results.verdicts:
        assert row.p_value is not None
        assert row.p_adjusted is not None
        assert row.p_adjusted >= row.p_value
        assert (row.verdict == "BEATS") <= (row.p_adjusted <= 0.05)


def test_baseline_arm_may_be_named() -> None:
    results = made_up.study()
    evaluation = EvaluationConfig(primary="probe.topic")
    judged = judge_study(evaluation, results.endpoints, "logit", results.runs)
    tested = [row for row in judged.pairs if row.family == "confirmatory"]
    assert all("logit" in (row.a, row.b) for row in tested)
    assert len(tested) == 3


def test_arms_without_the_endpoint_are_left_out() -> None:
    (tested,) = confirmatory(study("mlm_loss"))
    assert {tested.a, tested.b} == {"scratch", "logit"}


def test_study_without_a_primary_endpoint_has_one_family_and_no_sentence_on_it() -> None:
    results = study("")
    assert confirmatory(results) == []
    assert primary_endpoint.sentences(results) == []
    # Holm over all comparisons at all of alpha.
    expected = holm([row.p_value for row in results.verdicts])
    assert [row.p_adjusted for row in results.verdicts] == pytest.approx(list(expected))
    assert "They are one family" in report.html(results)


@pytest.mark.parametrize(
    ("settings", "primary"),
    [
        ({}, ""),
        ({"mlm_probe": PROBE}, "mlm_probe"),
        ({"mlm_probe": PROBE, "primary": "none"}, ""),
        ({"mlm_probe": PROBE, "primary": "mlm_loss"}, "mlm_loss"),
    ],
)
def test_mlm_probe_is_the_primary_endpoint_where_it_is_measured(
    settings: dict[str, Any], primary: str
) -> None:
    assert EvaluationConfig(**settings).primary_endpoint == primary


def test_hypothesis_on_a_pair_is_read_off_the_pair_s_test() -> None:
    pair = {"scratch": 1.0, "minilm": -1.0}
    claims = {
        "planned": ContrastConfig(pair, direction="worse"),
        "other": ContrastConfig({"minilm": 1.0, "logit": -1.0}, "fixed.topic"),
    }
    results = study("probe.topic", hypotheses=claims)
    # The pair of the second claim joins the family, and nothing is tested twice.
    assert len(confirmatory(results)) == 4
    planned, other = results.contrasts
    (tested,) = [row for row in confirmatory(results) if {row.a, row.b} == set(pair)]
    assert tested.a == "minilm"
    assert planned.verdict == "SUPPORTED"
    assert (planned.difference, planned.p_value) == (-(tested.difference or 0), tested.p_value)
    assert other.family == "confirmatory"
    first, _ = primary_endpoint.contrasts(results)
    assert first.startswith("Hypothesis planned (scratch − minilm is worse, topic, linear probe")
    assert "SUPPORTED" in first


def test_difference_of_differences_is_tested_in_its_family() -> None:
    weights = {"tinybert": 1.0, "minilm": -1.0, "logit": -1.0, "scratch": 1.0}
    claims = {"interaction": ContrastConfig(weights)}
    claimed = study("probe.topic", hypotheses=claims).contrasts[0]
    looked_at = study("probe.topic", contrasts=claims).contrasts[0]
    results = made_up.study()
    values: dict[str, dict[int, float]] = {run.arm: {} for run in results.runs}
    for run in results.runs:
        values[run.arm][run.seed] = run.metrics["probe.topic"]
    sums = [sum(weight * values[arm][seed] for arm, weight in weights.items()) for seed in range(3)]
    assert claimed.p_value == pytest.approx(stats.ttest_1samp(sums, 0.0).pvalue)
    assert (claimed.family, looked_at.family) == ("confirmatory", "secondary")
    assert claimed.p_value == looked_at.p_value


def test_margins_differ_by_kind_of_endpoint() -> None:
    def verdicts(**margins: float) -> list[str]:
        results = study("", margins=MarginsConfig(**margins))
        return [row.verdict for row in results.verdicts if row.endpoint == "mlm_loss"]

    assert verdicts(nats=9.0) == ["TIES"]
    assert verdicts(accuracy=9.0) != ["TIES"]
    page = report.html(study("", margins=MarginsConfig(nats=0.02)))
    assert "±0.02 (nats) and ±0.01 (accuracy)" in page


def test_inconclusive_arm_s_sentence_says_what_it_could_have_seen() -> None:
    results = study("probe.topic", confidence=0.9999)
    _, *sentences = primary_endpoint.sentences(results)
    assert any("INCONCLUSIVE" in sentence for sentence in sentences)
    for sentence in sentences:
        if "INCONCLUSIVE" in sentence:
            assert "with 80% power these seeds find" in sentence
            assert "takes" in sentence


def test_headline_of_a_study_that_is_not_whole_is_provisional() -> None:
    results = study("probe.topic", planned_seeds=5)
    assert sentences.headline(results).startswith("Provisional, 3 of 5 planned seeds. At ")
    assert not sentences.headline(study("probe.topic")).startswith("Provisional")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"baseline": "scrach"}, "evaluation.baseline is 'scrach'.*did you mean 'scratch'"),
        (
            {"hypotheses": {"x": ContrastConfig({"a": 1.0, "scratch": -1.0}, "mlm_loss")}},
            r"evaluation.hypotheses.x.weights names 'a', expected arms out of scratch, minilm",
        ),
        (
            {"contrasts": {"x": ContrastConfig({"minilm": 1.0, "scratch": -1.0})}},
            r"evaluation.contrasts.x.endpoint is '', expected one of mlm_loss",
        ),
        (
            {"contrasts": {"x": ContrastConfig({"minilm": 1.0, "scratch": -1.0}, "mlm_loss")}},
            "expected one that minilm has, which trains no MLM head",
        ),
    ],
)
def test_baseline_or_contrast_that_cannot_be_is_refused(
    settings: dict[str, Any], named: str
) -> None:
    config = Config(
        evaluation=EvaluationConfig(**settings),
        student=ModelSpec(size="1x64"),
        teacher=TeacherConfig(architecture=ModelSpec(size="2x64")),
        arms={"scratch": ArmConfig(), "minilm": ArmConfig()},
    )
    with pytest.raises(InputError, match=named):
        arms_of(config)


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({"a": 1.0}, "an arm above 0 and another below"),
        ({"a": 1.0, "b": 1.0}, r"weights that sum to 0 \(not 2\)"),
        ({"a": 0.0, "b": 0.0}, "a number other than 0"),
    ],
)
def test_weights_that_are_no_contrast_are_refused(weights: dict[str, float], named: str) -> None:
    with pytest.raises(InputError, match=named):
        EvaluationConfig(hypotheses={"x": ContrastConfig(weights)})


def test_settings_at_their_defaults_leave_a_recipe_as_it_was() -> None:
    written = to_dict(EvaluationConfig())
    later = {"baseline", "hypotheses", "contrasts", "planned_seeds", "margins"}
    assert not later & written.keys()
    assert "margins" in to_dict(EvaluationConfig(margins=MarginsConfig(nats=0.02)))


def test_verdict_interval_and_adjusted_p_are_printed_and_on_the_page() -> None:
    results = study("probe.topic")
    heading, *tested = primary_endpoint.sentences(results)
    assert "3 paired t-tests, adjusted by Holm's method" in heading
    assert tested[1].startswith("tinybert BEATS scratch: +0.0")
    page = report.html(results)
    console = Console(file=io.StringIO(), width=200)
    console.print(table.summary(results))
    for sentence in tested:
        assert sentence in page.replace("&lt;", "<")
        assert sentence in console.file.getvalue()


def test_endpoint_that_is_not_measured_is_refused_by_one_line() -> None:
    evaluation = EvaluationConfig(primary="probe.topik", tasks={"topic": TaskConfig("a.csv")})
    with pytest.raises(
        InputError, match=r"'probe.topik', expected one of mlm_loss, .*did you mean 'probe.topic'"
    ):
        check_verdicts(Config(evaluation=evaluation), {})
    without = replace(evaluation, primary="fixed.topic", protocols=("probe",))
    with pytest.raises(InputError, match=r"'fixed.topic', expected one of mlm_loss, probe.topic"):
        check_verdicts(Config(evaluation=without), {})


@pytest.mark.parametrize("primary", ["grid.glue", "grid.mnli-mm", "probe.topic", "mlm_loss"])
def test_primary_may_be_any_protocol_s_result_or_mean(primary: str) -> None:
    evaluation = EvaluationConfig(
        primary=primary,
        tasks={"topic": TaskConfig("a.csv")},
        suite="glue",
        glue="glue",
        protocols=("probe", "grid"),
    )
    check_verdicts(Config(evaluation=evaluation), {})


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
        check_verdicts(Config(evaluation=evaluation), {})


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
