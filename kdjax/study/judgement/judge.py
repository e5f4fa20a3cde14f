"""The judgement of a study: what its runs measured, joined, and a verdict on every pair of arms."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdjax.arms.baseline import baseline_arm
from kdjax.budget.accounting import Budget
from kdjax.config import Config, plain, to_dict
from kdjax.data.contamination.check import Contamination
from kdjax.data.prepare.ngram_losses import ngram_losses
from kdjax.errors import InputError
from kdjax.report import notes
from kdjax.report.contamination_table import notes as contamination_notes
from kdjax.report.phrases import say
from kdjax.results.arm_results import ArmResult
from kdjax.results.runs import ReferenceModel, RunResult
from kdjax.results.study import Results
from kdjax.results.teacher_facts import TeacherFacts
from kdjax.results.text import CorpusFacts
from kdjax.results.tuning import Tuning
from kdjax.results.verdicts import MeasuredEndpoint
from kdjax.storage.files import digest
from kdjax.study import tuned
from kdjax.study.judgement import differences
from kdjax.study.judgement.cases import cases
from kdjax.study.judgement.endpoints import endpoints_of
from kdjax.study.judgement.facts import (
    arm_result,
    corpus_facts,
    stored_outputs,
    student_facts,
    teacher_facts,
)
from kdjax.study.judgement.verdicts import judge_study
from kdjax.study.machine import versions
from kdjax.study.manifest import ArmCost
from kdjax.study.runs.run_backup import RESULT
from kdjax.study.study import Study
from kdjax.training.arm import Arm
from kdjax.training.teacher_cache.manifest import CacheManifest


@dataclass(frozen=True)
class Measured:
    """The measurements of a study whose runs are done, before any verdict.

    Attributes:
        runs: all runs.
        references: all models that were not trained here.
        corpus: facts of the text.
        endpoints: measures of the models.
        teacher: facts of the teacher, or of all together; None where no arm needs one.
        cache: manifest of stored teacher outputs; None where no arm reads them.
        contamination: evaluation rows that stand in training text; None where nobody looked.
        tuning: tuning of the arms; None where they were not tuned.
        wall_clock: seconds by kind, of the study's commands.
        looks: numbers of seeds with which results were made before these, rising.
    """

    runs: Sequence[RunResult]
    references: Sequence[ReferenceModel]
    corpus: CorpusFacts
    endpoints: Sequence[MeasuredEndpoint]
    teacher: TeacherFacts | None
    cache: CacheManifest | None
    contamination: Contamination | None
    tuning: Tuning | None
    wall_clock: Mapping[str, float]
    looks: Sequence[int] = ()


def collect(
    study: Study,
    runs: Sequence[RunResult],
    references: Sequence[ReferenceModel],
    wall_clock: Mapping[str, float],
    looks: Sequence[int] = (),
) -> Results:
    """Join what a study's runs measured, and judge every pair of arms on every endpoint.

    Args:
        study: the study.
        runs: all runs.
        references: all models that were not trained here.
        wall_clock: seconds by kind, of the study's commands.
        looks: numbers of seeds with which results were made before these, rising.

    Raises:
        InputError: a finished run lacks a value of an endpoint.
    """
    config = study.plan.config
    artifacts = study.artifacts
    losses = ngram_losses(artifacts.corpus)
    corpus = corpus_facts(config, artifacts.corpus, losses, artifacts.held_out_texts)
    arms = study.plan.arms
    endpoints = endpoints_of(config, corpus, artifacts.tasks, artifacts.minimal_pairs, arms)
    # A result that was read may lack a value, which every comparison below needs.
    for row, endpoint in itertools.product(runs, endpoints):
        if row.diverged is None and row.arm in endpoint.arms and endpoint.name not in row.metrics:
            raise InputError(
                f"{study.plan.run_dir(row.arm, row.seed) / RESULT}: metrics.{endpoint.name} is "
                "missing, expected a number"
            )
    measured = Measured(
        runs=runs,
        references=references,
        corpus=corpus,
        endpoints=endpoints,
        teacher=teacher_facts([teacher.facts for teacher in artifacts.teachers]),
        cache=artifacts.teacher_cache.manifest if artifacts.teacher_cache else None,
        contamination=artifacts.contamination,
        tuning=tuned.tuning_of(config),
        wall_clock=wall_clock,
        looks=looks,
    )
    return judge(config, arms, study.costs, measured)


def judge(
    config: Config, arms: Mapping[str, Arm], costs: Mapping[str, ArmCost], measured: Measured
) -> Results:
    """Join what was measured with its verdicts: the content of results.json.

    Apart from versions, all of it follows from the recipe and what was measured.

    Args:
        config: the recipe.
        arms: name -> arm of the recipe, made ready.
        costs: arm -> cost of its runs.
        measured: what its runs gave, and what is known of its text and teacher.
    """
    # What follows from the recipe
    runs = measured.runs
    endpoints = measured.endpoints
    teacher = measured.teacher
    values = plain(to_dict(config))
    budget = Budget.from_config(config.budget)
    arm_results = {name: arm_result(arm, costs[name], runs) for name, arm in arms.items()}
    needs_teacher = {name: arm.needs_teacher for name, arm in arms.items()}
    baseline = baseline_arm(config.evaluation.baseline, needs_teacher)

    # Every test of the study is judged with the others.
    verdicts = judge_study(config.evaluation, endpoints, baseline, runs)
    count = len(verdicts.pairs) + len(verdicts.contrasts)
    primary: str | None = config.evaluation.primary_endpoint
    if not any(endpoint.name == primary for endpoint in endpoints):
        primary = None

    # Costs under each way to pay for the teacher are in FLOPs.
    enforced = budget.teacher_case if budget.kind == "flops" else None

    return Results(
        **versions(),
        wall_clock=dict(measured.wall_clock),
        config=values,
        config_digest=digest(values),
        budget=budget,
        corpus=measured.corpus,
        teacher=teacher,
        cache=stored_outputs(measured.cache),
        student=student_facts(next(iter(arms.values())).student_config),
        arms=arm_results,
        baseline_arm=baseline,
        differences=differences.rows(arm_results),
        same=tuple(differences.shared(config, arms)),
        endpoints=tuple(endpoints),
        runs=tuple(runs),
        references=tuple(measured.references),
        verdicts=verdicts.pairs,
        primary=primary,
        tuning=measured.tuning,
        cases=cases(arm_results, runs, verdicts.pairs, teacher, enforced, config.budget.students),
        notes=tuple(_notes(config, measured, arm_results, count)),
        contamination=measured.contamination,
        contrasts=verdicts.contrasts,
        looks=tuple(measured.looks),
    )


def _notes(
    config: Config, measured: Measured, arm_results: Mapping[str, ArmResult], count: int
) -> list[str]:
    """Return the sentences of a study's notes.

    Args:
        config: the recipe.
        measured: what its runs gave, and what is known of its text and teacher.
        arm_results: name -> what is said of an arm.
        count: number of comparisons, contrasts included.
    """
    runs = measured.runs
    endpoints = measured.endpoints

    # What holds for every study comes first, then what this one's runs give rise to.
    sentences = notes.verdict_notes(config, count, measured.looks)
    sentences += notes.general(config, measured.teacher)
    if measured.tuning:
        sentences += tuned.notes(measured.tuning)
    sentences += [
        *(say("doubtful_text", warning=warning) for warning in measured.corpus.warnings or ()),
        *contamination_notes(measured.contamination, config.evaluation.contamination.share),
        *notes.arm_notes(arm_results, measured.cache),
        *notes.side_by_side_note(runs),
        *notes.divergences(runs),
        *notes.unlearnt_notes(endpoints, runs),
        *notes.unigram_notes(endpoints, runs, measured.corpus.ngram_losses),
        *notes.unconverged_note(runs, measured.references),
    ]
    return sentences
