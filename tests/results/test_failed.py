"""Two arms that have learnt nothing of an endpoint are not told apart on it."""

from __future__ import annotations

import dataclasses

import pytest

from kdjax.config import EvaluationConfig
from kdjax.config.suites import suite_tasks
from kdjax.evaluation.finetuning.results import FinetunedTask, FinetuningTrial, Setting
from kdjax.report import notes, primary_endpoint
from kdjax.results.failed import arms_at_baseline, failed_arms
from kdjax.results.runs import Divergence, RunResult
from kdjax.results.verdicts import MeasuredEndpoint, PairVerdict
from kdjax.study.judgement.verdicts import judge_study
from tests.report import results as made_up

ARMS = ("scratch", "logit", "tinybert", "minilm")
SEEDS = 3
SETTING = Setting(1e-4, 8, None, 3)
VALUES = {"scratch": 0.5, "logit": 0.7, "tinybert": 0.6, "minilm": 0.8}
"""What each arm scores under every seed: of a constant predictor it is the same in all."""


def finetuned(task: str, failed: int) -> FinetunedTask:
    """Return a task with two scored trials, of which some failed."""
    trials = [
        FinetuningTrial(SETTING, seed, None, 0.5, {}, seed < failed, None) for seed in range(2)
    ]
    # A trial that was not chosen counts for nothing.
    other = FinetuningTrial(dataclasses.replace(SETTING, steps=4), 0, None, 0.5, {}, False, None)
    return FinetunedTask(
        task, "fixed", "", SETTING, 0.5, {}, {task: 0.5}, {}, (*trials, other), failed, 0
    )


def runs_of(failed: dict[str, int], tasks: tuple[str, ...] = ("rte",)) -> list[RunResult]:
    """Return runs whose trials failed on every task, so many of two in each arm."""
    runs = []
    for run in made_up.study(seeds=SEEDS).runs:
        count = failed.get(run.arm, 0)
        details = {f"fixed.{task}": finetuned(task, count) for task in tasks}
        metrics = dict.fromkeys(("fixed.rte", "fixed.glue"), VALUES[run.arm])
        runs.append(dataclasses.replace(run, details=details, metrics=metrics))
    return runs


def endpoint(result: str = "rte") -> MeasuredEndpoint:
    name = f"fixed.{result}"
    return MeasuredEndpoint(name, result, "accuracy", "higher", "fixed", ARMS, 100, 0.5)


def test_arm_has_failed_where_every_scored_trial_of_every_seed_did() -> None:
    assert failed_arms(endpoint(), runs_of({"scratch": 2, "logit": 1, "minilm": 2})) == {
        "scratch",
        "minilm",
    }


def test_one_seed_that_learns_is_no_failed_arm() -> None:
    runs = runs_of({"scratch": 2})
    last = max(number for number, run in enumerate(runs) if run.arm == "scratch")
    details = {"fixed.rte": finetuned("rte", 1)}
    runs[last] = dataclasses.replace(runs[last], details=details)
    assert failed_arms(endpoint(), runs) == frozenset()


def test_arm_that_diverged_is_left_out() -> None:
    runs = runs_of({"scratch": 2, "logit": 2})
    number = next(n for n, run in enumerate(runs) if run.arm == "logit")
    runs[number] = dataclasses.replace(runs[number], diverged=Divergence(3, "a loss"))
    assert failed_arms(endpoint(), runs) == {"scratch"}


def test_endpoint_without_fine_tuning_has_no_failed_arm() -> None:
    probed = dataclasses.replace(endpoint(), name="probe.rte", kind="probe")
    assert failed_arms(probed, runs_of(dict.fromkeys(ARMS, 2))) == frozenset()


@pytest.mark.parametrize(("learnt", "failed"), [("mrpc", False), ("wnli", True)])
def test_suite_s_mean_has_failed_where_every_task_that_counts_did(
    learnt: str, failed: bool
) -> None:
    # WNLI is not in the mean.
    names = tuple(task.name for task in suite_tasks("glue"))
    runs = []
    for run in runs_of({"scratch": 2}, names):
        details = {**run.details, f"fixed.{learnt}": finetuned(learnt, 0)}
        runs.append(dataclasses.replace(run, details=details))
    assert ("scratch" in failed_arms(endpoint("glue"), runs)) is failed


def judged(failed: dict[str, int]) -> dict[frozenset[str], PairVerdict]:
    """Return the verdicts of a study whose trials failed, by their arms."""
    config = EvaluationConfig(primary="fixed.rte")
    verdicts = judge_study(config, [endpoint()], "scratch", runs_of(failed)).pairs
    return {frozenset((verdict.a, verdict.b)): verdict for verdict in verdicts}


def test_two_failed_arms_have_not_learnt_whatever_their_scores() -> None:
    verdicts = judged({"scratch": 2, "logit": 2})
    both = verdicts[frozenset(("scratch", "logit"))]
    assert (both.verdict, both.p_value) == ("NOT LEARNT", None)
    assert both.difference == pytest.approx(-0.2)
    # An arm that learnt the task is compared with one that did not: 0.8 on 100 rows against 0.5.
    learnt = verdicts[frozenset(("scratch", "minilm"))]
    assert (learnt.a, learnt.verdict) == ("minilm", "BEATS")


def test_arms_at_the_majority_class_have_not_learnt_and_do_not_tie() -> None:
    # Of 100 rows at 0.5 the error is 0.05: up to 0.582 is not above it.
    runs = []
    for run in runs_of({}):
        value = {"scratch": 0.5, "logit": 0.5, "tinybert": 0.58, "minilm": 0.59}[run.arm]
        runs.append(dataclasses.replace(run, metrics={"fixed.rte": value}))
    assert arms_at_baseline(endpoint(), runs) == {"scratch", "logit", "tinybert"}
    verdicts = judge_study(EvaluationConfig(), [endpoint()], "scratch", runs).pairs
    by_arms = {frozenset((verdict.a, verdict.b)): verdict.verdict for verdict in verdicts}
    assert by_arms[frozenset(("scratch", "logit"))] == "NOT LEARNT"
    assert by_arms[frozenset(("tinybert", "minilm"))] != "NOT LEARNT"


def test_loss_has_no_majority_class() -> None:
    loss = dataclasses.replace(endpoint(), baseline=None, unit="nats", scale="nats")
    assert arms_at_baseline(loss, runs_of({})) == frozenset()


def test_correlation_of_few_rows_is_told_from_0_by_their_error() -> None:
    # 1.645 / sqrt(100) = 0.1645.
    correlation = dataclasses.replace(endpoint(), baseline=0.0, scale="correlation")
    runs = []
    for run in runs_of({}):
        value = {"scratch": 0.16, "logit": 0.17}.get(run.arm, 0.5)
        runs.append(dataclasses.replace(run, metrics={"fixed.rte": value}))
    assert arms_at_baseline(correlation, runs) == {"scratch"}


def test_primary_endpoint_does_not_test_two_failed_arms() -> None:
    runs = runs_of({"scratch": 2, "logit": 2})
    judged_study = judge_study(EvaluationConfig(primary="fixed.rte"), [endpoint()], "scratch", runs)
    results = dataclasses.replace(
        made_up.study(),
        endpoints=(endpoint(),),
        runs=tuple(runs),
        primary="fixed.rte",
        verdicts=judged_study.pairs,
    )
    _, sentence, *_ = primary_endpoint.sentences(results)
    assert sentence.startswith("logit and scratch have NOT LEARNT it: +0.200 accuracy")


def test_note_names_endpoints_and_arms_that_failed_together() -> None:
    runs = runs_of({"scratch": 2, "logit": 2})
    (note,) = notes.unlearnt_notes([endpoint()], runs)
    assert note.startswith("rte: not shown to be better than the best constant answer")
    assert "every fine-tuning failed: scratch and logit." in note
