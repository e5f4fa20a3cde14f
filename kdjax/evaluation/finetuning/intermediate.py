"""The encoder that was fine-tuned on another task first, from which some tasks start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.config import FinetuneConfig
from kdjax.data.tasks.task import Task
from kdjax.evaluation.finetuning.by_protocol import (
    TunedEncoder,
    encoder_of,
    finetune_one,
    key_of_one,
)
from kdjax.evaluation.finetuning.protocols import fixed_setting
from kdjax.evaluation.finetuning.saved import RunningState
from kdjax.evaluation.finetuning.trial import EncoderSetup
from kdjax.models import abstract_params

DIRECTORY = "intermediate"
"""Directory beside those of the protocols that holds tuned encoders."""


def tuned_start(
    setup: EncoderSetup,
    params: Mapping[str, Any],
    task: Task,
    settings: FinetuneConfig,
    *,
    seed: int,
    directory: Path | None = None,
) -> TunedEncoder:
    """Fine-tune a model on the intermediate task, with the setting of `fixed`, to start from.

    All protocols start from the same encoder. With a directory it is kept there, and what was
    stopped goes on.

    Args:
        setup: configuration of the model, and how it is computed.
        params: parameters of the model; copied, without its MLM head.
        task: the intermediate task.
        settings: settings of fine-tuning.
        seed: seed of the model, which is the fine-tuning seed.
        directory: its `intermediate` holds the encoder; None: it is kept nowhere.

    Raises:
        InputError: training rows of one class, rows longer than the model's positions, or a file
            that cannot be written.
    """
    encoder = encoder_of(params)
    hyperparameters = fixed_setting(task, settings, setup.config.max_positions)
    saved = None
    finished = None
    if directory is not None:
        key = key_of_one(setup, encoder, task, settings, hyperparameters, seed)
        saved = RunningState(directory / DIRECTORY, f"{task.name}.running", key)
        finished = RunningState(directory / DIRECTORY, f"{task.name}.encoder", key)
        tuned = finished.restore(abstract_params(setup.config, mlm=False))
        if tuned is not None:
            return TunedEncoder(task.name, tuned)

    model = finetune_one(
        setup,
        encoder,
        task,
        settings,
        hyperparameters,
        seed=seed,
        saved=saved,
    )
    if saved is not None and finished is not None:
        finished.save(model.encoder, hyperparameters.steps)
        saved.remove()
    return TunedEncoder(task.name, model.encoder)
