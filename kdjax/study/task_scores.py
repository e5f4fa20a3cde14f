"""The scores of a model on labelled tasks, by each protocol of the recipe."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.config import Dtype, EvaluationConfig, FinetuneConfig, ModelConfig
from kdjax.data.tasks.suite import suite_mean
from kdjax.data.tasks.task import Task
from kdjax.errors import counted
from kdjax.evaluation.finetuning import (
    FinetunedTask,
    TunedEncoder,
    finetune,
    tuned_start,
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
    """The records of a model's fine-tuning: its directory, and callbacks on its progress.

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
    """The measurement of models on labelled tasks, the same for every model: probes, fine-tuning.

    Attributes:
        config: protocols and their settings.
        tasks: the tasks, with their rows.
        layout: devices that models are fine-tuned on; None: the first one of this process.
        dtype: type that the encoder computes in while it is fine-tuned.
    """

    config: EvaluationConfig
    tasks: tuple[Task, ...] = ()
    layout: Layout | None = None
    dtype: Dtype = "float32"

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
        # All protocols that fine-tune start from the same encoders.
        start = None
        if finetuning is not None and self._needs_start(finetuning):
            start = self._start(model, params, seed, finetuning, records)
        for protocol in self.config.protocols:
            if protocol == "probe":
                scores, protocol_details = self._probe(model, params, records)
            elif finetuning is not None:
                measured = self._finetune(protocol, model, params, seed, finetuning, records, start)
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

    def _probe(
        self, model: ModelConfig, params: Any, records: FinetuningRecords
    ) -> tuple[dict[str, float], Details]:
        """Fit linear probes on each task; return scores and details by result."""
        scores: dict[str, float] = {}
        details: Details = {}
        for task in self.tasks:
            records.status(f"linear probes on {task.name}")
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
        start: TunedEncoder | None,
    ) -> dict[str, FinetunedTask]:
        """Fine-tune a model on each task by a protocol; return what came of it by task."""
        measured = {}
        for task in self.tasks:
            name = f"fine-tuning on {task.name}, {protocol}"
            needs_start = task.name in settings.intermediate_tasks
            measured[task.name] = finetune(
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
                show=functools.partial(_show_trials, records, name),
            )
            records.finished()
        return measured

    def _needs_start(self, settings: FinetuneConfig) -> bool:
        """Return whether a task is fine-tuned from the encoder of the intermediate one."""
        if not settings.intermediate or set(self.config.protocols) <= {"probe"}:
            return False
        return any(task.name in settings.intermediate_tasks for task in self.tasks)

    def _start(
        self,
        model: ModelConfig,
        params: Mapping[str, Any],
        seed: int,
        settings: FinetuneConfig,
        records: FinetuningRecords,
    ) -> TunedEncoder:
        """Tune the encoder that some tasks start from, or read it where it was kept."""
        task = next(task for task in self.tasks if task.name == settings.intermediate)
        records.status(f"fine-tuning on {task.name}, for other tasks to start from")
        return tuned_start(
            model,
            params,
            task,
            settings,
            seed=seed,
            layout=self.layout,
            dtype=self.dtype,
            directory=records.directory,
        )


def _show_trials(records: FinetuningRecords, name: str, done: int, count: int) -> None:
    """Say how many trials of a task are done."""
    records.status(f"{name}, {done:,} of {counted(count, 'trial')} done")


def _probed_layers(probed: ProbeResult, result: str) -> ProbedLayers:
    """Return what is stored of the probes on a result's rows."""
    layers = []
    for layer in probed.layers:
        scores = {"dev": layer.selection, "test": layer.scores[result]}
        layers.append(LayerScore(layer=layer.layer, strength=layer.strength, **scores))
    return ProbedLayers(probed.layer, probed.strength, probed.last_layer[result], tuple(layers))
