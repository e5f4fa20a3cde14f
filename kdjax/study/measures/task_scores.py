"""The scores of a model on labelled tasks, by each protocol of the recipe."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdjax.config import Dtype, EvaluationConfig, FinetuneConfig, ModelConfig
from kdjax.data.tasks.suite import suite_mean
from kdjax.data.tasks.task import Task
from kdjax.errors import counted
from kdjax.evaluation.finetuning import EncoderSetup, TunedEncoder, finetune, tuned_start
from kdjax.evaluation.finetuning.protocols import FinetuningProtocol
from kdjax.evaluation.finetuning.trial import one_device
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
        layout: devices of this process that models are fine-tuned on.
        dtype: type that the encoder computes in while it is fine-tuned.
    """

    config: EvaluationConfig
    tasks: tuple[Task, ...] = ()
    layout: Layout = field(default_factory=one_device)
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
        finetuner = None
        if finetuning is not None:
            setup = EncoderSetup(model, self.layout, self.dtype)
            finetuner = _Finetuner(self.tasks, setup, params, seed, finetuning, records)
        for protocol in self.config.protocols:
            if protocol == "probe":
                scores, protocol_details = self._probe(model, params, records)
            elif finetuner is not None:
                scores, protocol_details = finetuner.by_protocol(protocol)
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


class _Finetuner:
    """The fine-tuning of one model on the tasks of a study, by one protocol after another."""

    def __init__(
        self,
        tasks: Sequence[Task],
        setup: EncoderSetup,
        params: Mapping[str, Any],
        seed: int,
        settings: FinetuneConfig,
        records: FinetuningRecords,
    ):
        self._tasks = tasks
        self._setup = setup
        self._params = params
        self._seed = seed
        self._settings = settings
        self._records = records

    def by_protocol(self, protocol: FinetuningProtocol) -> tuple[dict[str, float], Details]:
        """Fine-tune the model on each task; return scores by result and details by task."""
        scores: dict[str, float] = {}
        details: Details = {}
        for task in self._tasks:
            # All protocols start from the same encoder.
            start = None
            if task.name in self._settings.intermediate_tasks:
                start = self._intermediate_start
            name = f"fine-tuning on {task.name}, {protocol}"
            finetuned = finetune(
                self._setup,
                self._params,
                task,
                self._settings,
                protocol=protocol,
                seed=self._seed,
                directory=self._records.directory,
                start=start,
                show=functools.partial(_show_trials, self._records, name),
            )
            scores |= finetuned.scores
            details[task.name] = finetuned
            self._records.finished()
        return scores, details

    @functools.cached_property
    def _intermediate_start(self) -> TunedEncoder | None:
        """Tune the encoder that some tasks start from, or read it where it was kept; None: all
        start from the model's own."""
        if not self._settings.intermediate:
            return None
        task = next(task for task in self._tasks if task.name == self._settings.intermediate)
        self._records.status(f"fine-tuning on {task.name}, for other tasks to start from")
        return tuned_start(
            self._setup,
            self._params,
            task,
            self._settings,
            seed=self._seed,
            directory=self._records.directory,
        )


def _show_trials(records: FinetuningRecords, name: str, done: int, count: int) -> None:
    """Show the number of a task's trials that are done."""
    records.status(f"{name}, {done:,} of {counted(count, 'trial')} done")


def _probed_layers(probed: ProbeResult, result: str) -> ProbedLayers:
    """Return the stored record of the probes on a result's rows."""
    layers = []
    for layer in probed.layers:
        scores = {"dev": layer.selection, "test": layer.scores[result]}
        layers.append(LayerScore(layer=layer.layer, strength=layer.strength, **scores))
    return ProbedLayers(
        layer=probed.layer,
        strength=probed.strength,
        last_layer=probed.last_layer[result],
        layers=tuple(layers),
        rows=probed.rows.get(result),
    )
