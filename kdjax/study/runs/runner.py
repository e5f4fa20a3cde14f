"""The runs of a study: each is trained, with others of its arm or alone, measured and stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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
from kdjax.training.run_spec import RunSpec
from kdjax.training.stopwatch import Stopwatch
from kdjax.training.train import train


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
        backups = {}
        for seed in seeds:
            run_dir = self._plan.run_dir(arm, seed)
            backups[seed] = RunBackup(self._config.train.checkpoint.directory, run_dir)
        # Two parts of a study, each in its turn right, may have a run in common.
        with ExitStack() as writers:
            for seed, backup in backups.items():
                run_dir = self._plan.run_dir(arm, seed)
                writers.enter_context(sole_writer(run_dir, backup.directory))
            return self._run_held(arm, backups)

    def _run_held(self, arm: str, backups: Mapping[int, RunBackup]) -> list[RunResult]:
        """Take runs of an arm to their end, which no other process writes to.

        Args:
            arm: the arm's name.
            backups: seed -> where the files of its run lie besides its directory.

        Returns:
            Their rows of `results.json`.
        """
        # Which runs are finished, here or on another machine; the others are trained together.
        rows = {}
        unfinished = {}
        for seed, backup in backups.items():
            run_dir = self._plan.run_dir(arm, seed)
            register_run(self._study, arm, seed, backup)
            backup.download()
            backup.download_folders(FOLDER, FACTS)
            if hosts.broadcast_from_main(self._study.is_finished(arm, seed)):
                backup.upload_and_prune()
                # The main process alone is sure to have it on its disk.
                content = read_json(run_dir / RESULT) if hosts.is_main_process() else None
                rows[seed] = result_of(
                    hosts.broadcast_from_main(content), run_dir / RESULT, arm, seed
                )
            else:
                unfinished[seed] = backup
        if unfinished:
            rows |= self._train(self._plan.arms[arm], unfinished)
        return [rows[seed] for seed in backups]

    def _train(self, arm: Arm, backups: Mapping[int, RunBackup]) -> dict[int, RunResult]:
        """Train runs of an arm together, and measure each.

        Args:
            arm: the arm.
            backups: seed -> where the files of its run lie besides its directory.

        Returns:
            Seed -> the row of its run.
        """
        # Later groups of the arm find its programs compiled.
        if arm.name not in self._compiled_arms:
            self._compiled_arms.add(arm.name)
            self._reporter.stage(f"{arm.name}: compiling")
        # All learn from the teacher of the first, unless the arm looks at none.
        seeds = list(backups)
        rate = self._study.mask_rate(arm)
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
            mask_rate=rate,
        )
        specs = []
        for seed, backup in backups.items():
            specs.append(self._run_spec(arm, seed, compiled_phases[seed], rate, backup))
        # Each is written as soon as it is measured: a kill then costs only the others.
        rows = {}
        for (seed, backup), outcome in zip(backups.items(), train(*specs), strict=True):
            rows[seed] = self._finish(arm, seed, compiled_phases[seed], outcome, backup)
            backup.upload_and_prune()
        return rows

    def _run_spec(
        self,
        arm: Arm,
        seed: int,
        compiled_phases: Sequence[CompiledPhase],
        mask_rate: MaskRate | None,
        backup: RunBackup,
    ) -> RunSpec:
        """Return a run, ready to be trained."""
        directory = self._plan.run_dir(arm.name, seed)
        manifest = self._artifacts.corpus.manifest
        trunk = None
        if self._trunk is not None:
            trunk = run_trunk(self._trunk, directory, backup, self._reporter.warn)
        return arm_run(
            arm,
            seed,
            compiled_phases,
            config=self._config,
            budget=self._plan.budget,
            evaluation=self._artifacts.evaluation_for(seed),
            start=self._artifacts.start_params(arm, seed),
            directory=directory,
            upfront=self._study.costs[arm.name].upfront,
            mask_rate=mask_rate,
            snapshots=run_snapshots(self._config, manifest, directory, backup),
            trunk=trunk,
            cache_bytes=self._artifacts.cache_bytes(arm),
            watch=self._reporter.track(f"{arm.name}, seed {seed}"),
            checkpoints=backup.checkpoints,
            warn=self._reporter.warn,
            about=About(
                self._plan.out.resolve().name, arm.name, seed, plain(to_dict(self._config))
            ),
            peak=peak(self._plan.layout.mesh.local_devices[0]),
        )

    def _finetuning_records(self, arm: str, seed: int, backup: RunBackup) -> FinetuningRecords:
        """Return where a run's fine-tuning is kept: in its directory, finished trials in its backup
        too."""
        backup.download_records(FINETUNING)
        return FinetuningRecords(
            directory=self._plan.run_dir(arm, seed) / FINETUNING,
            status=lambda task: self._reporter.status(f"{arm}, seed {seed}: {task}"),
            finished=lambda: backup.upload_records(FINETUNING),
        )

    def _finish(
        self,
        arm: Arm,
        seed: int,
        compiled_phases: Sequence[CompiledPhase],
        outcome: Outcome,
        backup: RunBackup,
    ) -> RunResult:
        """Measure a run that was trained, and store it; return its row."""
        measures = self._measure(arm, seed, outcome, backup)
        corpus = self._artifacts.corpus
        run = (arm.name, seed)
        row = run_row(self._plan, corpus, run, compiled_phases, outcome, measures)
        self._store(row, outcome.params)
        self._log(row)
        return row

    def _measure(self, arm: Arm, seed: int, outcome: Outcome, backup: RunBackup) -> RunMeasures:
        """Measure a run that was trained; one that diverged is measured no further."""
        # The time of evaluating counts as the run's.
        stopwatch = Stopwatch(outcome.ledger.seconds)
        if outcome.diverged is not None:
            return RunMeasures({}, {}, outcome.diverged, stopwatch.seconds)
        self._reporter.status(f"{arm.name}, seed {seed}: evaluating")
        try:
            with stopwatch("evaluation"):
                metrics, details = self._artifacts.evaluation_for(seed).measure(
                    arm.student,
                    outcome.params,
                    seed,
                    mlm=arm.trains_mlm_head,
                    finetuning=finetuning_of(self._config, arm),
                    records=self._finetuning_records(arm.name, seed, backup),
                )
        except Diverged as error:
            return RunMeasures({}, {}, str(error), stopwatch.seconds)
        return RunMeasures(metrics, details, None, stopwatch.seconds)

    def _store(self, row: RunResult, params: Any) -> None:
        """Write the files of a run that is measured.

        Args:
            row: its row of `results.json`.
            params: the student's parameters; None where training diverged.
        """
        run_dir = self._plan.run_dir(row.arm, row.seed)
        if params is not None:
            save_params(run_dir / "params.safetensors", params)
        # Last: a run that has it is finished.
        write_json(run_dir / RESULT, to_plain(row))

    def _log(self, row: RunResult) -> None:
        """Say in a line what a run came to."""
        figures = ", ".join(f"{name} {value:.3f}" for name, value in row.metrics.items())
        if row.diverged is not None:
            figures = f"diverged, {row.diverged.reason}"
        self._reporter.log(
            f"{row.arm}, seed {row.seed}: {counted(row.steps, 'step')}, "
            f"{row.spent['charged']:.4g} FLOPs; {figures}"
        )
        words = self._config.train.checkpoint.words_of_snapshots
        run_dir = self._plan.run_dir(row.arm, row.seed)
        unreached = unreached_line(words, row.words_seen)
        passed = passed_line(run_dir, words, row.words_seen)
        for line in filter(None, [unreached, passed]):
            self._reporter.log(f"{row.arm}, seed {row.seed}: {line}")
