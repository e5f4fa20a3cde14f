"""The scores of a model on labelled tasks, by each protocol of the recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kdjax.config import EvaluationConfig, FinetuneConfig, ModelConfig
from kdjax.data.tasks.suite import suite_mean
from kdjax.data.tasks.task import Task
from kdjax.evaluation.finetuning import (
    FinetunedTask,
    Start,
    finetune,
    finetune_one,
    fixed_setting,
)
from kdjax.evaluation.finetuning.protocols import FinetuningProtocol
from kdjax.evaluation.probe import ProbeResult, probe
from kdjax.parallel.layout import Layout
from kdjax.results.runs import Details, LayerScore, ProbedLayers


def _nothing() -> None:
    """Do nothing."""


def _unheard(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class FinetuningRecords:
    """Where the fine-tuning of a model is kept while it goes on, and who hears of it.

    Attributes:
        directory: its PROTOCOL/TASK holds finished trials; None: they are kept nowhere.
        status: called with the protocol and the task, before a task is begun.
        finished: called when a task is finished.
    """

    directory: Path | None = None
    status: Callable[[str], None] = _unheard
    finished: Callable[[], None] = _nothing


@dataclass(frozen=True)
class TaskScores:
    """What measures models on labelled tasks: probes and fine-tuning, the same for every model.

    Attributes:
        config: protocols and their settings.
        tasks: the tasks, with their rows.
        layout: devices that models are fine-tuned on; None: all of this process.
        dtype: type that the encoder computes in while it is fine-tuned.
    """

    config: EvaluationConfig
    tasks: tuple[Task, ...] = ()
    layout: Layout | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"

    def measure(
        self,
        model: ModelConfig,
        params: Any,
        seed: int,
        finetuning: FinetuneConfig | None,
        records: FinetuningRecords = FinetuningRecords(),
    ) -> tuple[dict[str, float], Details]:
        """Measure a model on every task by every protocol.

        Args:
            model: configuration of the model.
            params: parameters of the model.
            seed: seed of the model, from which fine-tuning seeds follow.
            finetuning: settings of fine-tuning; None: the model is not fine-tuned.
            records: where fine-tuning is kept, so that it goes on after a kill.

        Returns:
            `PROTOCOL.RESULT` -> score, with the suite's mean as `PROTOCOL.SUITE` where all of its
            tasks are measured; and `PROTOCOL.TASK` -> how the score came about.
        """
        metrics: dict[str, float] = {}
        details: Details = {}
        if not self.tasks:
            return metrics, details
        for protocol in self.config.protocols:
            if protocol == "probe":
                scores, protocol_details = self._probe(model, params)
            elif finetuning is not None:
                measured = self._finetune(protocol, model, params, seed, finetuning, records)
                scores = {}
                for finetuned in measured.values():
                    scores |= finetuned.scores
                protocol_details = {**measured}
            else:
                continue
            if self.config.suite:
                mean = suite_mean(self.config.suite, scores)
                if mean is not None:
                    scores[self.config.suite] = mean
            metrics |= {f"{protocol}.{name}": score for name, score in scores.items()}
            details |= {f"{protocol}.{name}": detail for name, detail in protocol_details.items()}
        return metrics, details

    def _probe(self, model: ModelConfig, params: Any) -> tuple[dict[str, float], Details]:
        """Fit linear probes on each task; return scores and details by result."""
        scores: dict[str, float] = {}
        details: Details = {}
        for task in self.tasks:
            probed = probe(model, params, task, self.config.probe)
            scores |= probed.scores
            for result in probed.scores:
                details[result] = _probed_layers(probed, result)
        return scores, details

    def _finetune(
        self,
        protocol: FinetuningProtocol,
        model: ModelConfig,
        params: Any,
        seed: int,
        settings: FinetuneConfig,
        records: FinetuningRecords,
    ) -> dict[str, FinetunedTask]:
        """Fine-tune a model on each task by a protocol; return what came of it by task."""
        # The task that others start from comes first; results are in the order of the tasks.
        begun = sorted(self.tasks, key=lambda task: task.name != settings.intermediate)
        start: Start | None = None
        measured: dict[str, FinetunedTask] = {}
        for task in begun:
            records.status(f"fine-tuning on {task.name}, {protocol}")
            needs_start = task.name in settings.intermediate_tasks
            finetuned = finetune(
                model,
                params,
                task,
                settings,
                protocol=protocol,
                seed=seed,
                layout=self.layout,
                dtype=self.dtype,
                directory=records.directory,
                start=start if needs_start else None,
            )
            measured[task.name] = finetuned
            if task.name == settings.intermediate and self._is_used(settings):
                start = self._start(finetuned, task, model, params, seed, settings, records)
            records.finished()
        return {task.name: measured[task.name] for task in self.tasks}

    def _is_used(self, settings: FinetuneConfig) -> bool:
        """Return whether a task starts from the encoder that is tuned on the intermediate one."""
        return any(task.name in settings.intermediate_tasks for task in self.tasks)

    def _start(
        self,
        finetuned: FinetunedTask,
        task: Task,
        model: ModelConfig,
        params: Mapping[str, Any],
        seed: int,
        settings: FinetuneConfig,
        records: FinetuningRecords,
    ) -> Start:
        """Tune the encoder that other tasks start from, with the setting that its protocol chose.

        Few rows make no start: under `few_shot` it is tuned on all rows, with the fixed setting.
        """
        setting = finetuned.chosen
        if finetuned.protocol == "few_shot":
            setting = fixed_setting(task, settings, model.max_positions)
        records.status(f"fine-tuning on {task.name}, for other tasks to start from")
        trained = finetune_one(
            model,
            params,
            task,
            settings,
            setting,
            seed=seed,
            layout=self.layout,
            dtype=self.dtype,
            directory=records.directory,
        )
        return Start(task.name, trained.encoder)


def _probed_layers(probed: ProbeResult, result: str) -> ProbedLayers:
    """Return what is stored of the probes on a result's rows."""
    layers = []
    for layer in probed.layers:
        scores = {"dev": layer.selection, "test": layer.scores[result]}
        layers.append(LayerScore(layer=layer.layer, strength=layer.strength, **scores))
    return ProbedLayers(probed.layer, probed.strength, probed.last_layer[result], tuple(layers))
