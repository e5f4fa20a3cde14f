"""One run: one arm under one seed, from its start to the end of its budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from kdjax import loglines
from kdjax.budget import journal
from kdjax.budget.accounting import Budget
from kdjax.budget.hardware import Peak
from kdjax.budget.journal import Journal
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import Price
from kdjax.config import TrainConfig
from kdjax.errors import Diverged, InputError, Stopped
from kdjax.parallel import hosts
from kdjax.parallel.preemption import PREEMPTION
from kdjax.train import records
from kdjax.train.checkpoint import Checkpoints, Unsaved, sha256
from kdjax.train.feed import Fed, Stream, Votes, feed
from kdjax.train.log import About, Log, Stopwatch
from kdjax.train.metrics import Done, Meter
from kdjax.train.phase import Phase
from kdjax.train.profile import Profiler
from kdjax.train.program import Program
from kdjax.train.step import Moment, State

RETRY_SECONDS = 60.0
"""Between tries to write the last checkpoint, while there is no room for it."""


@dataclass(frozen=True)
class Progress:
    """What a watcher is told after a step: the account, and the step's losses."""

    ledger: Ledger
    metrics: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        params: the student's final parameters, on the host.
        ledger: what it spent.
        curve: figures on held-out text along the budget: step, flops, share (of the budget), mlm_loss, …
        params_sha256: SHA-256 of the final parameters.
        journal_sha256: hash of the last entry of `ledger.jsonl`.
    """

    params: Any
    ledger: Ledger
    curve: list[dict[str, float]]
    params_sha256: str
    journal_sha256: str


@dataclass(frozen=True)
class Leg:
    """A phase of a run.

    Attributes:
        phase: what it does, and where it ends.
        program: its compiled step.
        price: of one step.
        stream: its batches.
        teacher: the teacher's parameters on the devices, or None.
    """

    phase: Phase
    program: Program
    price: Price
    stream: Stream
    teacher: Any = None


def train(
    legs: Sequence[Leg],
    budget: Budget,
    *,
    start: Any,
    seed: int,
    config: TrainConfig,
    directory: Path,
    upfront: Mapping[str, int] | None = None,
    cache_bytes: int = 0,
    repeats: bool = True,
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
    checkpoints: str | Path | None = None,
    warn: Callable[[str], None] = loglines.warn,
    about: About | None = None,
    peak: Peak | None = None,
) -> Outcome:
    """Trains until the ledger is full, or goes on where an interrupted call stopped.

    A budget of hours waits for each step before it looks at the clock, and starts none that would not end within the
    budget if it took as long as the one before. What a kill undid is not counted, except in the journal.

    Args:
        legs: the arm's phases.
        budget: what may be spent.
        start: the student's starting parameters.
        seed: of dropout and of the objective's projections.
        config: training settings.
        directory: of the run: `checkpoints/`, `metrics.jsonl`, `ledger.jsonl`, and what else `config.log` asks for.
        upfront: FLOPs spent before the first step, by account: the run's share of what the teacher cost before.
        cache_bytes: size of the stored teacher outputs it reads.
        repeats: whether text may be seen again once all of it was.
        evaluate: figures on held-out text from the student's parameters, taken along the budget.
        watch: told after every step.
        checkpoints: their directory, a path or gs://bucket/path; None: in `directory`.
        warn: told, in a line, of a checkpoint that is damaged or cannot be written, or of figures that go nowhere.
        about: whose run it is, for those who look at its figures.
        peak: of a device; None: not known, and no figure says how well the devices are used.

    Raises:
        Diverged: the loss is not finite.
        InputError: text would repeat, compiling takes all of the budget's hours, all checkpoints or the journal are
            damaged, or no checkpoint could be written for `config.checkpoint.patience`.
        Stopped: the process was told to stop; a checkpoint is saved.
    """
    opened = Ledger.open(budget, len(legs), upfront, cache_bytes)
    place = checkpoints or hosts.common(directory / "checkpoints")
    with (
        PREEMPTION.between_steps(),
        Checkpoints(place, config.checkpoint.keep) as saved,
        closing(_Run(legs, directory, config, saved, evaluate, watch, warn)) as run,
    ):
        run.begin(start, seed, opened, about, peak)
        for number, leg in enumerate(legs):
            seen = run.ledger.positions // leg.program.shape.length
            batches = feed(leg.program, leg.stream, seen, run.votes)
            while run.ledger.affords(leg.price, leg.program.shape.positions, leg.phase.until):
                share = run.ledger.share
                with run.profiled():
                    votes = run.step(number, batches, repeats=repeats)
                if _milestone(run.ledger.share, config.evaluations) > _milestone(share, config.evaluations):
                    run.evaluate()
                if votes.stop:
                    run.stop()
                if votes.save > run.saves:
                    run.save()
        return run.finish()


class _Run:
    """A run on its way: its state and its account, and what is written down of it."""

    state: State
    ledger: Ledger

    def __init__(
        self,
        legs: Sequence[Leg],
        directory: Path,
        config: TrainConfig,
        checkpoints: Checkpoints,
        evaluate: Callable[[Any], Mapping[str, float]] | None,
        watch: Callable[[Progress], None],
        warn: Callable[[str], None],
    ):
        self._legs, self._directory, self._config, self._checkpoints = legs, directory, config, checkpoints
        self._evaluate, self._watch, self._warn = evaluate, watch, warn
        self._waiting: Done | None = None  # a step whose figures are on their way
        self._opened = ExitStack()
        self._failing: float | None = None  # since when no checkpoint can be written
        self._patience = config.checkpoint.patience

    def begin(self, start: Any, seed: int, opened: Ledger, about: About | None, peak: Peak | None) -> None:
        """From the start, or from the newest checkpoint that is whole."""
        program, damaged = self._legs[0].program, {}
        found = self._checkpoints.restore(program.abstract_state())
        if found is None:
            self.state, self.ledger = program.start(start, seed), opened
        else:
            self.state, self.ledger = found.state, found.ledger
            records.restore(self._directory, found.records)
            if found.damaged:
                damaged = {"damaged": found.damaged}
                self._warn(f"{'; '.join(found.damaged)}; going on from the one of step {self.ledger.steps}")
        self._log = Log(self._directory, self.ledger.steps, self._config.log, about, self._warn)
        self._opened.callback(self._log.close)
        self._journal = Journal(self._directory / journal.NAME)
        if self._journal.entries:
            lost = self._log.reached - self.ledger.steps
            self._journal.add("restart", self.ledger, lost_steps=lost, **damaged)
        else:
            prices = [leg.price.to_json() for leg in self._legs]
            self._journal.add(
                "open", self.ledger, prices=prices, positions=[leg.program.shape.positions for leg in self._legs]
            )
        self._clock = Stopwatch(self.ledger.seconds)
        for seconds in {id(leg.program): leg.program.compile_seconds for leg in self._legs}.values():
            self._clock.add("compile", seconds)
        self._read_clock()
        if self.ledger.used > self.ledger.budget.amount and not self.ledger.steps:
            raise InputError(
                f"{self._directory}: budget.hours is {self.ledger.budget.amount:g}, expected more than the "
                f"{self.ledger.used:.3g} hours that compiling took, as budget.clock counts it"
            )
        phases, devices = [leg.phase for leg in self._legs], program.layout.devices
        self._meter = Meter(phases, devices, self.ledger, self._clock, peak)
        captured = self._config.log.profile if hosts.lead() else ()
        self._profiler = Profiler(self._directory / "profile", captured, self.ledger.steps, self._warn)
        self._opened.callback(lambda: self._profiler.close(self.ledger.steps))
        self._evaluated = self.ledger.steps
        self._saved_step: int | None = self.ledger.steps
        self.saves, self._saved = 0, time.monotonic()

    def votes(self) -> Votes:
        """What this process wants: to stop, or a checkpoint."""
        due = time.monotonic() - self._saved >= self._config.checkpoint.seconds
        return Votes(PREEMPTION.told(), self.saves + 1 if due else 0)

    def step(self, number: int, batches: Iterator[Fed], *, repeats: bool) -> Votes:
        """One step of phase `number`; what all processes want after it."""
        leg, ledger = self._legs[number], self.ledger
        positions = leg.program.shape.positions
        with self._clock("input"):
            fed = next(batches)
        if fed.fresh < leg.program.shape.batch and not repeats:
            raise InputError(
                f"{self._directory}: step {ledger.steps + 1} would repeat text, expected none under data.regime "
                "'unlimited'; add text or lower the budget"
            )
        share = ledger.step(leg.price, positions) / ledger.budget.amount
        moment = Moment(ledger.share, leg.phase.learning_rate(ledger.share, ledger.share + share))
        with self._clock("compute"):
            self.state, metrics = leg.program.step(self.state, leg.teacher, fed.batch, moment)
            self._report()  # of the step before: the device is busy with this one meanwhile
            self.ledger = ledger.charge(number, leg.price, positions, fed.tokens, fed.unique, fed.masked)
            self._waiting = Done(self.ledger, number, moment, metrics)
            if not ledger.budget.countable:
                self._report()
        self._read_clock()
        self.ledger = replace(self.ledger, step_seconds=self.ledger.counted_seconds - ledger.counted_seconds)
        return fed.votes

    @contextmanager
    def profiled(self) -> Iterator[None]:
        """Has the step in the block captured, if it is one of those that the settings name."""
        step, profiler = self.ledger.steps + 1, self._profiler
        if profiler.starts(step):
            self._settle()
            with self._clock("profile"):
                profiler.start()
        with profiler.step(step):
            yield
        if profiler.ends(step):
            self._settle()
            with self._clock("profile"):
                profiler.stop()
            self._read_clock()

    def evaluate(self) -> None:
        """Measures the student on held-out text, unless that was done after this very step."""
        self._settle()
        if self._evaluate is None or self._evaluated == self.ledger.steps:
            return
        with self._clock("evaluation"):
            figures = self._evaluate(hosts.whole(self.state.params["model"]))
        self._log.write(self.ledger.steps, {"flops": self.ledger.total, "share": self.ledger.share, **figures})
        self._evaluated = self.ledger.steps
        self._read_clock()

    def save(self) -> None:
        """Begins a checkpoint, with an entry in the journal, unless this very step has them.

        What cannot be written is said, and tried again when the next checkpoint is due.

        Raises:
            InputError: nothing could be written for too long.
        """
        self._settle()
        if self._saved_step == self.ledger.steps:
            return
        with self._clock("checkpoint"):
            self._commit()  # the one before
            try:
                self._log.flush()
                self._journal.add("steps", self.ledger)
                self._checkpoints.save(self.state, self.ledger, records.read(self._directory))
                self._saved_step = self.ledger.steps
            except (OSError, Unsaved) as e:
                self._failed(e)
        self.saves, self._saved = self.saves + 1, time.monotonic()
        self._read_clock()

    def stop(self) -> NoReturn:
        """Ends with a checkpoint: the process was told to.

        Raises:
            Stopped: it is saved.
            InputError: it cannot be.
        """
        self._patience = 0.0
        self.save()
        self._commit()
        raise Stopped(f"saved at step {self.ledger.steps}")

    def finish(self) -> Outcome:
        """The last figures and the last checkpoint; nothing is spent any more."""
        self.evaluate()
        self.save()
        while not self._commit():
            time.sleep(min(RETRY_SECONDS, self._patience))
            self.save()
        params = hosts.whole(self.state.params["model"])
        found = sha256(params)
        self._journal.add("close", self.ledger, params_sha256=found)
        return Outcome(params, self.ledger, self._log.curve(), found, self._journal.head)

    def close(self) -> None:
        """Closes what the run writes to, in whatever way it ended."""
        self._opened.close()

    def _commit(self) -> bool:
        """Waits for the checkpoint in progress; whether this step has one now."""
        try:
            if self._checkpoints.wait():
                self._failing = None
        except Unsaved as e:
            self._saved_step = None
            self._failed(e)
        return self._saved_step == self.ledger.steps

    def _failed(self, error: OSError | Unsaved) -> None:
        """Says that a checkpoint cannot be written; the run goes on for as long as the settings say.

        Raises:
            InputError: that time is over.
        """
        self._failing = self._failing or time.monotonic()
        left = self._patience - (time.monotonic() - self._failing)
        what = f"{self._directory} cannot be written ({error.strerror})" if isinstance(error, OSError) else str(error)
        if left <= 0:
            raise InputError(f"{what}, expected room for it; the same command goes on from the last whole checkpoint")
        self._warn(
            f"{what}; the run goes on without a checkpoint of step {self.ledger.steps}, for {left:.0f} s at most"
        )

    def _settle(self) -> None:
        """Waits for the last step, unless that was done."""
        if self._waiting is None:
            return
        with self._clock("compute"):
            self._report()
        self._read_clock()

    def _report(self) -> None:
        if self._waiting is None:
            return
        done, self._waiting = self._waiting, None
        then, recorded = done.ledger, done.ledger.steps % self._config.log.every == 0
        values = done.fetched(whole=recorded)
        if not np.isfinite(values["loss"]):
            raise Diverged(
                f"{self._directory}: the loss is {values['loss']} at step {then.steps}, expected a finite one; "
                "lower the optimizer's learning_rate or set its clip"
            )
        self._watch(Progress(then, values))
        if recorded:
            self._log.write(then.steps, self._meter.record(done, values))

    def _read_clock(self) -> None:
        seconds = self._clock.seconds
        if not self.ledger.budget.countable:  # then it decides, and processes have clocks of their own
            seconds = hosts.agreed(seconds)
        self.ledger = replace(self.ledger, seconds=seconds)


def _milestone(share: float, evaluations: int) -> int:
    """How many of the evenly spaced evaluations are due at a share of the budget."""
    return math.floor(share * evaluations + 1e-9)
