"""A run before its first step: what it is made of, and where its checkpoints say it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from kdjax.budget.accounting import Budget
from kdjax.budget.hardware import Peak
from kdjax.budget.ledger import Ledger
from kdjax.budget.shared_steps import SharedSteps
from kdjax.config import TrainConfig
from kdjax.data.mask_rate import MaskRate
from kdjax.parallel import hosts
from kdjax.progress import Progress
from kdjax.runtime import process_logging
from kdjax.training.checkpoints.storage import CheckpointStorage
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.records import metrics_log, run_records
from kdjax.training.records.run_records import Branch
from kdjax.training.records.sinks import About
from kdjax.training.snapshots import Snapshots
from kdjax.training.step import State
from kdjax.training.trunk import Trunk, branch_metrics


@dataclass(frozen=True, eq=False)
class RunSpec:
    """An arm under one seed, to be trained by `kdjax.training.train.train`.

    Attributes:
        compiled_phases: the arm's phases, one after another.
        budget: budget of the run.
        start: the student's starting parameters.
        seed: seed of dropout and of the objective's projections.
        config: training settings.
        directory: directory of the run: `checkpoints/`, `metrics.jsonl`, `ledger.jsonl`, and what
            else `config.log` asks for.
        upfront: FLOPs spent before the first step, by account: the run's share of what the teacher
            cost.
        mask_rate: masking rate of the run, where it changes over the budget, for its records.
        cache_bytes: size of the stored teacher outputs that it reads.
        repeats: whether text may be seen again once all of it was.
        evaluate: function that measures the student's parameters on held-out text.
        watch: function called after every step.
        phase_ended: function called after a phase's last step, before any of a later one, with the
            phase's number from 0, the student's parameters on the host and the ledger. A run that
            is resumed there calls it again.
        snapshots: numbers of words at which the student is kept; None: it is kept at the end alone.
        trunk: trunk that the run shares with runs of other budgets; None: it shares none.
        checkpoints: directory of the checkpoints, a path or gs://bucket/path; None: in `directory`.
        warn: function called with a line about what goes wrong and does not stop the run.
        about: names of study, arm and seed, for TensorBoard and trackers.
        peak: peak of a device; None: not known, and utilisation is not reported.
    """

    compiled_phases: Sequence[CompiledPhase]
    budget: Budget
    _: KW_ONLY
    start: Any
    seed: int
    config: TrainConfig
    directory: Path
    upfront: Mapping[str, int] | None = None
    mask_rate: MaskRate | None = None
    cache_bytes: int = 0
    repeats: bool = True
    evaluate: Callable[[Any], Mapping[str, float]] | None = None
    watch: Callable[[Progress], None] = lambda progress: None
    phase_ended: Callable[[int, Any, Ledger], None] | None = None
    snapshots: Snapshots | None = None
    trunk: Trunk | None = None
    checkpoints: str | Path | None = None
    warn: Callable[[str], None] = process_logging.warn
    about: About | None = None
    peak: Peak | None = None


@dataclass(eq=False)
class RestoredRun:
    """A run at the step it goes on from: its first, or that of its newest whole checkpoint.

    Attributes:
        spec: what the run is made of.
        storage: checkpoints of the run, already opened.
        state: training state at that step, until it is taken.
        ledger: what the run has spent by that step.
        damaged: newer checkpoints that could not be read: what is wrong with each.
        branch: how it goes on from another run's trunk; None: from its own start or checkpoint.
    """

    spec: RunSpec
    storage: CheckpointStorage
    state: State
    ledger: Ledger
    damaged: list[str]
    branch: Branch | None = None

    def take_state(self) -> State:
        """Return the state and drop this reference to it, so that its memory can be freed."""
        state = self.state
        del self.state
        return state


@contextmanager
def restored_run(spec: RunSpec) -> Iterator[RestoredRun]:
    """Open a run's checkpoints and yield the run at the newest of them, or at its start.

    Leaving waits for the checkpoint in progress and closes them.

    Raises:
        InputError: all checkpoints are damaged.
    """
    directory = spec.checkpoints or hosts.shared_dir(spec.directory / "checkpoints")
    program = spec.compiled_phases[0].program
    with CheckpointStorage(directory, spec.config.checkpoint.keep) as storage:
        checkpoint = storage.restore(program.abstract_state())
        if checkpoint is None:
            phases = len(spec.compiled_phases)
            ledger = Ledger.open(spec.budget, phases, spec.upfront, spec.cache_bytes)
            yield _branched(spec, storage, ledger) or RestoredRun(
                spec, storage, program.start(spec.start, spec.seed), ledger, []
            )
            return

        # Journal and metrics go back to the checkpoint's step, as the ledger does.
        ledger = checkpoint.ledger
        run_records.restore(spec.directory, checkpoint.records)
        if checkpoint.damaged:
            damaged = "; ".join(checkpoint.damaged)
            spec.warn(f"{damaged}; going on from the one of step {ledger.steps}")
        yield RestoredRun(spec, storage, checkpoint.state, ledger, checkpoint.damaged)


def _branched(spec: RunSpec, storage: CheckpointStorage, opening: Ledger) -> RestoredRun | None:
    """Return a run that goes on from the trunk of a smaller budget; None: there is none.

    Args:
        spec: what the run is made of.
        storage: checkpoints of the run; there are none yet.
        opening: ledger of the run before its first step.
    """
    if spec.trunk is None:
        return None
    compiled = spec.compiled_phases[0]
    restored = spec.trunk.restore(compiled.program.abstract_state(), spec.warn)
    if restored is None:
        return None
    # The account so far is that of the same run made alone, held against its own budget.
    ledger = replace(restored.ledger, budget=spec.budget)
    tokens_per_step = compiled.program.batch_shape.tokens_per_step
    step_cost = spec.budget.step_cost(compiled.price, tokens_per_step)
    metrics = branch_metrics(restored.metrics, ledger, step_cost, spec.config.evaluations)
    run_records.restore(spec.directory, {metrics_log.NAME: metrics})
    shared = SharedSteps.from_ledger(restored.study, ledger, restored.trunk_sha256)
    return RestoredRun(spec, storage, restored.state, ledger, [], Branch(opening, shared))
