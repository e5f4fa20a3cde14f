"""A run's row of `results.json`: what it spent, phase by phase and in all, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdjax.data.corpus import Corpus
from kdjax.results.runs import Details, Divergence, RunPhase, RunResult
from kdjax.study.machine import hardware_use
from kdjax.study.measures.evaluation import Metrics
from kdjax.study.study_plan import StudyPlan
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.outcome import Outcome


@dataclass(frozen=True)
class RunMeasures:
    """What was measured of a run that was trained.

    Attributes:
        metrics: endpoint -> value; empty for a run that diverged.
        details: how the scores on tasks came about.
        diverged: why the run came to nothing, in training or in its evaluation; None: it did not.
        wall_clock: kind of work -> seconds, those of measuring included.
    """

    metrics: Metrics
    details: Details
    diverged: str | None
    wall_clock: dict[str, float]


def run_row(
    plan: StudyPlan,
    corpus: Corpus,
    run: tuple[str, int],
    compiled_phases: Sequence[CompiledPhase],
    outcome: Outcome,
    measures: RunMeasures,
) -> RunResult:
    """Return a run's row of `results.json`.

    Args:
        plan: plan of the study.
        corpus: text that the run read.
        run: its arm and its seed.
        compiled_phases: its phases, in their order.
        outcome: what training came to.
        measures: what was measured then.
    """
    # What each phase did, and the step that diverged, if one has
    arm, seed = run
    ledger = outcome.ledger
    phases = []
    for steps, compiled_phase in zip(ledger.steps_by_phase, compiled_phases, strict=True):
        flops = steps * compiled_phase.price.total
        batch_size = compiled_phase.program.batch_shape.batch_size
        phases.append(RunPhase(steps, batch_size, flops))
    divergence = None
    if measures.diverged is not None:
        divergence = Divergence(ledger.steps, measures.diverged)

    # The ledger says what was spent; all else was measured or counted beside it.
    return RunResult(
        arm=arm,
        seed=seed,
        budget=plan.budget,
        used=ledger.used,
        spent={
            **ledger.spent,
            "total": sum(ledger.spent.values()),
            "charged": ledger.charged_flops,
        },
        cache_bytes=ledger.cache_bytes,
        steps=ledger.steps,
        phases=tuple(phases),
        padded_tokens=ledger.padded_tokens,
        tokens_seen=ledger.tokens,
        tokens_unique=ledger.unique_tokens,
        tokens_masked=ledger.masked_tokens,
        epochs=ledger.padded_tokens / plan.batch_shape.seq_len / corpus.sequences("train"),
        wall_clock=measures.wall_clock,
        hardware=hardware_use(compiled_phases, ledger, outcome.side_by_side),
        metrics=measures.metrics,
        details=measures.details,
        curve=tuple(outcome.curve),
        params_sha256=outcome.params_sha256,
        ledger_sha256=outcome.journal_sha256,
        diverged=divergence,
        words_seen=corpus.manifest.words_in(ledger.tokens),
        shared=outcome.shared,
    )
