"""One run: one arm under one seed, from its start to the end of its budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from kdjax.budget.ledger import Ledger
from kdjax.budget.price import Price
from kdjax.config import TrainConfig
from kdjax.errors import InputError
from kdjax.train.arm import Program
from kdjax.train.checkpoint import Checkpoints, sha256
from kdjax.train.log import Log, Stopwatch


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
        curve: held-out loss along the budget: step, flops, mlm_loss.
        params_sha256: SHA-256 of the final parameters.
    """

    params: Any
    ledger: Ledger
    curve: list[dict[str, float]]
    params_sha256: str


def train(
    program: Program,
    price: Price,
    budget: int,
    stream: Stream,
    *,
    start: Any,
    teacher: Any,
    seed: int,
    config: TrainConfig,
    directory: Path,
    evaluate: Callable[[Any], float] | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Trains until the ledger is full, or goes on where an interrupted call stopped.

    Args:
        program: the compiled arm.
        price: of one of its steps.
        budget: FLOPs.
        stream: the training batches.
        start: the student's starting parameters.
        teacher: the teacher's parameters on the devices, or None.
        seed: of dropout and of the objective's projections.
        config: training settings.
        directory: of the run: `checkpoints/` and `metrics.jsonl`.
        evaluate: held-out loss of the student's parameters, measured along the budget; not charged.
        watch: told after every step.

    Raises:
        InputError: the loss is not finite, or a checkpoint is damaged.
    """
    with Checkpoints(directory / "checkpoints") as checkpoints:
        if checkpoints.latest is None:
            state, ledger = program.start(start, seed), Ledger(budget)
        else:
            state, ledger = checkpoints.restore(program.abstract_state())
        log = Log(directory / "metrics.jsonl", ledger.steps)
        clock = Stopwatch(ledger.seconds)
        milestones = {-(-program.steps * k // config.evaluations) for k in range(1, config.evaluations + 1)}
        saved = time.monotonic()

        def report(then: Ledger, metrics: Mapping[str, jax.Array]) -> None:
            values = {name: float(value) for name, value in metrics.items()}
            if not np.isfinite(values["loss"]):
                raise InputError(
                    f"{directory}: the loss is {values['loss']} at step {then.steps}, expected a finite one; "
                    "lower the optimizer's learning_rate or set its clip"
                )
            watch(Progress(then, program.steps, values))
            if then.steps % config.log_every == 0 or then.steps == program.steps:
                log.write({"step": then.steps, "flops": then.total, **values})

        batches = stream.iterate(ledger.steps, program.steps)
        waiting: tuple[Ledger, Mapping[str, jax.Array]] | None = None  # a step whose losses are still on their way
        while ledger.affords(price):
            with clock("input"):
                step, batch = next(batches)
            with clock("compute"):
                state, metrics = program(state, teacher, batch)
                ledger = ledger.charge(price, *_tokens(batch, step, stream.sequences))
                if waiting:
                    report(*waiting)  # the device is busy with this step meanwhile
                waiting = ledger, metrics
            due = time.monotonic() - saved >= config.checkpoint_seconds or not ledger.affords(price)
            if due or ledger.steps in milestones:
                with clock("compute"):
                    report(*waiting)
                waiting = None
            if evaluate and ledger.steps in milestones:
                with clock("evaluation"):
                    loss = evaluate(state.params["model"])
                log.write({"step": ledger.steps, "flops": ledger.total, "mlm_loss": loss})
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
