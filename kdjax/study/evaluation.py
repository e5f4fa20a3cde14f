"""What every model of a study is measured by: the same held-out masks, probes and fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdjax.config import EvaluationConfig, FinetuneConfig, ModelConfig
from kdjax.data.tasks import Task
from kdjax.evaluate.finetune import finetune
from kdjax.evaluate.mlm import HeldOut
from kdjax.evaluate.probe import probe


@dataclass(frozen=True)
class Evaluation:
    """Measures a model; the endpoints are named `mlm_loss`, `probe.TASK` and `finetune.TASK`.

    Attributes:
        config: the recipe's settings.
        held_out: held-out sequences with fixed masks, and what the teacher says of them.
        tasks: the downstream tasks.
    """

    config: EvaluationConfig
    held_out: HeldOut
    tasks: tuple[Task, ...]

    def along_the_way(self, model: ModelConfig, params: Any, *, mlm: bool) -> dict[str, float]:
        """Figures for the learning curve: the teacher's held-out loss; if `mlm` the student's, and how far it is off.

        `teacher_kl` is at temperature 1, whatever the objective's.
        """
        teacher = self.held_out.teacher
        figures = {} if teacher is None else {"teacher_mlm_loss": teacher.loss}
        if mlm:
            result = self.held_out.measure(model, params)
            figures["mlm_loss"] = result.loss
            if result.kl is not None and result.agreement is not None:
                figures |= {"teacher_kl": result.kl, "teacher_agreement": result.agreement}
        return figures

    def measure(
        self, model: ModelConfig, params: Any, seed: int, *, mlm: bool, finetuning: FinetuneConfig | None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Endpoints by name, and details of how they came about.

        Args:
            model: its configuration.
            params: its parameters.
            seed: of fine-tuning: its head, order and dropout.
            mlm: whether its MLM head was trained, so that the held-out loss means something.
            finetuning: how it is fine-tuned as well; None: not at all.
        """
        metrics: dict[str, float] = {}
        details: dict[str, Any] = {}
        if mlm:
            result = self.held_out.measure(model, params)
            metrics["mlm_loss"] = result.loss
            details["mlm_loss"] = {
                "accuracy": result.accuracy,
                "positions": result.count,
                "teacher_kl": result.kl,
                "teacher_agreement": result.agreement,
            }
        for task in self.tasks:
            probed = probe(model, params, task, self.config.probe)
            metrics[f"probe.{task.name}"] = probed.test
            details[f"probe.{task.name}"] = {
                "layer": probed.layer,
                "strength": probed.strength,
                "last_layer": probed.last_layer,
                "layers": [vars(layer) for layer in probed.layers],
            }
            if finetuning is not None and finetuning.steps:
                metrics[f"finetune.{task.name}"] = finetune(model, params, task, finetuning, seed=seed).test
        return metrics, details
