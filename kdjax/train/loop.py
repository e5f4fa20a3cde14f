"""One run: one arm under one seed, from its start to the end of its budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from kdjax.budget.ledger import Ledger
from kdjax.config import TrainConfig
from kdjax.errors import InputError
from kdjax.train.checkpoint import Checkpoints, sha256
from kdjax.train.log import Log, Stopwatch
from kdjax.train.program import Program


class Stream(Protocol):
    """Batches by step number (`kdjax.data.loader.Batches`)."""

    @property
    def sequences(self) -> int:
        """How many sequences there are before they repeat."""

    def iterate(self, start: int, stop: int) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        """The batches of steps `start` to `stop - 1`."""


@dataclass(frozen=True)
class Progress:
    """What a watcher is told after a step: the account, its length in steps, and the step's losses."""

    ledger: Ledger
    steps: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        params: the student's final parameters, on the host.
        ledger: what it spent.
        curve: figures on held-out text along the budget: step, flops, mlm_loss, …
        params_sha256: SHA-256 of the final parameters.
    """

    params: Any
    ledger: Ledger
    curve: list[dict[str, float]]
    params_sha256: str


@dataclass(frozen=True)
class Leg:
    """A phase of a run: its compiled step, its batches, and the teacher's parameters on the devices (or None)."""

    program: Program
    stream: Stream
    teacher: Any = None


def train(
    legs: Sequence[Leg],
    budget: int,
    *,
    start: Any,
    seed: int,
    config: TrainConfig,
    directory: Path,
    upfront: int = 0,
    cache_bytes: int = 0,
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Trains until the ledger is full, or goes on where an interrupted call stopped.

    Args:
        legs: the arm's phases, laid out in the budget.
        budget: FLOPs.
        start: the student's starting parameters.
        seed: of dropout and of the objective's projections.
        config: training settings.
        directory: of the run: `checkpoints/` and `metrics.jsonl`.
        upfront: FLOPs paid before the first step: the run's share of stored teacher outputs.
        cache_bytes: size of these outputs.
        evaluate: figures on held-out text from the student's parameters, taken along the budget; not charged.
        watch: told after every step.

    Raises:
        InputError: the loss is not finite, or a checkpoint is damaged.
    """
    first, total = legs[0].program, legs[-1].program.stretch.stop
    with Checkpoints(directory / "checkpoints") as checkpoints:
        if checkpoints.latest is None:
            state, ledger = first.start(start, seed), Ledger.open(budget, upfront, cache_bytes)
        else:
            state, ledger = checkpoints.restore(first.abstract_state())
        log = Log(directory / "metrics.jsonl", ledger.steps)
        clock = Stopwatch(ledger.seconds)
        milestones = {-(-total * k // config.evaluations) for k in range(1, config.evaluations + 1)}
        saved = time.monotonic()

        def report(then: Ledger, metrics: Mapping[str, jax.Array]) -> None:
            values = {name: float(value) for name, value in metrics.items()}
            if not np.isfinite(values["loss"]):
                raise InputError(
                    f"{directory}: the loss is {values['loss']} at step {then.steps}, expected a finite one; "
                    "lower the optimizer's learning_rate or set its clip"
                )
            watch(Progress(then, total, values))
            if then.steps % config.log_every == 0 or then.steps == total:
                log.write({"step": then.steps, "flops": then.total, **values})

        waiting: tuple[Ledger, Mapping[str, jax.Array]] | None = None  # a step whose losses are still on their way
        for leg in legs:
            price, stop = leg.program.stretch.price, leg.program.stretch.stop
            batches = leg.stream.iterate(ledger.steps, stop) if ledger.steps < stop else iter(())
            while ledger.steps < stop:
                with clock("input"):
                    step, batch = next(batches)
                with clock("compute"):
                    state, metrics = leg.program(state, leg.teacher, batch)
                    ledger = ledger.charge(price, *_tokens(batch, step, leg.stream.sequences))
                    if waiting:
                        report(*waiting)  # the device is busy with this step meanwhile
                    waiting = ledger, metrics
                due = time.monotonic() - saved >= config.checkpoint_seconds or ledger.steps == total
                if due or ledger.steps in milestones:
                    with clock("compute"):
                        report(*waiting)
                    waiting = None
                if evaluate and ledger.steps in milestones:
                    with clock("evaluation"):
                        figures = evaluate(state.params["model"])
                    log.write({"step": ledger.steps, "flops": ledger.total, **figures})
                if due:
                    with clock("checkpoint"):
                        checkpoints.save(state, replace(ledger, seconds=clock.seconds))
                    saved = time.monotonic()
        params = jax.device_get(state.params["model"])
        return Outcome(params, replace(ledger, seconds=clock.seconds), log.curve(), sha256(params))


def _tokens(batch: Mapping[str, np.ndarray], step: int, sequences: int) -> tuple[int, int]:
    """Tokens of a batch, and those of sequences not seen before: sequences repeat only after all were seen."""
    per_sequence = batch["valid"].sum(axis=1)
    fresh = max(0, sequences - step * len(per_sequence))
    return int(per_sequence.sum()), int(per_sequence[:fresh].sum())
