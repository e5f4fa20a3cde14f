"""Teachers: fitting an MLM head on an encoder that comes without one, and saying what it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger, schedule_phases
from kdjax.config import ArmConfig, ComputeConfig, HeadConfig, ModelConfig, TrainConfig
from kdjax.models import Model, abstract_params, forward, init_mlm_head
from kdjax.models.features import Features
from kdjax.objectives.presets import arm_of, objectives_of
from kdjax.parallel.layout import Layout
from kdjax.progress import Progress
from kdjax.training.input_pipeline import Stream
from kdjax.training.loop import train
from kdjax.training.phase import BatchShape, Phase, price
from kdjax.training.program import program_of
from kdjax.training.run import CompiledPhase, Run
from kdjax.training.teacher_source import NoTeacher


@dataclass(frozen=True)
class HeadOnFrozenEncoder(Phase):
    """A phase that trains an MLM head alone; the encoder below it is given to the step and not
    trained."""

    def student_features(
        self,
        params: Any,
        teacher_params: Any,
        batch: Any,
        dropout_key: jax.Array | None,
        compute: ComputeConfig = ComputeConfig(),
    ) -> Features:
        """The logits of the head on the frozen encoder."""
        whole = {**jax.lax.stop_gradient(teacher_params), "mlm": params["mlm"]}
        return forward(
            self.student, whole, batch, self.needs.student, dropout_key=dropout_key, compute=compute
        )

    def abstract_model(self) -> Any:
        """The head, as shapes."""
        return {"mlm": abstract_params(self.student)["mlm"]}

    def abstract_teacher(self) -> Any:
        """The encoder, as shapes."""
        return abstract_params(self.student, mlm=False)


def head_phase(architecture: ModelConfig, config: HeadConfig) -> Phase:
    """What fits a head on an encoder of this architecture: masked language modelling."""
    kind = HeadOnFrozenEncoder if config.encoder == "frozen" else Phase
    (mlm,) = objectives_of("scratch", arm_of("scratch", ArmConfig()))
    return kind("teacher", architecture, None, NoTeacher(), mlm, config.optimizer)


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
        Run(
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
