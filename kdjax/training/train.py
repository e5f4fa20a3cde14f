"""The front door of training: runs of one arm, one or several at once."""

from __future__ import annotations

from contextlib import ExitStack

from kdjax.errors import Diverged, InputError
from kdjax.parallel.preemption import PREEMPTION
from kdjax.training.outcome import Outcome
from kdjax.training.run_spec import RunSpec, restored_run
from kdjax.training.stopwatch import Stopwatch
from kdjax.training.trainer import Trainer
from kdjax.training.vmapped import train_vmapped


def train(*specs: RunSpec) -> list[Outcome]:
    """Train until the ledgers are full, or go on where an interrupted call stopped.

    Several runs train at once, a lane each in a program compiled for so many; each keeps its own
    ledger, journal, metrics and checkpoints, as if it were alone. They differ in seed, start,
    stream and directory only, and their budget is of FLOPs or tokens, so that all take the same
    step at the same time.

    A budget of hours waits for each step before it looks at the clock, and starts none that would
    not end within the budget if it took as long as the one before. What a kill undid is not
    counted, except in the journal.

    A run whose loss is not finite has diverged, which is its outcome (`Outcome.diverged`); the
    others that train with it go on.

    Args:
        specs: runs to train: one, or as many as the programs of their phases have lanes.

    Returns:
        What each run came to, in the order of `specs`.

    Raises:
        InputError: text would repeat, compiling takes all of the budget's hours, all checkpoints or
            the journal are damaged, or no checkpoint could be written for
            `config.checkpoint.patience`; several runs under hours.
        Stopped: the process was told to stop; a checkpoint of each run is saved.
    """
    if len(specs) > 1 and not specs[0].budget.countable:
        raise InputError(
            f"{len(specs)} runs side by side under a budget of hours, expected one: each would "
            "take its own"
        )
    # SIGTERM waits for the end of a step, and whatever ends the training closes all files.
    with PREEMPTION.between_steps(), ExitStack() as stack:
        restored = [stack.enter_context(restored_run(spec)) for spec in specs]
        if len(restored) > 1:
            return train_vmapped(restored)
        stopwatch = Stopwatch(restored[0].ledger.seconds)
        trainer = stack.enter_context(Trainer(restored[0], stopwatch))
        try:
            state = trainer.run(restored[0].take_state())
            return [trainer.finish(state)]
        except Diverged as error:
            return [trainer.abandon(error)]
