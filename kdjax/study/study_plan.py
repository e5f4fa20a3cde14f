"""A study's plan: all that follows from its recipe before anything is made."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from kdjax.arms.charges import own_charges, upfront_charges
from kdjax.arms.recipe_arms import arms_of, batch_shape_of
from kdjax.arms.teacher_cost import TeacherCost
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import PhaseSpan
from kdjax.budget.price import Price
from kdjax.config import Config
from kdjax.parallel.layout import Layout
from kdjax.study.artifacts.artifact_dirs import artifact_dirs
from kdjax.study.manifest import ArmCost
from kdjax.study.runs.run_backup import run_name
from kdjax.training.arm import Arm
from kdjax.training.phase_price import price


class StudyPlan:
    """The plan of a study, as its recipe says it; nothing is read or written.

    Attributes:
        config: resolved recipe of the study.
        out: directory that the study writes to.
        artifact_dirs: directories of corpus, teacher, stored outputs and references, by name.
        arms: name -> resolved arm.
        batch_shape: shape of a batch.
        budget: budget of each run.
        layout: layout of arrays on the devices.
    """

    def __init__(self, config: Config, out: Path, shared: Path | None = None):
        """Resolve the recipe's arms and check its batches.

        Args:
            config: resolved recipe of the study.
            out: directory that the study writes to.
            shared: a directory for what other studies use too; None: all lies in `out`.

        Raises:
            InputError: an arm is impossible with these models, or a batch does not split over the
                devices.
        """
        self.config = config
        self.out = out
        self.artifact_dirs = artifact_dirs(config, out, shared)
        self.arms = arms_of(config)
        self.batch_shape = batch_shape_of(config)
        self.budget = Budget.from_config(config.budget)
        self.layout = Layout.from_config(config.train.mesh)
        # Each stretch of a batch ramp has batches of its own.
        batch_sizes = [step.batch_size for step in config.train.batch_ramp]
        for batch_size in (self.batch_shape.batch_size, *batch_sizes):
            self.layout.check_batch(batch_size, config.train.grad_accum_steps)

    @property
    def runs(self) -> list[tuple[str, int]]:
        """List arm and seed of every run, in the order in which they are made: seed by seed."""
        return [(arm, seed) for seed, arm in product(self.config.seeds, self.config.arms)]

    @property
    def vmapped_seeds(self) -> int:
        """Return the largest number of an arm's seeds that train together; one under a budget of
        hours."""
        if not self.budget.countable:
            return 1
        return self.config.train.vmapped_seeds

    @property
    def needs_teacher(self) -> bool:
        """Return whether any arm needs the teacher's parameters."""
        return any(arm.needs_teacher for arm in self.arms.values())

    def run_dir(self, arm: str, seed: int) -> Path:
        """Return the directory of a run."""
        return self.out / "runs" / run_name(arm, seed)

    def prices(self, arm: Arm) -> tuple[Price, ...]:
        """Count the FLOPs of a step of each phase of an arm."""
        return tuple(price(phase, phase.batch_shape(self.batch_shape)) for phase in arm.phases)

    def check_budget(self, arm: Arm, prices: tuple[Price, ...]) -> None:
        """Check that a budget buys each phase of an arm a step after the run's own charges.

        Those are a charged MLM probe and the calibration of its start.

        Args:
            arm: an arm of the study.
            prices: prices of a step, one for each of its phases.

        Raises:
            InputError: a phase without a single step.
        """
        self.schedule(arm, ArmCost(prices, own_charges(self.config, arm)))

    def cost(
        self,
        arm: Arm,
        prices: tuple[Price, ...],
        train_sequences: int,
        teacher_cost: TeacherCost | None,
    ) -> ArmCost:
        """Compute the cost of a run of an arm, its shares of what the study makes before included.

        Args:
            arm: arm of the run.
            prices: prices of a step, one for each of its phases.
            train_sequences: training sequences of the corpus.
            teacher_cost: cost of the teacher; None where the arm needs none.

        Raises:
            InputError: the teacher's training is charged and its cost is not known.
        """
        upfront = upfront_charges(self.config, self.arms, arm, train_sequences, teacher_cost)
        return ArmCost(prices, upfront)

    def schedule(self, arm: Arm, cost: ArmCost) -> tuple[PhaseSpan, ...]:
        """Lay an arm's phases out in the budget, in steps; empty under a budget of hours.

        Args:
            arm: an arm of the study.
            cost: prices of its steps, and what is charged before the first.

        Raises:
            InputError: a phase without a single step.
        """
        if not self.budget.countable:
            return ()
        return arm.schedule_phases(self.budget, cost.prices, self.batch_shape, cost.upfront)
