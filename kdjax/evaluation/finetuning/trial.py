"""Training on a task: a trial, or several side by side."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from kdjax.config import Dtype, FinetuneConfig, ModelConfig, OptimizerConfig
from kdjax.data.tasks.task import Split, Task
from kdjax.evaluation.finetuning.batches import Order, StepRows
from kdjax.evaluation.finetuning.labels import LabelScale, targets_of
from kdjax.evaluation.finetuning.results import Setting
from kdjax.evaluation.finetuning.saved import RunningState
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.evaluation.finetuning.step import (
    FinetuneState,
    StepKey,
    compiled_step,
    init_state,
    state_sharding,
)
from kdjax.parallel import hosts
from kdjax.parallel.layout import Layout
from kdjax.training.lanes import BATCH_AXIS, stack, unstack
from kdjax.training.learning_rate import learning_rate

AHEAD = 8
"""Steps that the host prepares before the device has done them."""


@dataclass(frozen=True)
class FinetunedModel:
    """A model that was fine-tuned on a task.

    Attributes:
        step_key: what its programs depend on.
        params: {"model": the encoder's parameters, and the head's as "task_head"}, on the devices.
        scale: how labels were standardised.
        diverged_step: first step, from 1, whose loss is not finite; 0: none.
    """

    step_key: StepKey
    params: dict[str, Any]
    scale: LabelScale
    diverged_step: int

    @property
    def encoder(self) -> dict[str, Any]:
        """Return the encoder's parameters, without a head."""
        return {name: part for name, part in self.params["model"].items() if name != "task_head"}


def one_device() -> Layout:
    """Return a layout of this process's first device alone."""
    return Layout.from_config(devices=jax.local_devices()[:1])


@dataclass(frozen=True)
class EncoderSetup:
    """An encoder's configuration, and how it is computed while it is fine-tuned.

    Attributes:
        config: configuration of the model.
        layout: devices of this process, over which batches are split.
        dtype: type that the encoder computes in.
    """

    config: ModelConfig
    layout: Layout = field(default_factory=one_device)
    dtype: Dtype = "float32"


def step_key_of(setup: EncoderSetup, task: Task, settings: FinetuneConfig) -> StepKey:
    """Return the key of a task's programs.

    Args:
        setup: configuration of the encoder, and how it is computed.
        task: the task, of which only the kind of its labels counts.
        settings: settings of the optimiser and the head.
    """
    return StepKey(
        model=setup.config,
        outputs=task.outputs,
        regression=task.regression,
        pool=settings.pool,
        weight_decay=settings.weight_decay,
        eps=settings.eps,
        clip=settings.clip,
        dtype=setup.dtype,
        layout=setup.layout,
    )


def schedule_of(hyperparameters: Setting, warmup: float) -> OptimizerConfig:
    """Return the learning rate's schedule.

    A warm-up given as a number of steps becomes a fraction of them; one as long as the run, or
    longer, lasts the run.

    Args:
        hyperparameters: peak learning rate and steps.
        warmup: share of the steps, or from 1 on a number of them.
    """
    share = warmup / hyperparameters.steps if warmup >= 1 else warmup
    share = min(share, math.nextafter(1.0, 0.0))
    return OptimizerConfig(learning_rate=hyperparameters.learning_rate, warmup=share)


def train_lanes(
    step_key: StepKey,
    encoder: Any,
    train: Split,
    scale: LabelScale,
    specs: Sequence[TrialSpec],
    warmup: float,
    saved: RunningState | None = None,
) -> list[FinetunedModel]:
    """Train trials side by side, each in a lane of one vmapped program.

    A trial's lane, and how many others there are, change its result by no more than rounding.

    Args:
        step_key: what the step depends on.
        encoder: parameters of the encoder that all start from.
        train: training rows.
        scale: how labels are standardised.
        specs: trials that differ in learning rate and seed alone.
        warmup: share of the steps that warm up, or from 1 on a number of them.
        saved: where the state is saved every few minutes, and read from; None: nowhere.
    """
    hyperparameters = specs[0].setting
    lanes = len(specs)
    seeds = [spec.seed for spec in specs]
    order = Order.from_split(train, hyperparameters.batch_size, step_key.model.max_positions)
    targets = targets_of(train, scale, regression=step_key.regression)
    rates = _rates(specs, warmup)
    sharding = state_sharding(step_key, lanes)
    step = compiled_step(step_key, lanes)

    # The state before the first step, or that of the last save
    states = [init_state(step_key, encoder, seed) for seed in seeds]
    state = stack(states) if lanes > 1 else states[0]
    del states
    if saved is not None:
        state = saved.restore(state) or state
    state = step_key.layout.place(state, sharding)

    steps_done = int(np.asarray(state.step).flat[0])
    under_way: deque[jax.Array] = deque()
    for number, rows in enumerate(
        order.iterate(seeds, steps_done, hyperparameters.steps), start=steps_done
    ):
        batch = make_batch(train, targets, rows, step_key.layout.batch_parts)
        state, loss = step(state, batch, rates[number])
        hosts.serialize_on_cpu(loss)
        # The host stays a few steps ahead, and no more batches wait in memory.
        under_way.append(loss)
        if len(under_way) > AHEAD:
            jax.block_until_ready(under_way.popleft())
        if saved is not None and saved.is_due():
            saved.save(state, number + 1)

    models = []
    for lane in range(lanes):
        lane_state: FinetuneState = unstack(state, lane) if lanes > 1 else state
        diverged_step = int(lane_state.diverged_step)
        models.append(FinetunedModel(step_key, lane_state.params, scale, diverged_step))
    return models


def _rates(specs: Sequence[TrialSpec], warmup: float) -> NDArray[np.float32]:
    """Return each step's learning rate in each lane, `[steps, lanes]`; `[steps]` of one lane."""
    steps = specs[0].setting.steps
    lanes = []
    for spec in specs:
        schedule = schedule_of(spec.setting, warmup)
        lanes.append([learning_rate(schedule, n / steps, (n + 1) / steps) for n in range(steps)])
    rates = np.asarray(lanes, np.float32).T
    if len(specs) == 1:
        return rates[:, 0]
    return rates


def make_batch(
    train: Split, targets: NDArray[Any], step_rows: StepRows, batch_parts: int
) -> dict[str, NDArray[Any]]:
    """Return a step's arrays, `[B, lanes, ...]`; of one lane `[B, ...]`.

    Args:
        train: training rows.
        targets: what each of them is compared with.
        step_rows: rows of the step.
        batch_parts: the batch is filled up to a multiple of it, to be split over devices.
    """
    lanes, size = step_rows.rows.shape
    rows = np.pad(step_rows.rows, ((0, 0), (0, -size % batch_parts)), constant_values=-1)
    flat = rows.reshape(-1)
    arrays: dict[str, NDArray[Any]] = dict(train.batch(flat, step_rows.length))
    arrays["targets"] = targets[flat]
    arrays["weights"] = (flat >= 0).astype(np.float32)
    if lanes == 1:
        return arrays
    batch = {}
    for name, array in arrays.items():
        in_lanes = array.reshape(lanes, -1, *array.shape[1:])
        batch[name] = np.ascontiguousarray(np.moveaxis(in_lanes, 0, BATCH_AXIS))
    return batch
