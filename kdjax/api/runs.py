"""Runs: an arm trained, a model measured and saved."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdjax.api.arms import ArmWithModels, check_vocabulary
from kdjax.api.text import PreparedText
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.config import Config, EvaluationConfig, MlmProbeConfig, TrainConfig
from kdjax.errors import InputError
from kdjax.evaluation.mlm import HeldOut
from kdjax.models import Model, save_pretrained
from kdjax.parallel.layout import Layout
from kdjax.progress import Progress
from kdjax.storage import locks
from kdjax.storage.paths import local_path
from kdjax.study.batches import held_out_batches
from kdjax.study.measures.evaluation import Evaluation, mlm_probe_of
from kdjax.study.measures.task_scores import TaskScores
from kdjax.study.runs.arm_run import arm_run
from kdjax.study.runs.compiled_arm import compile_arm
from kdjax.training.phase import BatchShape
from kdjax.training.phase_price import price as phase_price
from kdjax.training.run_mask_rate import run_mask_rate
from kdjax.training.train import train as train_runs


@dataclass(frozen=True)
class TrainedRun:
    """A run that has spent its budget.

    Attributes:
        arm: arm that was trained.
        params: the student's final parameters, on the host.
        ledger: account of what was spent, by part.
        curve: figures along the budget: step, flops, share of the budget, mlm_loss.
    """

    arm: ArmWithModels
    params: Any
    ledger: Ledger
    curve: list[dict[str, float]]

    @property
    def model(self) -> Model:
        """Return the trained student."""
        return Model(self.arm.student.config, self.params)


def train(
    arm: ArmWithModels,
    data: PreparedText,
    budget: Budget,
    *,
    batch_size: int = 32,
    seed: int = 0,
    out: str | Path | None = None,
    settings: TrainConfig = TrainConfig(),
    watch: Callable[[Progress], None] = lambda progress: None,
) -> TrainedRun:
    """Train one arm until its budget is spent.

    Args:
        arm: arm to train, with its student and its teacher.
        data: text to train on; repeated where the budget outlasts it.
        budget: amount to spend; never overspent, and underspent by less than one step.
        batch_size: sequences of a step.
        seed: random seed of the data order, masks, dropout and the objective's projections.
        out: the run's directory, with ledger.jsonl, metrics.jsonl and checkpoints, in which a call
            that was interrupted goes on; None: a temporary one.
        settings: settings for computing, saving and logging. The batch is `batch_size`, the
            optimiser the arm's.
        watch: function called after every step with the ledger and the step's losses.

    Raises:
        Diverged: the loss is not finite.
        InputError: data that do not fit the models, or a budget below one step.

    Example:
        >>> run = kdjax.train(arm, data, kdjax.tokens(200), batch_size=8)
        >>> ledger = run.ledger
        >>> ledger.steps, ledger.padded_tokens  # a third step of 8 x 12 tokens would not fit
        (2, 192)
    """
    if out is not None:
        out = local_path(out, "out")
    settings = replace(settings, batch_size=batch_size)
    layout = Layout.from_config(settings.mesh)
    batch_shape = BatchShape(batch_size, data.settings.seq_len, data.settings.max_predictions)
    check_vocabulary(arm, data)

    definition = arm.definition.ramped(settings.batch_ramp)
    prices = []
    for phase in definition.phases:
        phase_shape = phase.batch_shape(batch_shape)
        prices.append(phase_price(phase, phase_shape))
    # A budget that does not afford one step of each phase is refused before anything is written.
    spans = definition.schedule_phases(budget, prices, batch_shape) if budget.countable else ()
    masking = run_mask_rate(data.settings, budget, spans)

    # Compile each phase, and place the teacher on the devices.
    config = replace(_recipe(data), train=settings)
    compiled_phases = compile_arm(
        definition,
        prices,
        batch_shape,
        [seed],
        config=config,
        corpus=data.corpus,
        layout=layout,
        teacher_params=arm.teacher.params if arm.teacher else None,
        mask_rate=masking,
    )

    with ExitStack() as stack:
        if out is None:
            out = stack.enter_context(tempfile.TemporaryDirectory(prefix="kdjax-"))
        stack.enter_context(locks.hold(out))
        spec = arm_run(
            definition,
            seed,
            compiled_phases[seed],
            config=config,
            budget=budget,
            evaluation=Evaluation(
                config.evaluation, _held_out(data, sequences=256), TaskScores(config.evaluation)
            ),
            start=arm.student.params,
            directory=Path(out),
            mask_rate=masking,
            watch=watch,
        )
        (outcome,) = train_runs(spec)
        outcome.require_finite()
    return TrainedRun(arm, outcome.params, outcome.ledger, outcome.curve)


def evaluate(
    run: TrainedRun | Model,
    data: PreparedText,
    *,
    sequences: int = 256,
    mlm_probe: MlmProbeConfig = MlmProbeConfig(),
) -> dict[str, float]:
    """Measure a model on held-out text with fixed masks.

    Args:
        run: a trained run, or a model.
        data: text whose validation split is measured; an MLM probe is fitted on its training split.
        sequences: held-out sequences, at most.
        mlm_probe: the probe's settings; without tokens there is none.

    Returns:
        `mlm_loss` and `mlm_accuracy` of the model's own head, in nats and as a share, where it has
        one that was trained; `mlm_probe`, the loss of a fresh head on the frozen model, where
        `mlm_probe.tokens` is set.

    Raises:
        InputError: no held-out text, a result that is not finite, or nothing to measure: no trained
            head and no probe.

    Example:
        >>> sorted(kdjax.evaluate(run, data))
        ['mlm_accuracy', 'mlm_loss']
    """
    if isinstance(run, Model):
        model = run
        has_head = "mlm" in model.params
    else:
        model = run.model
        has_head = run.arm.definition.trains_mlm_head
    if not has_head and not mlm_probe.tokens:
        raise InputError(
            "the model has no trained MLM head and mlm_probe.tokens is 0, expected tokens for a "
            "probe, for instance mlm_probe=kdjax.config.MlmProbeConfig(tokens=3e5)"
        )
    held_out = _held_out(data, sequences)
    figures: dict[str, float] = {}
    if has_head:
        result = held_out.measure(model.config, model.params)
        figures["mlm_loss"] = result.loss
        figures["mlm_accuracy"] = result.accuracy
    probe = mlm_probe_of(_recipe(data, mlm_probe=mlm_probe), data.corpus)
    if probe is not None:
        fitted = probe.fit(model.config, model.params)
        figures["mlm_probe"] = fitted.measure(held_out).loss
    return figures


def save(
    run: TrainedRun | Model,
    directory: str | Path,
    data: PreparedText | None = None,
    *,
    for_transformers: bool = False,
) -> None:
    """Write a directory that `kdjax.models.from_pretrained` reads.

    transformers reads it too, where it has a class of this architecture.

    Args:
        run: a trained run, or a model.
        directory: new, empty, or written by this function before.
        data: the text it was trained on, whose tokenizer is put beside the weights.
        for_transformers: whether a model that no class of transformers computes is refused, with
            the nearest class and what differs.

    Raises:
        InputError: a directory that holds other files or cannot be written, or a model that is
            refused.

    Example:
        >>> kdjax.save(run, "trained", data)
        >>> kdjax.models.from_pretrained("trained").config == run.model.config
        True
    """
    model = run.model if isinstance(run, TrainedRun) else run
    tokenizer = data.tokenizer if data else None
    save_pretrained(model, directory, tokenizer=tokenizer, for_transformers=for_transformers)


def _recipe(
    data: PreparedText, sequences: int = 256, mlm_probe: MlmProbeConfig = MlmProbeConfig()
) -> Config:
    """Return the settings by which a study would read this text."""
    evaluation = EvaluationConfig(mlm_sequences=sequences, mlm_probe=mlm_probe)
    return Config(data=data.settings, train=TrainConfig(batch_size=32), evaluation=evaluation)


def _held_out(data: PreparedText, sequences: int) -> HeldOut:
    """Read the held-out sequences with the masks that they have in every study."""
    return HeldOut(held_out_batches(_recipe(data, sequences), data.corpus))
