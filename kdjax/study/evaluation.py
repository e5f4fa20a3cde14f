"""What every model of a study is measured by: the same held-out masks, probes and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdjax.config import EvaluationConfig, FinetuneConfig, ModelConfig
from kdjax.data.tasks.labelled import Task
from kdjax.evaluation.finetune import finetune
from kdjax.evaluation.mlm import HeldOut, MlmResult
from kdjax.evaluation.mlm_probe import FittedProbe, MlmProbe
from kdjax.evaluation.probe import probe

Metrics = dict[str, float]
Details = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """Measures a model; the endpoints are named `mlm_loss`, `mlm_probe`, `probe.TASK` and
    `finetune.TASK`.

    On a text from elsewhere, the first two are `mlm_loss.TEXT` and `mlm_probe.TEXT`.

    Attributes:
        config: the recipe's settings.
        held_out: held-out sequences with fixed masks, and what the teacher says of them.
        tasks: the downstream tasks.
        texts: name -> held-out text from elsewhere, with fixed masks.
        mlm_probe: the MLM probe; None: there is none.
    """

    config: EvaluationConfig
    held_out: HeldOut
    tasks: tuple[Task, ...]
    texts: Mapping[str, HeldOut] = field(default_factory=dict)
    mlm_probe: MlmProbe | None = None

    def along_the_way(self, model: ModelConfig, params: Any, *, mlm: bool) -> dict[str, float]:
        """Figures for the learning curve: the teacher's held-out loss; if `mlm` the student's, and
        how far it is off.

        `teacher_kl` is at temperature 1, whatever the objective's. `mlm_probe` is there where the
        recipe has it measured along the way.
        """
        teacher = self.held_out.teacher
        figures = {} if teacher is None else {"teacher_mlm_loss": teacher.loss}
        if mlm:
            result = self.held_out.measure(model, params)
            figures["mlm_loss"] = result.loss
            if result.kl is not None and result.agreement is not None:
                figures |= {"teacher_kl": result.kl, "teacher_agreement": result.agreement}
        if self.mlm_probe is not None and self.mlm_probe.settings.along_the_way:
            figures["mlm_probe"] = self.mlm_probe.fit(model, params).measure(self.held_out).loss
        return figures

    def measure(
        self,
        model: ModelConfig,
        params: Any,
        seed: int,
        *,
        mlm: bool,
        finetuning: FinetuneConfig | None,
    ) -> tuple[Metrics, Details]:
        """Endpoints by name, and details of how they came about.

        Args:
            model: its configuration.
            params: its parameters.
            seed: of fine-tuning: its head, order and dropout.
            mlm: whether its MLM head was trained, so that the held-out loss means something.
            finetuning: how it is fine-tuned as well; None: not at all.
        """
        metrics: Metrics = {}
        details: Details = {}
        # Held-out loss of the model's own head, on the study's text and on others.
        if mlm:
            for name, held_out in self._named("mlm_loss").items():
                result = held_out.measure(model, params)
                metrics[name] = result.loss
                details[name] = {
                    **_common(result),
                    "teacher_kl": result.kl,
                    "teacher_agreement": result.agreement,
                }
                if held_out.shuffled is not None:
                    details[name]["shuffled"] = held_out.shuffled.measure(model, params).loss
        # The same of a fresh head that every model gets.
        if self.mlm_probe is not None:
            fitted = self.mlm_probe.fit(model, params)
            for name, held_out in self._named("mlm_probe").items():
                result = fitted.measure(held_out)
                metrics[name] = result.loss
                details[name] = _common(result)
                if held_out.shuffled is not None:
                    details[name]["shuffled"] = fitted.measure(held_out.shuffled).loss
            details["mlm_probe"] |= self._fit_details(self.mlm_probe, model, fitted, metrics)
        # The downstream tasks.
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
                metrics[f"finetune.{task.name}"] = finetune(
                    model, params, task, finetuning, seed=seed
                ).test
        return metrics, details

    def _named(self, endpoint: str) -> dict[str, HeldOut]:
        """The endpoint's name on each text -> the text."""
        texts = {f"{endpoint}.{name}": held_out for name, held_out in self.texts.items()}
        return {endpoint: self.held_out, **texts}

    def _fit_details(
        self, probe: MlmProbe, model: ModelConfig, fitted: FittedProbe, metrics: Metrics
    ) -> Details:
        """How a probe came about, and whether more tokens would lower its loss."""
        half = fitted.measure(self.held_out, half=True).loss
        gain = half - metrics["mlm_probe"]
        cost = probe.cost(model)
        return {
            "half": half,
            "gain": gain,
            "tolerance": probe.settings.tolerance,
            "converged": gain <= probe.settings.tolerance,
            "tokens": cost.steps * probe.shape.tokens_per_step,
            "steps": cost.steps,
            "flops": cost.total,
            "layer_weights": fitted.layer_weights,
            "curve": fitted.curve(probe.shape.tokens_per_step),
        }


def _common(result: MlmResult) -> Details:
    """What is known of a held-out loss, whichever head it is of."""
    return {"accuracy": result.accuracy, "positions": result.count}
