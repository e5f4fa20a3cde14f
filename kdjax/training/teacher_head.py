"""Teachers: fitting an MLM head on an encoder that comes without one, and saying what it cost."""

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
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.input_pipeline import Stream
from kdjax.training.phase import BatchShape, Phase, price
from kdjax.training.program import program_of
from kdjax.training.train import train
from kdjax.training.trainer import Trainer


def head_phase(architecture: ModelConfig, config: HeadConfig) -> Phase:
    """Return the phase that fits a head on an encoder: masked language modelling."""
    mlm = objectives_of("scratch", arm_of("scratch", ArmConfig()))[0]
    return Phase(
        "teacher",
        architecture,
        teacher=None,
        teacher_source=None,
        objective=mlm,
        optimizer=config.optimizer,
        frozen_encoder=config.encoder == "frozen",
    )


def fit_head(
    encoder: Model,
    config: HeadConfig,
    shape: BatchShape,
    stream: Stream,
    *,
    directory: Path,
    layout: Layout,
    evaluate: Callable[[Any], Mapping[str, float]],
    watch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Model, Ledger]:
    """Fits an MLM head under its own FLOP budget; resumable like any run.

    Args:
        encoder: an encoder; a head it has already is where the fit starts.
        config: budget, optimiser, and whether the encoder is trained too.
        shape: of a batch.
        stream: the training batches.
        directory: of the fit: its checkpoints and metrics.
        layout: of the devices.
        evaluate: figures on held-out text from the whole teacher's parameters.
        watch: told after every step.

    Returns:
        The teacher with its head, and what the fit spent.

    Raises:
        InputError: the budget is smaller than one step, or the loss is not finite.
    """
    body = {name: params for name, params in encoder.params.items() if name != "mlm"}
    head = {"mlm": encoder.params.get("mlm") or init_mlm_head(encoder.config, seed=0)}
    frozen = config.encoder == "frozen"
    phase = head_phase(encoder.config, config)
    budget = Budget.flops(config.budget)
    cost = price(phase, shape)
    schedule_phases(budget, [(1.0, cost)], shape.tokens_per_step, setting="teacher.head.budget")
    program = program_of(phase, shape, layout)

    def whole(params: Any) -> Any:
        return {**body, **params} if frozen else params

    (outcome,) = train(
        Trainer(
            [CompiledPhase(phase, program, cost, stream, program.place_teacher(body))],
            budget,
            start=head if frozen else {**body, **head},
            seed=0,
            config=TrainConfig(batch_size=shape.batch_size, optimizer=config.optimizer),
            directory=directory,
            evaluate=lambda params: evaluate(whole(params)),
            watch=watch,
        )
    )
    return Model(encoder.config, whole(outcome.params)), outcome.ledger
