"""What measuring on labelled tasks costs, before anything is spent."""

from __future__ import annotations

from typing import Any, get_args

from kdjax.arms.recipe_arms import arms_of, finetuning_of
from kdjax.config import Config
from kdjax.dry_run.known_tasks import KnownTasks, known_tasks
from kdjax.evaluation.finetuning.flops import probe_flops, task_flops
from kdjax.evaluation.finetuning.protocols import FinetuningProtocol
from kdjax.evaluation.finetuning.work import (
    BatchLimits,
    Work,
    work_of,
    work_of_probe,
    work_of_start,
)
from kdjax.evaluation.length_buckets import ACCELERATOR_TOKENS
from kdjax.training.arm import Arm


def task_costs(config: Config) -> dict[str, dict[str, Any]]:
    """Count the FLOPs of measuring a run of each arm on the recipe's tasks; no budget is charged.

    FLOPs are by the reference form, padding of batches included. Linear probes count by their
    frozen forward passes, without the fits on the host.

    Returns:
        Arm -> `protocols`: for each its `flops`, `trials`, `steps` and `tokens` (of training,
        padding included), with `intermediate` where some tasks start from another one; `flops` of
        all; `rows`: `files`, or `official` where GLUE's official sizes stand in for its rows;
        `unknown`: why tasks are left out, or None. Empty where the recipe has no tasks.
    """
    if not config.evaluation.task_results:
        return {}
    known = known_tasks(config)
    return {name: _arm_cost(config, arm, known) for name, arm in arms_of(config).items()}


def _arm_cost(config: Config, arm: Arm, known: KnownTasks) -> dict[str, Any]:
    """Return the cost of a run of an arm."""
    settings = finetuning_of(config, arm)
    limits = BatchLimits(arm.student_config.max_positions, 1, 1, ACCELERATOR_TOKENS)
    protocols: dict[str, dict[str, int]] = {}
    for name, work in protocol_work(config, arm, known, limits).items():
        if name == "probe":
            flops = probe_flops(arm.student_config).total(work.passes)
        else:
            flops = task_flops(arm.student_config, settings).total(work)
        tokens = sum(shape.rows * shape.length * n for shape, n in work.steps.items())
        protocols[name] = {
            "flops": flops,
            "trials": work.trials,
            "steps": work.steps.total(),
            "tokens": tokens,
        }
    return {
        "protocols": protocols,
        "flops": sum(cost["flops"] for cost in protocols.values()),
        "rows": "official" if known.official else "files",
        "unknown": known.unknown or None,
    }


def protocol_work(
    config: Config, arm: Arm, known: KnownTasks, limits: BatchLimits
) -> dict[str, Work]:
    """Count the work of each protocol for a run of an arm, and of `intermediate`, where it is used.

    Args:
        config: resolved recipe.
        arm: arm of the run.
        known: the recipe's tasks.
        limits: how large the batches may be.
    """
    evaluation = config.evaluation
    settings = finetuning_of(config, arm)
    works: dict[str, Work] = {}
    for protocol in evaluation.protocols:
        works[protocol] = Work()
        for task in known.tasks:
            if protocol == "probe":
                works[protocol] += work_of_probe(task, evaluation.probe.examples, limits)
            else:
                works[protocol] += work_of(task, settings, protocol, limits)

    # The encoder that some tasks start from is tuned once for all protocols.
    is_tuned = bool(set(evaluation.protocols) & set(get_args(FinetuningProtocol)))
    by_name = {task.name: task for task in known.tasks}
    is_used = settings.intermediate in by_name and by_name.keys() & settings.intermediate_tasks
    if is_tuned and is_used:
        works["intermediate"] = work_of_start(by_name[settings.intermediate], settings, limits)
    return works


def add_task_costs(config: Config, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Add `tasks`, from `task_costs`, to the rows of prices of each arm.

    Args:
        config: resolved recipe.
        rows: rows from `kdjax.dry_run.recipe_prices.prices`.
    """
    for name, cost in task_costs(config).items():
        for row in rows[name]:
            row["tasks"] = cost
