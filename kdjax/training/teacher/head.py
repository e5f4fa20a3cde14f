"""Fitting an MLM head on a teacher that comes without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger, schedule_phases
from kdjax.config import ArmConfig, HeadConfig, ModelConfig, TrainConfig
from kdjax.models import Model, init_mlm_head
from kdjax.objectives.presets import arm_of, objectives_of
from kdjax.parallel.layout import Layout
from kdjax.progress import Progress
from kdjax.training.compiled_phase import compile_phase
from kdjax.training.input_pipeline import Stream
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.phase_price import price
from kdjax.training.run_spec import RunSpec
from kdjax.training.train import train


def head_phase(architecture: ModelConfig, config: HeadConfig) -> Phase:
    """Return the phase that fits a head on an encoder: masked language modelling."""
    mlm = objectives_of("scratch", arm_of("scratch", ArmConfig()))[0]
    return Phase(
        "teacher",
        architecture,
        teacher_config=None,
        teacher_source=None,
        objective=mlm,
        optimizer=config.optimizer,
        frozen_encoder=config.encoder == "frozen",
    )


def fit_head(
    encoder: Model,
    config: HeadConfig,
    batch_shape: BatchShape,
    stream: Stream,
    *,
    directory: Path,
    layout: Layout,
    evaluate: Callable[[Any], Mapping[str, float]],
    watch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Model, Ledger]:
    """Fit an MLM head under its own FLOP budget; resumable like any run.

    Args:
        encoder: an encoder; a head it has already is where the fit starts.
        config: budget, optimiser, and whether the encoder is trained too.
        batch_shape: shape of a batch.
        stream: training batches.
        directory: directory of the fit's checkpoints and metrics.
        layout: layout of the devices.
        evaluate: function that measures the whole teacher's parameters on held-out text.
        watch: function called after every step.

    Returns:
        The teacher with its head, and the ledger of the fit.

    Raises:
        InputError: the budget is smaller than one step, or the loss is not finite.
    """
    head = encoder.params.get("mlm") or init_mlm_head(encoder.config, seed=0)
    phase = head_phase(encoder.config, config)

    # A budget below one step is refused before anything is compiled.
    budget = Budget.flops(config.budget)
    cost = price(phase, batch_shape)
    schedule_phases(
        budget, [(1.0, cost)], batch_shape.tokens_per_step, setting="teacher.head.budget"
    )
    settings = TrainConfig(batch_size=batch_shape.batch_size, optimizer=config.optimizer)
    spec = RunSpec(
        compile_phase(phase, cost, batch_shape, [stream], layout, settings),
        budget,
        start={**encoder.params, "mlm": head},
        seed=0,
        config=settings,
        directory=directory,
        evaluate=evaluate,
        watch=watch,
    )
    (outcome,) = train(spec)
    outcome.require_finite()
    return Model(encoder.config, outcome.params), outcome.ledger
