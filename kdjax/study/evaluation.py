"""What every model of a study is measured by: the same held-out masks, probes and fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdjax.config import EvaluationConfig, ModelConfig
from kdjax.data.tasks import Task
from kdjax.evaluate.finetune import finetune
from kdjax.evaluate.mlm import held_out_loss
from kdjax.evaluate.probe import probe


@dataclass(frozen=True)
class Evaluation:
    """Measures a model; the endpoints are named `mlm_loss`, `probe.TASK` and `finetune.TASK`.

    Attributes:
        config: the recipe's settings.
        held_out: batches of held-out sequences with fixed masks.
        tasks: the downstream tasks.
    """

    config: EvaluationConfig
    held_out: list[dict[str, Any]]
    tasks: tuple[Task, ...]

    def measure(
        self, model: ModelConfig, params: Any, seed: int, *, mlm: bool, tuned: bool = True
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Endpoints by name, and details of how they came about.

        Args:
            model: its configuration.
            params: its parameters.
            seed: of fine-tuning: its head, order and dropout.
            mlm: whether its MLM head was trained, so that the held-out loss means something.
            tuned: whether it is fine-tuned as well.
        """
        metrics: dict[str, float] = {}
        details: dict[str, Any] = {}
        if mlm:
            result = held_out_loss(model, params, self.held_out)
            metrics["mlm_loss"] = result.loss
            details["mlm_loss"] = {"accuracy": result.accuracy, "positions": result.count}
        for task in self.tasks:
            probed = probe(model, params, task, self.config.probe)
            metrics[f"probe.{task.name}"] = probed.test
            details[f"probe.{task.name}"] = {
                "layer": probed.layer,
                "strength": probed.strength,
                "last_layer": probed.last_layer,
                "layers": [vars(layer) for layer in probed.layers],
            }
            if tuned and self.config.finetune.steps:
                metrics[f"finetune.{task.name}"] = finetune(model, params, task, self.config.finetune, seed=seed).test
        return metrics, details
