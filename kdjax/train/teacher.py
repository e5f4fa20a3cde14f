"""Teachers: fitting an MLM head on an encoder that comes without one, and saying what it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from kdjax.budget.ledger import Ledger, affordable_steps
from kdjax.config import ArmConfig, HeadConfig, ModelConfig, TrainConfig
from kdjax.models import Model, abstract_params, forward, init_mlm_head
from kdjax.models.features import Features
from kdjax.objectives.presets import objective_of
from kdjax.train.arm import Arm, Program, Shape, price
from kdjax.train.loop import Progress, Stream, train


@dataclass(frozen=True)
class HeadOnFrozenEncoder(Arm):
    """An arm that trains an MLM head alone; the encoder below it is given to the step and not trained."""

    def see(self, params: Any, teacher_params: Any, batch: Any, dropout_key: jax.Array | None) -> Features:
        """The logits of the head on the frozen encoder."""
        whole = {**jax.lax.stop_gradient(teacher_params), "mlm": params["mlm"]}
        return forward(self.student, whole, batch, self._needs.student, dropout_key=dropout_key)

    def abstract_model(self) -> Any:
        """The head, as shapes."""
        return {"mlm": abstract_params(self.student)["mlm"]}

    def abstract_teacher(self) -> Any:
        """The encoder, as shapes."""
        return abstract_params(self.student, mlm=False)


def head_arm(architecture: ModelConfig, config: HeadConfig) -> Arm:
    """The arm that fits a head on an encoder of this architecture."""
    kind = HeadOnFrozenEncoder if config.encoder == "frozen" else Arm
    return kind("teacher", architecture, None, objective_of("scratch", ArmConfig()), config.optimizer)


def fit_head(
    encoder: Model,
    config: HeadConfig,
    shape: Shape,
    stream: Stream,
    *,
    directory: Path,
    mesh: Mesh,
    evaluate: Callable[[Any], float],
    watch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Model, Ledger]:
    """Fits an MLM head under its own FLOP budget; resumable like any run.

    Args:
        encoder: an encoder; a head it has already is where the fit starts.
        config: budget, optimiser, and whether the encoder is trained too.
        shape: of a batch.
        stream: the training batches.
        directory: of the fit: its checkpoints and metrics.
        mesh: the devices.
        evaluate: held-out loss of the whole teacher's parameters.
        watch: told after every step.

    Returns:
        The teacher with its head, and what the fit spent.

    Raises:
        InputError: the budget is smaller than one step, or the loss is not finite.
    """
    body = {name: params for name, params in encoder.params.items() if name != "mlm"}
    head = {"mlm": encoder.params.get("mlm") or init_mlm_head(encoder.config, seed=0)}
    frozen = config.encoder == "frozen"
    arm = head_arm(encoder.config, config)
    cost, budget = price(arm, shape), int(config.budget)
    program = Program(arm, shape, affordable_steps(budget, cost, "teacher.head.budget"), mesh)

    def whole(params: Any) -> Any:
        return {**body, **params} if frozen else params

    outcome = train(
        program,
        cost,
        budget,
        stream,
        start=head if frozen else {**body, **head},
        teacher=program.place_teacher(body),
        seed=0,
        config=TrainConfig(batch=shape.batch, optimizer=config.optimizer),
        directory=directory,
        evaluate=lambda params: evaluate(whole(params)),
        watch=watch,
    )
    return Model(encoder.config, whole(outcome.params)), outcome.ledger
