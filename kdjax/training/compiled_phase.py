"""A phase of a run: its compiled step, the price of a step, and its batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdjax.budget.price import Price
from kdjax.config import TrainConfig
from kdjax.parallel.layout import Layout
from kdjax.training.input_pipeline import Stream
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.program import Program, program_of


@dataclass(frozen=True)
class CompiledPhase:
    """A phase of a run.

    Attributes:
        phase: phase with its objective and its end in the budget.
        program: compiled step of the phase, for as many lanes as runs are trained at once.
        price: price of one step.
        stream: batches of the phase.
        teacher_params: the teacher's parameters on the devices (`Program.place_teacher`), or None.
    """

    phase: Phase
    program: Program
    price: Price
    stream: Stream
    teacher_params: Any = None


def compile_phase(
    phase: Phase,
    price: Price,
    batch_shape: BatchShape,
    streams: Sequence[Stream],
    layout: Layout,
    settings: TrainConfig,
    teacher_params: Any = None,
) -> list[CompiledPhase]:
    """Compile a phase for runs that are trained together, and place its teacher for all of them.

    Args:
        phase: phase with its objective, student and teacher source.
        price: price of one step.
        batch_shape: shape of the phase's batches.
        streams: batches of each run; as many lanes are compiled.
        layout: layout of the devices.
        settings: training settings: accumulation steps, and how the models are computed.
        teacher_params: the teacher's parameters, on the host; None without a teacher.

    Returns:
        The phase of each run, in the order of `streams`.

    Raises:
        InputError: a batch or a model does not split over the devices, or the teacher lacks the
            MLM head that the objective asks for.
    """
    program = program_of(
        phase, batch_shape, layout, settings.grad_accum_steps, settings.compute, len(streams)
    )
    placed_teacher = program.place_teacher(teacher_params)
    return [CompiledPhase(phase, program, price, stream, placed_teacher) for stream in streams]
