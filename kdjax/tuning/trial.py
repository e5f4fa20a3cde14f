"""A trial of an arm: its runs with the settings tried, measured on text no evaluation uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from typing_extensions import override

from kdjax.arms.charges import runs_sharing_cache, stored_features
from kdjax.arms.recipe_arms import arms_of
from kdjax.budget.accounting import Budget
from kdjax.config import Config, FinetuneConfig, MinimalPairsConfig, ModelConfig
from kdjax.config.suites import SUITES
from kdjax.data.prepare.ngram_losses import ngram_losses
from kdjax.errors import InputError
from kdjax.evaluation.mlm import HeldOut
from kdjax.progress import Progress, Reporter
from kdjax.results.runs import Details, RunResult, probed_layers
from kdjax.results.text import CountedLosses
from kdjax.storage.files import read_json, remove_on_input_error, write_json
from kdjax.storage.typed_json import check_fields
from kdjax.study.batches import tuning_batches
from kdjax.study.measures.evaluation import Evaluation, Metrics
from kdjax.study.measures.task_scores import FinetuningRecords
from kdjax.study.runs.run_backup import run_name, subdirectory
from kdjax.study.runs.runner import StudyRunner
from kdjax.study.study import Study
from kdjax.study.tuned import format_settings
from kdjax.study.writer import sole_writer
from kdjax.tuning.search import TrialOutcome
from kdjax.tuning.space import with_settings

NAME = "trial.json"
"""In a trial's directory: the settings tried and, where training diverged, what it came to."""


def recipe_of(config: Config) -> Config:
    """Build the recipe of trials: tuning's seeds and share of the budget, one endpoint."""
    tune = config.tune
    budget = config.budget
    evaluation = config.evaluation
    probe = evaluation.mlm_probe
    # A charged probe stays whatever the endpoint is: the runs of a trial pay what the recipe's do.
    if tune.endpoint != "mlm_probe" and not probe.charged:
        probe = replace(probe, tokens=0.0)
    # Only the endpoint's task is read, be it the user's own or a suite's.
    measured = tune.endpoint.removeprefix("probe.")
    tasks = {name: task for name, task in evaluation.tasks.items() if name == measured}
    suite = evaluation.suite
    suite_tasks = []
    for task in SUITES.get(suite, ()):
        if measured in [result for result, _ in task.results]:
            suite_tasks.append(task.name)
    amount: dict[str, Any] = {budget.kind: tune.share * Budget.from_config(budget).amount}
    return replace(
        config,
        budget=replace(budget, **amount),
        seeds=tune.seeds,
        # A run of a trial is charged what a run of the recipe is for stored teacher outputs.
        cache=replace(config.cache, shared_by=runs_sharing_cache(config, arms_of(config))),
        evaluation=replace(
            evaluation,
            tasks=tasks,
            suite=suite if suite_tasks else "",
            suite_tasks=tuple(suite_tasks),
            protocols=("probe",),
            texts={},
            mlm_probe=probe,
            minimal_pairs=MinimalPairsConfig(),
            primary="",
        ),
        sweep={},
        tuning="",
    )


class Trials:
    """The trials of a tuning, made or read from before.

    Each lies in `trials/ARM/NNN/` of the tuning's directory as a study of the whole recipe, of
    which one arm is run: so what arms share, such as stored teacher outputs, is what it is in the
    recipe. Text, teacher and held-out sequences are the same objects for all trials of a process.
    """

    def __init__(self, config: Config, out: Path, reporter: TrialReporter):
        """Take the tuning's directory; nothing is made yet.

        Args:
            config: resolved recipe, with arms and `tune` settings.
            out: directory that the tuning writes to.
            reporter: reporter that shows which trial goes on.
        """
        self._config = config
        self._out = out
        self._reporter = reporter
        self._recipe = recipe_of(config)
        self._first: Study | None = None

    @property
    def unspent(self) -> float:
        """Return the amount that unfinished trials may still spend, in the budget's unit."""
        runs = 0
        for arm in self._config.arms:
            for number in range(self._config.tune.trials):
                runs += len(self._recipe.seeds) - self._ended(self._directory(arm, number), arm)
        return Budget.from_config(self._recipe.budget).amount * runs

    @property
    def ngram_losses(self) -> CountedLosses | None:
        """Return the cross-entropies of the trials' text; None before the first trial."""
        if self._first is None:
            return None
        return CountedLosses(**ngram_losses(self._first.artifacts.corpus).figures())

    def run(self, arm: str, number: int, settings: dict[str, Any]) -> TrialOutcome:
        """Run a trial, or the rest of one that was interrupted; return its outcome.

        Raises:
            InputError: anything but divergence: the recipe, the text, the teacher, or a directory
                of another trial.
        """
        directory = self._directory(arm, number)
        self._reporter.trial = f"trial {number + 1} of {self._config.tune.trials}"
        with sole_writer(directory):
            return self._trial(arm, directory, settings)

    def _trial(self, arm: str, directory: Path, settings: dict[str, Any]) -> TrialOutcome:
        """Run a trial in a directory that no other process writes to."""
        study = self._prepared_study(arm, directory, settings)

        # Settings follow from the sampler; where they differ, it is a trial of another tuning.
        record = read_record(directory / NAME)
        if record["settings"] != settings:
            raise InputError(
                f"{directory / NAME}: this trial's settings are {record['settings']}, expected "
                f"{settings}; use another --out"
            )
        outcome = self._run(study, arm, directory / NAME, record)
        result = "diverged"
        if outcome.value is not None:
            result = f"{self._config.tune.endpoint} {outcome.value:.4f}"
        self._reporter.log(f"{arm}, {self._reporter.trial}: {format_settings(settings)}: {result}")
        return outcome

    def _run(self, study: Study, arm: str, path: Path, record: dict[str, Any]) -> TrialOutcome:
        """Make the runs that are still to be made, and return what the trial came to."""
        rows: list[RunResult] = []
        runner = StudyRunner(study)
        for seed in self._recipe.seeds:
            # One run that diverged decides the trial, now or in an earlier process.
            if record["diverged"] is not None:
                break
            (row,) = runner.run_group(arm, (seed,))
            rows.append(row)
            if row.diverged is not None:
                cost = _sum([*map(_cost, rows)])
                record["diverged"] = {"seed": seed, "found": row.diverged.reason, **cost}
                write_json(path, record)
        if record["diverged"] is not None:
            return TrialOutcome(None, **{name: record["diverged"][name] for name in _COSTS})
        value = fmean(_value(self._config.tune.endpoint, row) for row in rows)
        return TrialOutcome(value, **_sum([*map(_cost, rows)]))

    def _prepared_study(self, arm: str, directory: Path, settings: dict[str, Any]) -> Study:
        """Prepare a trial's study, with the artifacts of the first trial."""
        tried = with_settings(self._config.arms[arm], settings)
        config = replace(self._recipe, arms={**self._config.arms, arm: tried})
        with remove_on_input_error(directory):
            recipe = subdirectory(config, str(directory.relative_to(self._out)))
            study = Study(recipe, directory, self._reporter, self._out / "shared")
            # Loaded once for all trials of this process.
            if self._first is not None:
                artifacts = self._first.artifacts
                study.artifacts.corpus = artifacts.corpus
                study.artifacts.tasks = artifacts.tasks
                study.artifacts.teachers = artifacts.teachers
                study.artifacts.evaluations = artifacts.evaluations
                # The settings tried may change what an arm reads of stored outputs.
                if stored_features(study.plan.arms) == stored_features(self._first.plan.arms):
                    study.artifacts.teacher_cache = artifacts.teacher_cache
            study.prepare()
            if self._first is None:
                count = max(1, len(study.artifacts.teachers))
                study.artifacts.evaluations = (self._evaluation(study),) * count
                self._first = study
            if not (directory / NAME).exists():
                write_json(directory / NAME, {"settings": settings, "diverged": None})
        return study

    def _evaluation(self, study: Study) -> Evaluation:
        """Return the evaluation of trials: of the endpoint alone, on text of their own."""
        endpoint = self._config.tune.endpoint
        probe = study.artifacts.mlm_probe
        # A linear probe needs no held-out text, and there may be none left.
        held_out = HeldOut([])
        if endpoint == "mlm_loss" or probe is not None:
            held_out = HeldOut(tuning_batches(self._config, study.artifacts.corpus))
        return _AtTheEnd(
            study.plan.config.evaluation,
            held_out,
            study.artifacts.task_scores,
            mlm_probe=probe,
            own_head=endpoint == "mlm_loss",
        )

    def _directory(self, arm: str, number: int) -> Path:
        """Return the directory of a trial."""
        return self._out / "trials" / arm / f"{number:03}"

    def _ended(self, directory: Path, arm: str) -> int:
        """Count a trial's runs that will not go on."""
        seeds = self._recipe.seeds
        if (directory / NAME).exists() and read_record(directory / NAME)["diverged"]:
            return len(seeds)
        return sum(
            (directory / "runs" / run_name(arm, seed) / "result.json").exists() for seed in seeds
        )


class TrialReporter(Reporter):
    """A reporter that says which trial goes on.

    Attributes:
        trial: name of the trial under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trial = ""

    @override
    def track(self, name: str) -> Callable[[Progress], None]:
        return super().track(f"{self.trial}: {name}")


@dataclass(frozen=True)
class _AtTheEnd(Evaluation):
    """An evaluation of the endpoint at a run's end, with an MLM probe that the run is charged for.

    Attributes:
        own_head: whether the loss of the model's own head is the endpoint.
    """

    own_head: bool = False

    @override
    def evaluate_during_training(
        self, model: ModelConfig, params: Any, *, mlm: bool
    ) -> dict[str, float]:
        return {}

    @override
    def measure(
        self,
        model: ModelConfig,
        params: Any,
        seed: int,
        *,
        mlm: bool,
        finetuning: FinetuneConfig | None,
        records: FinetuningRecords = FinetuningRecords(),
    ) -> tuple[Metrics, Details]:
        return super().measure(model, params, seed, mlm=self.own_head, finetuning=None)


def _value(endpoint: str, row: RunResult) -> float:
    """Read a run's value: its held-out loss, or its best linear probe on the dev rows."""
    # Dev, not test: settings chosen on test rows would make the study's scores too good.
    if endpoint in ("mlm_loss", "mlm_probe"):
        return row.metrics[endpoint]
    probed = probed_layers(row, endpoint)
    assert probed is not None  # it is the one endpoint that a trial's runs are measured on
    return max(layer.dev for layer in probed.layers)


_COSTS = ("charged", "total", "steps", "seconds")


def read_record(path: Path) -> dict[str, Any]:
    """Read a trial's record: its settings, and where a run of it diverged what that cost.

    Raises:
        InputError: the record is no such file.
    """
    kinds: dict[str, Any] = {"settings": dict[str, Any], "diverged": dict[str, Any] | None}
    record = check_fields(read_json(path), kinds, f"{path}:")
    if record["diverged"] is not None:
        check_fields(record["diverged"], dict.fromkeys(_COSTS, float), f"{path}: diverged")
    return record


def _cost(row: RunResult) -> dict[str, Any]:
    """Return the cost of a run."""
    seconds = sum(row.wall_clock.values())
    figures = (row.spent["charged"], row.spent["total"], row.steps, seconds)
    return dict(zip(_COSTS, figures, strict=True))


def _sum(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum several costs."""
    total: dict[str, Any] = dict.fromkeys(_COSTS, 0)
    for part in parts:
        for name in _COSTS:
            total[name] += part[name]
    return total
