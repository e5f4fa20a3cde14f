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
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from kdjax.config import EvaluationConfig
from kdjax.config.suites import SUITE_TITLES, suite_tasks
from kdjax.data.tasks.load import load_tasks
from kdjax.data.tasks.predictions import check_empty, file_name, missing_files, write_predictions
from kdjax.data.tasks.task import Task
from kdjax.data.tasks.test_rows import check_test_rows
from kdjax.errors import InputError, counted, nearest
from kdjax.evaluation.finetuning import (
    EncoderSetup,
    FinetunedTask,
    FinetuningTrial,
    PredictedTask,
    TunedEncoder,
    predict_unlabelled,
    tuned_start,
)
from kdjax.evaluation.finetuning.trial import one_device
from kdjax.parallel.layout import Layout
from kdjax.progress import Reporter
from kdjax.storage import locks
from kdjax.study.runs.recorded_run import RecordedRun, recorded_run
from kdjax.study.runs.run_backup import FINETUNING

PREDICTIONS = "predictions"
"""Folder of a run's fine-tuning that holds what was predicted, a folder a protocol."""
PredictingProtocol = Literal["grid", "fixed"]
"""The protocols whose setting a model is tuned by again; the first that a run has is the default.
"""


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
        loaded = _load(run, evaluation, tuple(recorded))

        predicted = _Predictor(run, params, loaded, reporter).predict(recorded)
        predictions: dict[str, NDArray[Any]] = {}
        lines = []
        for name, of_task in predicted.items():
            predictions |= of_task.arrays()
            lines.append(_line(recorded[name], of_task.trial))
        archive = write_predictions(out, predictions)
    return ServerPredictions(archive, tuple(lines), tuple(missing_files(predictions)))


def _evaluation(run: RecordedRun, glue: str) -> EvaluationConfig:
    """Return how the run was measured, with the place of GLUE as it is now.

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
    return dataclasses.replace(evaluation, glue=glue) if glue else evaluation


def _recorded_tasks(
    run: RecordedRun, protocol: str, tasks: Sequence[str]
) -> dict[str, FinetunedTask]:
    """Return how the run was fine-tuned on each of the tasks to predict, in the suite's order.

    Raises:
        InputError: it was not, or a task is none of the run's.
    """
    evaluation = run.config.evaluation
    valid = get_args(PredictingProtocol)
    if protocol and protocol not in valid:
        raise InputError(f"--protocol is {protocol!r:.80}, expected {' or '.join(valid)}")
    measured_by = [name for name in valid if name in evaluation.protocols]
    if not measured_by or (protocol and protocol not in measured_by):
        raise InputError(
            f"{run.directory}: the run was measured by {', '.join(evaluation.protocols)}, expected "
            f"{protocol or ' or '.join(valid)} among evaluation.protocols"
        )
    protocol = protocol or measured_by[0]

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
        finetuned = run.result.details.get(f"{protocol}.{name}")
        if not isinstance(finetuned, FinetunedTask):
            raise InputError(
                f"{run.directory}: its result has no details of {protocol}.{name}, expected how "
                "the setting was chosen"
            )
        recorded[name] = finetuned
    return recorded


def _load(
    run: RecordedRun, evaluation: EvaluationConfig, names: tuple[str, ...]
) -> dict[str, Task]:
    """Read and tokenise the tasks to predict, and the one that some of them start from."""
    settings = run.finetuning
    needed = set(names)
    if settings.intermediate and needed.intersection(settings.intermediate_tasks):
        needed.add(settings.intermediate)
    own_tasks = {name: task for name, task in evaluation.tasks.items() if name in needed}
    chosen = [task.name for task in suite_tasks("glue") if task.name in needed]
    needed_only = dataclasses.replace(evaluation, tasks=own_tasks, suite_tasks=tuple(chosen))
    seq_len = evaluation.seq_len or run.config.data.seq_len
    loaded = load_tasks(needed_only, run.tokenizer(), seq_len, with_unlabelled=True)
    return {task.name: task for task in loaded}


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
        self._setup = EncoderSetup(run.arm.student, _layout(run), run.config.train.compute.dtype)

    def predict(self, recorded: Mapping[str, FinetunedTask]) -> dict[str, PredictedTask]:
        """Predict tasks, by the settings that are recorded of them."""
        run = self._run
        directory = run.directory / FINETUNING
        start: TunedEncoder | None = None
        predicted = {}
        for name, finetuned in recorded.items():
            # The encoder that some tasks start from lies where the run kept it.
            if finetuned.intermediate and start is None:
                start = self._start(finetuned.intermediate, directory)
            self._reporter.status(f"fine-tuning on {name}, {finetuned.protocol}")
            predicted[name] = predict_unlabelled(
                self._setup,
                self._params,
                self._tasks[name],
                run.finetuning,
                finetuned.chosen,
                seed=run.result.seed,
                directory=directory / PREDICTIONS / finetuned.protocol,
                start=start if finetuned.intermediate else None,
            )
        return predicted

    def _start(self, name: str, directory: Path) -> TunedEncoder:
        """Read the encoder that was tuned on a task first, or tune it again."""
        self._reporter.status(f"fine-tuning on {name}, for other tasks to start from")
        return tuned_start(
            self._setup,
            self._params,
            self._tasks[name],
            self._run.finetuning,
            seed=self._run.result.seed,
            directory=directory,
        )


def _layout(run: RecordedRun) -> Layout:
    """Return the run's layout of devices; one device where this machine has not the run's."""
    try:
        return Layout.of(run.config.train.mesh)
    except InputError:
        return one_device()


def _line(recorded: FinetunedTask, trial: FinetuningTrial) -> str:
    """Return what a task was predicted by, and whether its scores are those of the run."""
    setting = trial.setting
    length = counted(setting.steps, "step")
    if setting.epochs is not None:
        length = f"epochs {setting.epochs}, {length}"
    scores = ", ".join(f"{result} {trial.score(result):.4f}" for result in trial.metrics)
    line = (
        f"{', '.join(map(file_name, trial.metrics))}: {recorded.protocol}, learning rate "
        f"{setting.learning_rate:g}, batch {setting.batch_size}, {length}, seed {trial.seed}; dev "
        f"rows {scores}"
    )
    if trial.diverged:
        line += " (diverged: a constant is predicted)"
    return f"{line}; {_comparison(recorded, trial)}"


def _comparison(recorded: FinetunedTask, trial: FinetuningTrial) -> str:
    """Say whether a trial scores what the same trial scored in the run."""
    for before in recorded.chosen_trials:
        if before.seed == trial.seed:
            if (before.metrics, before.selection) == (trial.metrics, trial.selection):
                return "as the run recorded"
            scores = ", ".join(f"{before.score(result):.4f}" for result in before.metrics)
            return (
                f"not the same numbers as the run recorded, {scores}: another device, version or "
                "number of lanes, or other rows"
            )
    return "the run recorded no trial of this seed"
