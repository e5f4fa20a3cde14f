"""A run: one arm under one seed. What it is made of, what a watcher is told of it, and what it
comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from kdjax import process_logging
from kdjax.budget.accounting import Budget
from kdjax.budget.hardware import Peak
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import Price
from kdjax.config import TrainConfig
from kdjax.progress import Progress
from kdjax.training.input_pipeline import Stream
from kdjax.training.phase import Phase
from kdjax.training.program import Program
from kdjax.training.sinks import About


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        params: the student's final parameters, on the host.
        ledger: what it spent.
        curve: figures on held-out text along the budget: step, flops, share (of the budget),
            mlm_loss, …
        params_sha256: SHA-256 of the final parameters.
        journal_sha256: hash of the last entry of `ledger.jsonl`.
        side_by_side: how many runs took their last steps together, itself included.
    """

    params: Any
    ledger: Ledger
    curve: list[dict[str, float]]
    params_sha256: str
    journal_sha256: str
    side_by_side: int


@dataclass(frozen=True)
class CompiledPhase:
    """A phase of a run.

    Attributes:
        phase: what it does, and where it ends.
        program: its compiled step, of as many runs as go side by side.
        price: of one step.
        stream: its batches.
        teacher: the teacher's parameters on the devices, or None.
    """

    phase: Phase
    program: Program
    price: Price
    stream: Stream
    teacher: Any = None


@dataclass(frozen=True)
class Run:
    """One run, to be trained by `kdjax.training.loop.train`.

    Attributes:
        compiled_phases: the arm's phases.
        budget: what may be spent.
        start: the student's starting parameters.
        seed: of dropout and of the objective's projections.
        config: training settings.
        directory: of the run: `checkpoints/`, `metrics.jsonl`, `ledger.jsonl`, and what else
            `config.log` asks for.
        upfront: FLOPs spent before the first step, by account: the run's share of what the teacher
            cost before.
        cache_bytes: size of the stored teacher outputs it reads.
        repeats: whether text may be seen again once all of it was.
        evaluate: figures on held-out text from the student's parameters, taken along the budget.
        watch: told after every step.
        phase_ended: called when the last step of a phase is done and no step of a later one: with
            the phase's number from 0, the student's parameters on the host and the account. A run
            that is resumed there calls it again.
        checkpoints: their directory, a path or gs://bucket/path; None: in `directory`.
        warn: told, in a line, of a checkpoint that is damaged or cannot be written, or of figures
            that go nowhere.
        about: whose run it is, for those who look at its figures.
        peak: of a device; None: not known, and no figure says how well the devices are used.
    """

    compiled_phases: Sequence[CompiledPhase]
    budget: Budget
    _: KW_ONLY
    start: Any
    seed: int
    config: TrainConfig
    directory: Path
    upfront: Mapping[str, int] | None = None
    cache_bytes: int = 0
    repeats: bool = True
    evaluate: Callable[[Any], Mapping[str, float]] | None = None
    watch: Callable[[Progress], None] = lambda progress: None
    phase_ended: Callable[[int, Any, Ledger], None] | None = None
    checkpoints: str | Path | None = None
    warn: Callable[[str], None] = process_logging.warn
    about: About | None = None
    peak: Peak | None = None
