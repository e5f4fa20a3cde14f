"""The runs of a study: each is trained, with others of its arm or alone, measured and stored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.arms.recipe_arms import finetuning_of
from kdjax.budget.hardware import peak
from kdjax.config import plain, to_dict
from kdjax.data.mask_rate import MaskRate
from kdjax.errors import Diverged, counted
from kdjax.parallel import hosts
from kdjax.results.runs import RunResult
from kdjax.results.store import result_of
from kdjax.storage.files import read_json, write_json
from kdjax.storage.typed_json import to_plain
from kdjax.study.measures.task_scores import FinetuningRecords
from kdjax.study.runs.arm_run import arm_run
from kdjax.study.runs.compiled_arm import compile_arm
from kdjax.study.runs.groups import groups
from kdjax.study.runs.run_backup import FINETUNING, RESULT, RunBackup
from kdjax.study.runs.run_manifest import register_run
from kdjax.study.runs.run_row import RunMeasures, run_row
from kdjax.study.runs.snapshots import FACTS, FOLDER, passed_line, run_snapshots, unreached_line
from kdjax.study.runs.trunk import StudyTrunk, run_trunk
from kdjax.study.study import Study
from kdjax.study.writer import sole_writer
from kdjax.training.arm import Arm
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.outcome import Outcome
from kdjax.training.params_file import save_params
from kdjax.training.records.sinks import About
from kdjax.training.records.trackers import log_endpoints
from kdjax.training.run_spec import RunSpec
from kdjax.training.stopwatch import Stopwatch
from kdjax.training.train import train


@dataclass(frozen=True)
class StudyRun:
    """A run of a study, and where its files lie.

    Attributes:
        arm: the run's arm.
        seed: its seed.
        directory: its directory.
        backup: the place of its files besides the directory.
    """

    arm: Arm
    seed: int
    directory: Path
    backup: RunBackup

    def __str__(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"


class StudyRunner:
    """The maker of a study's runs, each to its end, however far it had come."""

    def __init__(self, study: Study, trunk: StudyTrunk | None = None):
        """Take the study; `run_all` trains.

        Args:
            study: the study, prepared.
            trunk: its place among studies of other budgets that share a trunk with it; None: it
                shares none.
        """
        self._trunk = trunk
        self._study = study
        self._plan = study.plan
        self._config = study.plan.config
        self._artifacts = study.artifacts
        self._reporter = study.reporter
        self._compiled_arms: set[str] = set()

    def run_all(self, runs: Sequence[tuple[str, int]]) -> list[RunResult]:
        """Take runs to their end, as many of an arm at once as the recipe says.

        Args:
            runs: arm and seed of each.

        Returns:
            Their rows of `results.json`, in the order of `runs`.

        Raises:
            InputError: a checkpoint is damaged, or the directory holds another run.
        """
        rows: dict[tuple[str, int], RunResult] = {}
        for arm, seeds in groups(runs, self._plan.vmapped_seeds, self._teacher_of_program):
            for seed, row in zip(seeds, self.run_group(arm, seeds), strict=True):
                rows[arm, seed] = row
        return [rows[run] for run in runs]

    def _teacher_of_program(self, arm: str, seed: int) -> int:
        """Return the number of the teacher that a run's program is given; 0 where it has none."""
        if not self._plan.arms[arm].uses_teacher:
            return 0
        return self._artifacts.teacher_number(seed)

    def run_group(self, arm: str, seeds: Sequence[int]) -> list[RunResult]:
        """Take runs of an arm to their end, unfinished ones together, however far each had come.

        Args:
            arm: the arm's name.
            seeds: seeds of the runs; students that learn from the same teacher.

        Returns:
            Their rows of `results.json`.

        Raises:
            InputError: a checkpoint is damaged, the directory holds another
                run, or there are several under a budget of hours.
        """
        runs = [self._run(arm, seed) for seed in seeds]
        # Two parts of a study, each in its turn right, may have a run in common.
        with ExitStack() as writers:
            for run in runs:
                writers.enter_context(sole_writer(run.directory, run.backup.directory))

            # What is finished, here or on another machine, is read; the rest is trained together.
            rows = {}
            unfinished = []
            for run in runs:
                row = self._finished_row(run)
                if row is None:
                    unfinished.append(run)
                else:
                    rows[run.seed] = row
            if unfinished:
                rows |= self._train_and_measure(unfinished)
        return [rows[seed] for seed in seeds]

    def _run(self, arm: str, seed: int) -> StudyRun:
        """Return a run by its arm's name and its seed."""
        directory = self._plan.run_dir(arm, seed)
        backup = RunBackup(self._config.train.checkpoint.directory, directory)
        return StudyRun(self._plan.arms[arm], seed, directory, backup)

    def _finished_row(self, run: StudyRun) -> RunResult | None:
        """Register a run and fetch what there is of it; return its row, None: unfinished.

        Raises:
            InputError: the directory holds another run.
        """
        arm = run.arm.name
        register_run(self._study, arm, run.seed, run.backup)
        run.backup.download()
        run.backup.download_folders(FOLDER, FACTS)
        if not hosts.broadcast_from_main(self._study.is_finished(arm, run.seed)):
            return None
        run.backup.upload_and_prune()
        # The main process alone is sure to have it on its disk.
        path = run.directory / RESULT
        content = read_json(path) if hosts.is_main_process() else None
        return result_of(hosts.broadcast_from_main(content), path, arm, run.seed)

    def _train_and_measure(self, runs: Sequence[StudyRun]) -> dict[int, RunResult]:
        """Train runs of an arm together, and measure each.

        Args:
            runs: unfinished runs, of one arm.

        Returns:
            Seed -> the row of its run.
        """
        # Later groups of the arm find its programs compiled.
        arm = runs[0].arm
        if arm.name not in self._compiled_arms:
            self._compiled_arms.add(arm.name)
            self._reporter.stage(f"{arm.name}: compiling")
        # All learn from the teacher of the first, unless the arm looks at none.
        seeds = [run.seed for run in runs]
        masking = self._study.mask_rate(arm)
        teacher = self._artifacts.teacher_for(seeds[0])
        compiled_phases = compile_arm(
            arm,
            self._study.costs[arm.name].prices,
            self._plan.batch_shape,
            seeds,
            config=self._config,
            corpus=self._artifacts.corpus,
            layout=self._plan.layout,
            teacher_params=teacher.params if teacher else None,
            cache=self._artifacts.teacher_cache,
            mask_rate=masking,
        )
        specs = []
        for run in runs:
            specs.append(self._run_spec(run, compiled_phases[run.seed], masking))

        # Each is written as soon as it is measured: a kill then costs only the others.
        rows = {}
        for run, outcome in zip(runs, train(*specs), strict=True):
            measures = self._measure(run, outcome)
            row = run_row(
                self._plan,
                self._artifacts.corpus,
                (arm.name, run.seed),
                compiled_phases[run.seed],
                outcome,
                measures,
            )
            self._store(run, row, outcome.params)
            self._log(run, row)
            run.backup.upload_and_prune()
            rows[run.seed] = row
        return rows

    def _run_spec(
        self, run: StudyRun, compiled_phases: Sequence[CompiledPhase], masking: MaskRate | None
    ) -> RunSpec:
        """Return a run, ready to be trained."""
        arm = run.arm
        manifest = self._artifacts.corpus.manifest
        trunk = None
        if self._trunk is not None:
            trunk = run_trunk(self._trunk, run.directory, run.backup, self._reporter.warn)
        return arm_run(
            arm,
            run.seed,
            compiled_phases,
            config=self._config,
            budget=self._plan.budget,
            evaluation=self._artifacts.evaluation_for(run.seed),
            start=self._artifacts.start_params(arm, run.seed),
            directory=run.directory,
            upfront=self._study.costs[arm.name].upfront,
            mask_rate=masking,
            snapshots=run_snapshots(self._config, manifest, run.directory, run.backup),
            trunk=trunk,
            cache_bytes=self._artifacts.cache_bytes(arm),
            watch=self._reporter.track(str(run)),
            checkpoints=run.backup.checkpoints,
            warn=self._reporter.warn,
            about=About(
                self._plan.out.resolve().name, arm.name, run.seed, plain(to_dict(self._config))
            ),
            peak=peak(self._plan.layout.mesh.local_devices[0]),
        )

    def _finetuning_records(self, run: StudyRun) -> FinetuningRecords:
        """Return the places of a run's fine-tuning: its directory, and its backup for finished
        trials."""
        run.backup.download_records(FINETUNING)
        return FinetuningRecords(
            directory=run.directory / FINETUNING,
            status=lambda task: self._reporter.status(f"{run}: {task}"),
            finished=lambda: run.backup.upload_records(FINETUNING),
        )

    def _measure(self, run: StudyRun, outcome: Outcome) -> RunMeasures:
        """Measure a run that was trained; one that diverged is measured no further."""
        # The time of evaluating counts as the run's.
        stopwatch = Stopwatch(outcome.ledger.seconds)
        if outcome.diverged is not None:
            return RunMeasures({}, {}, outcome.diverged, stopwatch.seconds)
        self._reporter.status(f"{run}: evaluating")
        try:
            with stopwatch.measure("evaluation"):
                metrics, details = self._artifacts.evaluation_for(run.seed).measure(
                    run.arm.student_config,
                    outcome.params,
                    run.seed,
                    mlm=run.arm.trains_mlm_head,
                    finetuning=finetuning_of(self._config, run.arm),
                    records=self._finetuning_records(run),
                )
        except Diverged as error:
            return RunMeasures({}, {}, str(error), stopwatch.seconds)
        return RunMeasures(metrics, details, None, stopwatch.seconds)

    def _store(self, run: StudyRun, row: RunResult, params: Any) -> None:
        """Write the files of a run that is measured.

        Args:
            run: the run.
            row: its row of `results.json`.
            params: the student's parameters; None where training diverged.
        """
        if params is not None:
            save_params(run.directory / "params.safetensors", params)
        if row.diverged is None:
            log = self._config.train.log
            log_endpoints(run.directory, log, row.steps, row.metrics, self._reporter.warn)
        # Last: a run that has it is finished.
        write_json(run.directory / RESULT, to_plain(row))

    def _log(self, run: StudyRun, row: RunResult) -> None:
        """Say in a line what a run came to."""
        figures = ", ".join(f"{name} {value:.3f}" for name, value in row.metrics.items())
        if row.diverged is not None:
            figures = f"diverged, {row.diverged.reason}"
        self._reporter.log(
            f"{run}: {counted(row.steps, 'step')}, {row.spent['charged']:.4g} FLOPs; {figures}"
        )
        words = self._config.train.checkpoint.words_of_snapshots
        unreached = unreached_line(words, row.words_seen)
        passed = passed_line(run.directory, words, row.words_seen)
        for line in filter(None, [unreached, passed]):
            self._reporter.log(f"{run}: {line}")
