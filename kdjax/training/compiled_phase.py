"""A phase of a run: its compiled step, the price of a step, and its batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdjax.budget.price import Price
from kdjax.training.input_pipeline import Stream
from kdjax.training.phase import Phase
from kdjax.training.program import Program


@dataclass(frozen=True)
class CompiledPhase:
    """A phase of a run.

    Attributes:
        phase: phase with its objective and its end in the budget.
        program: compiled step of the phase, for as many lanes as runs are trained at once.
        price: price of one step.
        stream: batches of the phase.
        teacher: the teacher's parameters on the devices (`Program.place_teacher`), or None.
    """

    phase: Phase
    program: Program
    price: Price
    stream: Stream
    teacher: Any = None
