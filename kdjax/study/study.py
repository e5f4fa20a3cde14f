"""A study in its directory: its plan, what its runs share, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from kdjax.budget.ledger import PhaseSpan
from kdjax.budget.price import Price
from kdjax.config import Config, plain, to_dict
from kdjax.data.mask_rate import MaskRate
from kdjax.errors import InputError, counted
from kdjax.parallel import hosts
from kdjax.progress import Reporter
from kdjax.runtime.clock import CLOCK
from kdjax.storage.typed_json import to_plain
from kdjax.study.artifacts.commits import pin_commits, stored_commits
from kdjax.study.artifacts.corpus import refuse_repeated_text
from kdjax.study.artifacts.input_checks import check_inputs
from kdjax.study.artifacts.study_artifacts import Artifacts
from kdjax.study.batches import check_calibration, check_train_batches
from kdjax.study.machine import versions
from kdjax.study.manifest import ArmCost, StudyManifest
from kdjax.study.runs.run_backup import RESULT
from kdjax.study.runs.snapshots import check_snapshots, unreached_line
from kdjax.study.study_plan import StudyPlan
from kdjax.study.teachers.study_teachers import check_teacher, check_teacher_shape
from kdjax.study.tuned import check_tuning
from kdjax.training.arm import Arm
from kdjax.training.records.trackers import check_trackers
from kdjax.training.run_mask_rate import run_mask_rate


class Study:
    """A study in its directory, which `prepare` makes ready for runs.

    Attributes:
        plan: what the study does, by its recipe.
        artifacts: text, teachers and outputs that the runs share.
        reporter: receiver of reports on progress.
    """

    def __init__(self, config: Config, out: Path, reporter: Reporter, shared: Path | None = None):
        """Open the directory, or find it free; nothing is made yet.

        Args:
            config: resolved recipe of the study.
            out: directory that the study writes to.
            reporter: receiver of reports on progress.
            shared: a directory for what other studies use too; None: all lies in `out`.

        Raises:
            InputError: the recipe's settings contradict one another, an input that it names is not
                as it must be, or the directory holds another study.
        """
        CLOCK.listen()
        # A branch of a repository may move: the study is of the commit that it was at first.
        config, commits = pin_commits(config, stored_commits(out))
        hosts.check_same({**versions(), "recipe": plain(to_dict(config))})
        # Nothing is written before all that follows from the recipe has been checked.
        self.plan = StudyPlan(config, out, shared)
        check_trackers(config.train.log)
        self.artifacts = Artifacts(self.plan, reporter)
        self.reporter = reporter
        self._manifest = StudyManifest(config, out, commits)
        # What is wrong with any input is found before anything takes long: counting prices may.
        check_inputs(config, self.plan.artifact_dirs)
        if self.plan.needs_teacher and self._manifest.is_new:
            check_teacher_shape(config)
        # A budget that is too small is found before anything is made, and before the next arm's
        # price is counted.
        self._prices: dict[str, tuple[Price, ...]] = {}
        for name, arm in self.plan.arms.items():
            self._prices[name] = self._arm_prices(arm)
            self.plan.check_budget(arm, self._prices[name])

    def _arm_prices(self, arm: Arm) -> tuple[Price, ...]:
        """Return the price of a step of each phase of an arm."""
        if arm.name in self._manifest.costs:
            return self._manifest.costs[arm.name].prices
        self.reporter.status(f"{arm.name}: counting what a step costs")
        return self.plan.prices(arm)

    @cached_property
    def costs(self) -> dict[str, ArmCost]:
        """Map each arm to what its runs cost, as counted when the study first started."""
        # Stored costs hold: another XLA may count otherwise, and a teacher's card may change.
        costs = dict(self._manifest.costs)
        sequences = self.artifacts.corpus.sequences("train")
        for name, arm in self.plan.arms.items():
            if name not in costs:
                teacher_cost = self.artifacts.teacher_cost(arm)
                costs[name] = self.plan.cost(arm, self._prices[name], sequences, teacher_cost)
        return {name: costs[name] for name in self.plan.arms}

    @cached_property
    def spans(self) -> dict[str, tuple[PhaseSpan, ...]]:
        """Map each arm to its phases as they lie in the budget; empty where a clock decides."""
        arms = self.plan.arms.items()
        return {name: self.plan.schedule(arm, self.costs[name]) for name, arm in arms}

    def mask_rate(self, arm: Arm) -> MaskRate | None:
        """Return the masking rate of an arm's runs; None where it is the same throughout."""
        upfront = self.costs[arm.name].upfront
        return run_mask_rate(self.plan.config.data, self.plan.budget, self.spans[arm.name], upfront)

    def prepare(self) -> None:
        """Make all that runs need, then take the directory for this recipe.

        The costs stored now hold for good.

        Raises:
            InputError: anything wrong with the recipe, the text or the teacher.
        """
        plan = self.plan
        config = plan.config
        artifacts = self.artifacts
        # What is wrong with small files is found before anything takes long.
        check_tuning(config)
        # Before tasks and minimal pairs, which need the text where a tokenizer is trained on it.
        if plan.needs_teacher and self._manifest.is_new:
            with CLOCK.measure("teacher", whole=True):
                check_teacher(config, plan.layout)
        artifacts.make_measures()
        check_train_batches(config, artifacts.corpus, plan.batch_shape.batch_size)
        check_snapshots(config, artifacts.corpus)
        # Before anything is trained: the recipe may refuse what it finds.
        artifacts.look_for_tasks_in_text()

        # Before much is made: a share of it may exceed the budget.
        for name, spans in self.spans.items():
            tokens = sum(span.steps * span.tokens_per_step for span in spans)
            sequences = tokens // plan.batch_shape.seq_len
            refuse_repeated_text(config, artifacts.corpus, f"arms.{name}", sequences)
            self._log_unreached(name, sequences)

        # What a pruned student keeps is measured on text that is there.
        for name, arm in plan.arms.items():
            if arm.start.prunes:
                try:
                    check_calibration(artifacts.corpus, arm.start.calibration_sequences)
                except InputError as e:
                    raise InputError(f"arms.{name}: {e}") from None

        # Raises where the teacher lacks what an objective asks of it: an MLM head.
        for arm in plan.arms.values():
            for teacher in artifacts.teachers:
                for phase in arm.phases:
                    phase.teacher_part(teacher.model.params)

        # All that runs share is made now, and the same on all processes.
        artifacts.make_for_runs()
        hosts.check_same(
            {
                "corpus": artifacts.corpus.digest,
                "teachers": [teacher.facts for teacher in artifacts.teachers],
                "costs": to_plain(self.costs),
                "texts": {name: text.digest for name, text in artifacts.held_out_texts.items()},
                "minimal pairs": {pairs.name: pairs.digest for pairs in artifacts.minimal_pairs},
            }
        )
        self._manifest.write(self.costs)

    def _log_unreached(self, arm: str, sequences: int) -> None:
        """Log the snapshots that an arm's budget does not reach, by its sequences, if any."""
        corpus = self.artifacts.corpus
        tokens = sequences / corpus.sequences("train") * corpus.tokens("train")
        words = self.plan.config.train.checkpoint.words_of_snapshots
        seen = corpus.manifest.words_in(tokens) if sequences else None
        if line := unreached_line(words, seen, about=True):
            self.reporter.log(f"arms.{arm}: {line}")

    def unspent(self, runs: Sequence[tuple[str, int]]) -> float:
        """Return the amount that unfinished runs may still spend, in the budget's unit.

        Args:
            runs: arm and seed of each.
        """
        return self.plan.budget.amount * sum(not self.is_finished(*run) for run in runs)

    def log_finished(self, runs: Sequence[tuple[str, int]]) -> None:
        """Log how many of the runs an earlier command has finished, if any."""
        finished = sum(self.is_finished(*run) for run in runs)
        if finished == len(runs):
            self.reporter.log("all runs have a result")
        elif finished:
            self.reporter.log(
                f"{finished:,} of {counted(len(runs), 'run')} have a result; going on with the rest"
            )

    def is_finished(self, arm: str, seed: int) -> bool:
        """Return whether a run has its result."""
        return (self.plan.run_dir(arm, seed) / RESULT).exists()
