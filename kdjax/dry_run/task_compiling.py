"""What fine-tuning on a recipe's tasks would take on a TPU slice that nobody has rented.

A few steps are compiled for the slice, as those of training are (`kdjax.dry_run.compiling`); the
times of all others lie between theirs.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.arms.recipe_arms import arms_of, finetuning_of
from kdjax.budget.hardware import memory
from kdjax.config import Config, FinetuneConfig
from kdjax.dry_run.compiling import needed_bytes
from kdjax.dry_run.known_tasks import KnownTasks, known_tasks
from kdjax.dry_run.task_costs import protocol_work
from kdjax.evaluation.finetuning.step import (
    StepKey,
    abstract_batch,
    abstract_state,
    compiled_forward,
    compiled_step,
)
from kdjax.evaluation.finetuning.trial_groups import lanes_of
from kdjax.evaluation.finetuning.work import BatchLimits, TaskBatchShape, Work
from kdjax.evaluation.length_buckets import ACCELERATOR_TOKENS
from kdjax.hlo.aot import Slice, without_compilation_cache
from kdjax.hlo.estimate import estimate
from kdjax.hlo.kernels import kernel_flops
from kdjax.parallel.layout import Layout
from kdjax.progress import Reporter
from kdjax.training.arm import Arm
from kdjax.training.lanes import BATCH_AXIS, stack

MOST_LENGTHS = 3
"""Lengths of rows that are compiled of each batch size: the shortest, the longest, and one between
them."""
ProgramPart = Literal["step", "scoring"]


@dataclass(frozen=True)
class CompiledShape:
    """A program of fine-tuning, compiled for a slice.

    Attributes:
        shape: shape of its batch.
        seconds: estimate of its time; None where it cannot be known.
        hbm: bytes a device needs; where it does not fit, at least.
        fits: whether the devices have so much.
    """

    shape: TaskBatchShape
    seconds: float | None
    hbm: int
    fits: bool


def compile_tasks(
    config: Config, target: Slice, arms: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Compile the fine-tuning of a recipe's arms for a slice, and estimate how long it takes.

    Arms with equal students and settings are compiled once. On a slice of several hosts each
    fine-tunes on one of its devices, and all do the same.

    Args:
        config: resolved recipe, with arms, tasks and mesh.
        target: slice of TPUs to compile for.
        arms: names of those to look at; none: all.

    Returns:
        Arm -> `trials`, `steps` and `passes` (scoring batches) of a run; `rows`, as
        `kdjax.dry_run.task_costs.task_costs` has them; `programs`: for each compiled shape `part`,
        `rows`, `length`, `lanes`, `seconds` and `hbm`; `hbm`: the most of them; `fits`; and
        `hours` of a run, None where they cannot be known. Empty where nothing is fine-tuned.
    """
    if not set(config.evaluation.protocols) - {"probe"} or not config.evaluation.task_results:
        return {}
    known = known_tasks(config)
    if not known.tasks:
        return {}
    all_arms = arms_of(config)
    results: dict[Any, dict[str, Any]] = {}
    rows = {}
    with Reporter() as reporter:
        for name in arms or all_arms:
            arm = all_arms[name]
            key = (arm.student_config, finetuning_of(config, arm))
            if key not in results:
                results[key] = _compiled_arm(config, target, arm, known, reporter)
            rows[name] = results[key]
    return rows


def _compiled_arm(
    config: Config, target: Slice, arm: Arm, known: KnownTasks, reporter: Reporter
) -> dict[str, Any]:
    """Compile an arm's fine-tuning; return what a run of it takes."""
    # What the arm's fine-tuning does, over all protocols
    settings = finetuning_of(config, arm)
    layout = devices_of(config, target)
    lanes = lanes_of(settings.lanes, arm.student_config, layout)
    limits = BatchLimits(
        arm.student_config.max_positions, lanes, layout.batch_parts, ACCELERATOR_TOKENS
    )
    work = Work()
    for protocol, of_protocol in protocol_work(config, arm, known, limits).items():
        if protocol != "probe":
            work += of_protocol

    # Each shape of its batches is a program.
    step_key = _step_key(config, arm, settings, layout)

    def compile_part(part: ProgramPart, shape: TaskBatchShape) -> CompiledShape:
        reporter.status(
            f"{arm.name}: compiling fine-tuning for {target.name}, {part} {shape.rows} x "
            f"{shape.length}"
        )
        return _compiled(step_key, target, part, shape)

    compile_step = functools.partial(compile_part, "step")
    compile_scoring = functools.partial(compile_part, "scoring")
    steps, step_seconds = compile_and_time(
        work.steps, compile_step, lambda shape: (shape.rows, shape.lanes)
    )
    # Batches that are scored have as many tokens whatever their length.
    scoring, scoring_seconds = compile_and_time(
        work.passes, compile_scoring, lambda shape: "scoring"
    )
    programs = []
    for part, compiled_shapes in (("step", steps), ("scoring", scoring)):
        for program in compiled_shapes:
            shape = vars(program.shape)
            programs.append({"part": part, **shape, "seconds": program.seconds, "hbm": program.hbm})
    hours = None
    if step_seconds is not None and scoring_seconds is not None:
        hours = (step_seconds + scoring_seconds) / 3600
    return {
        "trials": work.trials,
        "steps": work.steps.total(),
        "passes": work.passes.total(),
        "rows": "official" if known.official else "files",
        "programs": programs,
        "hbm": max(program.hbm for program in (*steps, *scoring)),
        "fits": all(program.fits for program in (*steps, *scoring)),
        "hours": hours,
    }


def devices_of(config: Config, target: Slice) -> Layout:
    """Return the devices that a process of the slice fine-tunes on."""
    if target.is_one_host:
        return Layout.from_config(config.train.mesh, target.devices)
    return Layout.from_config(devices=target.devices[:1])


def _step_key(config: Config, arm: Arm, settings: FinetuneConfig, layout: Layout) -> StepKey:
    """Return the key of a task's programs; a head of two outputs stands for all."""
    return StepKey(
        model=arm.student_config,
        outputs=2,
        regression=False,
        pool=settings.pool,
        weight_decay=settings.weight_decay,
        eps=settings.eps,
        clip=settings.clip,
        dtype=config.train.compute.dtype,
        layout=layout,
    )


def compile_and_time(
    batches: Counter[TaskBatchShape],
    compile_shape: Callable[[TaskBatchShape], CompiledShape],
    line_of: Callable[[TaskBatchShape], Any],
) -> tuple[list[CompiledShape], float | None]:
    """Compile a few shapes; return them, and the seconds of all batches, by estimate.

    Args:
        batches: shape -> number of batches.
        compile_shape: compiles the program of a shape.
        line_of: maps a shape to what those have in common whose times lie on a line by length.
    """
    lines: dict[Any, list[TaskBatchShape]] = {}
    for shape in batches:
        lines.setdefault(line_of(shape), []).append(shape)

    programs: list[CompiledShape] = []
    total: float | None = 0.0
    for shapes in lines.values():
        by_length = {shape.length: shape for shape in shapes}
        of_line = [compile_shape(by_length[length]) for length in _lengths(by_length)]
        programs += of_line
        seconds = [program.seconds for program in of_line]
        if total is None or None in seconds:
            total = None
            continue
        points = [program.shape.length for program in of_line]
        for shape in shapes:
            each = np.interp(shape.length, points, np.array(seconds, np.float64))
            total += batches[shape] * float(each)
    return programs, total


def _lengths(lengths: Iterable[int]) -> list[int]:
    """Return the lengths that are compiled, ascending."""
    ascending = sorted(lengths)
    if len(ascending) <= MOST_LENGTHS:
        return ascending
    middle = (ascending[0] + ascending[-1]) / 2
    between = min(ascending[1:-1], key=lambda length: abs(length - middle))
    return [ascending[0], between, ascending[-1]]


def _compiled(
    step_key: StepKey, target: Slice, part: ProgramPart, shape: TaskBatchShape
) -> CompiledShape:
    """Compile a training step, or a scoring pass, of a shape for a slice."""
    state = abstract_state(step_key)
    batch = abstract_batch(step_key, shape.rows, shape.length)
    if part == "scoring":
        inputs = {name: batch[name] for name in batch if name not in ("targets", "weights")}
        traced = compiled_forward(step_key).trace(state.params, inputs)
    else:
        learning_rate = jax.ShapeDtypeStruct((), jnp.float32)
        arguments: Any = (state, batch, learning_rate)
        if shape.lanes > 1:
            stack_batches = functools.partial(stack, axis=BATCH_AXIS)
            arguments = (
                jax.eval_shape(stack, [state] * shape.lanes),
                jax.eval_shape(stack_batches, [batch] * shape.lanes),
                jax.ShapeDtypeStruct((shape.lanes,), jnp.float32),
            )
        traced = compiled_step(step_key, shape.lanes).trace(*arguments)
    try:
        with without_compilation_cache():
            program = traced.lower().compile()
    except jax.errors.JaxRuntimeError as e:
        # One that does not fit is a result; all other errors are errors.
        needed = needed_bytes(str(e))
        if needed is None:
            raise
        return CompiledShape(shape, None, needed, fits=False)
    estimated = estimate(str(program.as_text()), target.chip, kernel_flops(traced.jaxpr))
    used = memory(program)
    assert used is not None
    return CompiledShape(shape, estimated.seconds, used["peak"], used["peak"] <= target.chip.hbm)


def task_lines(rows: dict[str, dict[str, Any]], seeds: int) -> list[str]:
    """Return the lines on the memory and time of fine-tuning, one for arms that are alike.

    Args:
        rows: rows from `compile_tasks`.
        seeds: number of runs of each arm.
    """
    alike: dict[int, list[str]] = {}
    for name, row in rows.items():
        alike.setdefault(id(row), []).append(name)
    lines = []
    for names in alike.values():
        row = rows[names[0]]
        programs = []
        for program in row["programs"]:
            lanes = f" x {program['lanes']}" if program["lanes"] > 1 else ""
            seconds = "unknown"
            if program["seconds"] is not None:
                seconds = f"{1e3 * program['seconds']:.2f} ms"
            what = f"{program['part']} {program['rows']} x {program['length']}{lanes}"
            programs.append(f"{what}: {seconds}")
        hours = "hours unknown"
        if row["hours"] is not None:
            runs = seeds * len(names)
            hours = f"{row['hours']:.3g} hours a run, {runs * row['hours']:.3g} for {runs}"
        basis = "the rows of the files"
        if row["rows"] == "official":
            basis = "GLUE's official numbers of rows and mean lengths"
        trainings = "training" if row["trials"] == 1 else "trainings"
        too_much = "" if row["fits"] else " too much"
        lines.append(
            f"{', '.join(names)}: fine-tuning: {row['trials']:,} {trainings}, {row['steps']:,} "
            f"steps, {row['passes']:,} scoring batches by {basis}; at most "
            f"{row['hbm'] / 2**30:.2f} GiB of HBM{too_much}; {hours}, by estimate"
        )
        lines.append(f"{', '.join(names)}: fine-tuning, compiled: {'; '.join(programs)}")
    return lines
