"""The predictions of a finished run for GLUE's server.

For each task the run's student is fine-tuned once more, with the setting that the run's protocol
chose and the run's seed, and predicts the task's test rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kdjax.config import EvaluationConfig
from kdjax.config.suites import SUITE_TITLES, suite_tasks
from kdjax.data.tasks.predictions import check_empty, file_name, missing_files, write_predictions
from kdjax.data.tasks.task import Task
from kdjax.data.tasks.test_rows import check_test_rows
from kdjax.errors import InputError, nearest
from kdjax.evaluation.finetuning import (
    FinetunedTask,
    FinetuningTrial,
    PredictedTask,
    TunedEncoder,
    predict_unlabelled,
)
from kdjax.progress import Reporter
from kdjax.storage import locks
from kdjax.study.runs.recorded_run import RecordedRun, recorded_run
from kdjax.study.runs.retuning import (
    compare_trial,
    intermediate_encoder,
    load_run_tasks,
    recorded_tuning,
    retuned_protocol,
    scores_in_words,
    setting_in_words,
    setup_of,
    trial_directory,
)

PREDICTIONS = "predictions"
"""Folder of a run's fine-tuning that holds what was predicted, a folder a protocol."""


@dataclass(frozen=True)
class ServerPredictions:
    """What was written for GLUE's server.

    Attributes:
        archive: the zip.
        lines: a line for each task, for people.
        missing: files that the server asks for besides.
    """

    archive: Path
    lines: tuple[str, ...]
    missing: tuple[str, ...]


def glue_predictions(
    run_dir: Path, out: Path, *, protocol: str = "", tasks: Sequence[str] = (), glue: str = ""
) -> ServerPredictions:
    """Predict the test rows of GLUE by a finished run, and write the server's files.

    What takes long is kept in the run's `finetuning/predictions`: the same command goes on after a
    kill. Two calls write the same bytes.

    Args:
        run_dir: the run's directory, `runs/ARM-seedN` of a study.
        out: directory to make; where it is there, it is empty.
        protocol: `grid` or `fixed`, whose setting is taken; empty: `grid` where the run has it.
        tasks: tasks to predict; empty: all that the run was measured on.
        glue: where GLUE lies now; empty: where the recipe says.

    Raises:
        InputError: no finished run, or one without GLUE or the protocol; test rows are missing or
            not in the server's order; or a file cannot be read or written.
    """
    run = recorded_run(run_dir)
    evaluation = _evaluation(run, glue)
    recorded = _recorded_tasks(run, protocol, tasks)
    check_empty(out)
    with ExitStack() as writers:
        writers.enter_context(locks.hold(run_dir))
        writers.enter_context(locks.hold(out))
        reporter = writers.enter_context(Reporter())
        # All that can be wrong is found before anything is trained.
        params = run.params()
        reporter.status("reading GLUE")
        check_test_rows(evaluation, tuple(recorded))
        loaded = load_run_tasks(run, evaluation, recorded, with_unlabelled=True)

        predicted = _Predictor(run, params, loaded, reporter).predict(recorded)
        predictions: dict[str, NDArray[Any]] = {}
        lines = []
        for name, of_task in predicted.items():
            predictions |= of_task.arrays()
            lines.append(_line(recorded[name], of_task.trial))
        archive = write_predictions(out, predictions)
    return ServerPredictions(archive, tuple(lines), tuple(missing_files(predictions)))


def _evaluation(run: RecordedRun, glue: str) -> EvaluationConfig:
    """Return the run's evaluation settings, with the place of GLUE as it is now.

    Raises:
        InputError: it was not measured on GLUE.
    """
    evaluation = run.config.evaluation
    if evaluation.suite != "glue":
        suite = SUITE_TITLES.get(evaluation.suite, "no suite")
        raise InputError(
            f"{run.directory}: the run was measured on {suite}, expected evaluation.suite glue, "
            "which GLUE's server is for"
        )
    if glue:
        return dataclasses.replace(evaluation, glue=glue)
    return evaluation


def _recorded_tasks(
    run: RecordedRun, protocol: str, tasks: Sequence[str]
) -> dict[str, FinetunedTask]:
    """Return the run's fine-tuning records of the tasks to predict, in the suite's order.

    Raises:
        InputError: it was not, or a task is none of the run's.
    """
    evaluation = run.config.evaluation
    protocol = retuned_protocol(run, protocol)
    names = [task.name for task in suite_tasks("glue", evaluation.suite_tasks)]
    for name in tasks:
        if name not in names:
            raise InputError(
                f"--tasks has {name!r:.80}{nearest(name, names)}, expected tasks that the run was "
                "measured on"
            )
    recorded = {}
    for name in names:
        if tasks and name not in tasks:
            continue
        recorded[name] = recorded_tuning(run, protocol, name)
    return recorded


class _Predictor:
    """Fine-tunes a run's student on tasks, and predicts their test rows."""

    def __init__(
        self,
        run: RecordedRun,
        params: Mapping[str, Any],
        tasks: Mapping[str, Task],
        reporter: Reporter,
    ):
        self._run = run
        self._params = params
        self._tasks = tasks
        self._reporter = reporter
        self._setup = setup_of(run)

    def predict(self, recorded: Mapping[str, FinetunedTask]) -> dict[str, PredictedTask]:
        """Predict tasks, by the settings that are recorded of them."""
        run = self._run
        start: TunedEncoder | None = None
        predicted = {}
        for name, finetuned in recorded.items():
            # The encoder that some tasks start from lies where the run kept it.
            if finetuned.intermediate and start is None:
                start = self._start(finetuned.intermediate)
            self._reporter.status(f"fine-tuning on {name}, {finetuned.protocol}")
            predicted[name] = predict_unlabelled(
                self._setup,
                self._params,
                self._tasks[name],
                run.finetuning,
                finetuned.chosen,
                seed=run.result.seed,
                directory=trial_directory(run, PREDICTIONS, finetuned.protocol),
                start=start if finetuned.intermediate else None,
            )
        return predicted

    def _start(self, name: str) -> TunedEncoder:
        """Read the encoder that was tuned on a task first, or tune it again."""
        self._reporter.status(f"fine-tuning on {name}, for other tasks to start from")
        return intermediate_encoder(self._run, self._setup, self._params, self._tasks[name])


def _line(recorded: FinetunedTask, trial: FinetuningTrial) -> str:
    """Return the line on the model that predicted a task, and whether its scores are the run's."""
    line = (
        f"{', '.join(map(file_name, trial.metrics))}: {recorded.protocol}, "
        f"{setting_in_words(trial.setting, trial.seed)}; dev rows {scores_in_words(trial)}"
    )
    if trial.diverged:
        line += " (diverged: a constant is predicted)"
    return f"{line}; {compare_trial(recorded, trial)}"
