"""Two arms that failed every fine-tuning on an endpoint are not told apart on it."""

from __future__ import annotations

import dataclasses

import pytest

from kdjax.config import EvaluationConfig
from kdjax.config.suites import suite_tasks
from kdjax.evaluation.finetuning.results import FinetunedTask, FinetuningTrial, Setting
from kdjax.report import notes, primary_endpoint
from kdjax.results.failed import after_failures, failed_arms
from kdjax.results.runs import Divergence, RunResult
from kdjax.results.verdicts import MeasuredEndpoint, PairVerdict
from kdjax.study.judgement import primary
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


@pytest.mark.parametrize("verdict", ["BEATS", "TIES"])
def test_verdict_on_two_failed_arms_alone_is_inconclusive(verdict: str) -> None:
    pairs = (("logit", "scratch"), ("minilm", "scratch"), ("minilm", "tinybert"))
    rows = [PairVerdict("fixed.rte", a, b, 0.2, 0.2, 0.2, 3, verdict) for a, b in pairs]
    decided = after_failures(rows, {"logit", "scratch", "tinybert"})
    assert [row.verdict for row in decided] == ["INCONCLUSIVE", verdict, verdict]
    assert decided[0] == dataclasses.replace(rows[0], verdict="INCONCLUSIVE")


def test_primary_endpoint_does_not_test_two_failed_arms() -> None:
    runs = runs_of({"scratch": 2, "logit": 2})
    tests = primary.primary_endpoint(
        EvaluationConfig(primary="fixed.rte"), [endpoint()], "scratch", runs
    )
    assert tests is not None
    logit, tinybert, minilm = tests.comparisons
    assert (logit.verdict, logit.p_value) == ("INCONCLUSIVE", None)
    # An arm that learnt the task is tested against one that did not.
    assert tinybert.verdict == "BEATS"
    assert minilm.verdict == "BEATS"
    results = dataclasses.replace(
        made_up.study(), endpoints=(endpoint(),), runs=tuple(runs), primary=tests
    )
    _, sentence, *_ = primary_endpoint.sentences(results)
    assert "every fine-tuning of both failed" in sentence


def test_note_names_endpoints_and_arms_that_failed_together() -> None:
    runs = runs_of({"scratch": 2, "logit": 2})
    (note,) = notes.all_failed([endpoint()], runs)
    assert note.startswith("rte: every fine-tuning of these arms failed: scratch and logit.")
    # One failed arm is told from the others.
    assert notes.all_failed([endpoint()], runs_of({"scratch": 2})) == []
