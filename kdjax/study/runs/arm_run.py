"""A run of an arm, put together from a recipe's settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdjax.budget.accounting import Budget
from kdjax.config import Config
from kdjax.study.measures.evaluation import Evaluation
from kdjax.training.arm import Arm
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.run_spec import RunSpec


def arm_run(
    arm: Arm,
    seed: int,
    compiled_phases: Sequence[CompiledPhase],
    *,
    config: Config,
    budget: Budget,
    evaluation: Evaluation,
    start: Any,
    directory: Path,
    **others: Any,
) -> RunSpec:
    """Return a run of an arm, ready to be trained.

    Args:
        arm: the arm.
        seed: seed of the run.
        compiled_phases: the arm's phases, with the batches that this seed reads.
        config: the recipe.
        budget: budget of the run.
        evaluation: measurements of the points of its learning curve.
        start: the student's starting parameters.
        directory: directory of the run.
        others: further fields of `RunSpec`.
    """
    mlm = arm.trains_mlm_head
    return RunSpec(
        compiled_phases,
        budget,
        start=start,
        seed=seed,
        config=config.train,
        directory=directory,
        repeats=config.data.regime != "unlimited",
        evaluate=lambda params: evaluation.evaluate_during_training(
            arm.student_config, params, mlm=mlm
        ),
        **others,
    )
