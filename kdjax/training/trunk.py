"""One trunk for runs of several budgets.

Under the schedule `wsd` the steps up to the decay depend on no budget. So a run of a larger budget
goes on from where a smaller one's decay begins, and comes to what it would have come to alone, bit
for bit: parameters, ledger and curve.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils import epath

from kdjax.budget import journal
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.config import OptimizerConfig
from kdjax.errors import InputError
from kdjax.parallel import hosts
from kdjax.training.checkpoints.storage import CheckpointStorage, Restored, Unsaved
from kdjax.training.learning_rate import has_left_peak
from kdjax.training.records import metrics_log

PREFIX = "trunk/"
"""Begins the names of held-out figures that are points of a larger budget's curve alone."""
_OF_EVERY_LINE = ("step", "flops", "share")


@dataclass(frozen=True)
class TrunkSource:
    """A run of a smaller budget, whose trunk may be gone on from.

    Attributes:
        study: name of its study.
        directory: directory that its trunk is kept in, a path or gs://bucket/path.
        taken: function called with the ledger at the trunk's end when a run goes on from it.
    """

    study: str
    directory: str | Path
    taken: Callable[[Ledger], None]


@dataclass(frozen=True)
class KeptTrunk:
    """A trunk that was kept, as a run goes on from it.

    Attributes:
        study: name of the study whose run kept it.
        state: training state at its end.
        ledger: account of that run at its end.
        metrics: content of that run's metrics.jsonl up to there.
        trunk_sha256: hash of the journal's entry for it.
    """

    study: str
    state: Any
    ledger: Ledger
    metrics: str
    trunk_sha256: str


@dataclass(frozen=True)
class Trunk:
    """The trunk of a run that shares it with runs of other budgets.

    Attributes:
        directory: directory that this run's trunk is kept in, a path or gs://bucket/path.
        sources: runs of smaller budgets, the largest first.
        larger: larger budgets, whose curves have points on this run's trunk.
    """

    directory: str | Path
    sources: Sequence[TrunkSource]
    larger: Sequence[Budget]

    def keep(self, state: Any, ledger: Ledger, records: Mapping[str, str]) -> None:
        """Write the state at the trunk's end, and wait until it is whole.

        Args:
            state: the training state.
            ledger: the ledger at that step.
            records: content of the run's records, by file name.

        Raises:
            InputError: it cannot be written.
        """
        # A run that was killed comes here again; what it kept before is the same.
        directory = epath.Path(self.directory)
        if hosts.all_processes(True) and hosts.is_main_process() and directory.exists():
            directory.rmtree()
        hosts.all_processes(True)
        try:
            with CheckpointStorage(self.directory, keep=1) as storage:
                storage.save(state, ledger, records)
                storage.wait()
        except Unsaved as e:
            raise InputError(
                f"{e}, expected room for it; the same command goes on from the last whole "
                "checkpoint, if there is one"
            ) from None

    def restore(self, like: Any, warn: Callable[[str], None]) -> KeptTrunk | None:
        """Read the trunk of the largest smaller budget that kept one; None: none did.

        Args:
            like: a state as shapes with shardings.
            warn: function called with a line about each that cannot be read.
        """
        for source in self.sources:
            with CheckpointStorage(source.directory, keep=1) as storage:
                try:
                    restored = storage.restore(like)
                except InputError as e:
                    warn(f"{e}; this run pays for the steps itself")
                    continue
            if restored is not None:
                source.taken(restored.ledger)
                return _kept(source.study, restored)
        return None


def _kept(study: str, restored: Restored) -> KeptTrunk:
    """Return a trunk from what its checkpoint held."""
    entries = restored.records[journal.NAME].splitlines()
    # The entry of the trunk's end is the last that was written before it was kept.
    trunk_sha256 = json.loads(entries[-1])["sha256"]
    metrics = restored.records[metrics_log.NAME]
    return KeptTrunk(study, restored.state, restored.ledger, metrics, trunk_sha256)


def evaluation_is_due(before: float, used: float, budget: Budget, evaluations: int) -> bool:
    """Return whether a step reached one of the evaluations that are spaced evenly over a budget.

    Args:
        before: amount of it used before the step.
        used: amount of it used after the step.
        budget: the budget.
        evaluations: number of evaluations.
    """

    def reached(amount: float) -> int:
        return math.floor(amount / budget.amount * evaluations + 1e-9)

    return reached(used) > reached(before)


def trunk_steps(optimizer: OptimizerConfig, opening: Ledger, step_cost: int, steps: int) -> int:
    """Count the steps of a run's trunk: those before its decay begins.

    Args:
        optimizer: settings of the schedule.
        opening: ledger of the run before its first step.
        step_cost: what a step takes of the budget.
        steps: steps of the whole run.
    """

    def decays_after(step: int) -> bool:
        used = opening.training_used + step * step_cost
        return has_left_peak(optimizer, used / opening.training_amount)

    return bisect.bisect_left(range(steps), True, key=decays_after)


def trunk_figures(figures: Mapping[str, float]) -> dict[str, float]:
    """Return held-out figures under the names of those that are of a larger budget's curve."""
    return {f"{PREFIX}{name}": figure for name, figure in figures.items()}


def branch_metrics(metrics: str, ledger: Ledger, step_cost: int, evaluations: int) -> str:
    """Return the metrics of a trunk as those of a run that goes on from it.

    Shares are of the run's own budget, and held-out figures are points of its curve where it would
    have measured them.

    Args:
        metrics: content of the other run's metrics.jsonl, up to the trunk's end.
        ledger: ledger of the run at the trunk's end, with its own budget.
        step_cost: what a step takes of the budget.
        evaluations: number of evaluations that are spaced evenly over the budget.
    """

    def used_after(step: int) -> float:
        return ledger.used - (ledger.steps - step) * step_cost

    lines = []
    for text in metrics.splitlines():
        line = json.loads(text)
        step = line["step"]
        used = used_after(step)
        line["share"] = used / ledger.budget.amount
        if any(name.removeprefix(PREFIX) in metrics_log.CURVE for name in line):
            due = evaluation_is_due(used_after(step - 1), used, ledger.budget, evaluations)
            line = _point(line, due=due)
        lines.append(json.dumps(line, allow_nan=False) + "\n")
    return "".join(lines)


def _point(line: Mapping[str, Any], *, due: bool) -> dict[str, Any]:
    """Return a line of held-out figures, under their own names where they are due."""
    point = {name: line[name] for name in _OF_EVERY_LINE}
    figures = {}
    for name, figure in line.items():
        if name not in point:
            figures[name.removeprefix(PREFIX)] = figure
    return point | (figures if due else trunk_figures(figures))
