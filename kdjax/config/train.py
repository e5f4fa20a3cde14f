"""One training run: how it computes, optimises, saves."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from kdjax.errors import InputError


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and linear decay to 0, sized to the budget."""

    learning_rate: float = 5e-4
    """Peak learning rate."""
    warmup: float = 0.06
    """Share of the steps that warm up."""
    weight_decay: float = 0.01
    """Decoupled weight decay; not on biases and LayerNorms, nor on what gets no gradient."""
    b1: float = 0.9
    """Adam's beta 1."""
    b2: float = 0.98
    """Adam's beta 2."""
    eps: float = 1e-6
    """Adam's epsilon."""
    clip: float = 0.0
    """Largest global gradient norm; 0: no clipping."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise InputError(f"learning_rate is {self.learning_rate}, expected more than 0")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup is {self.warmup}, expected a share in [0, 1)")
        if self.eps <= 0:
            raise InputError(
                f"eps is {self.eps}, expected more than 0: what gets no gradient is divided by it"
            )


@dataclass(frozen=True)
class ComputeConfig:
    """How a step is computed. Changes neither the price nor, but for rounding, the result."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and matmuls. Parameters, optimiser, softmax, LayerNorm and losses stay
    float32."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass computes again to save memory: nothing, all but the linear layers'
    results, or whole layers. Without `scan`, XLA's CPU compiler merges the second computation with
    the first, and nothing is saved."""
    scan: bool = False
    """Whether runs of layers that are alike are one loop, which compiles faster."""
    attention: Literal["auto", "plain"] = "auto"
    """`auto`: a fused kernel where the device has one: kdjax's own on TPUs; on GPUs in bfloat16
    cuDNN's, where nobody asks for the scores and there is no attention dropout. `plain`: never."""


@dataclass(frozen=True)
class MeshConfig:
    """How the devices of all hosts are laid out, and over which of them what is split. Changes the
    result by no more than rounding, and not the price."""

    data: int = 0
    """Groups of devices that each have all parameters and take a part of the batch; 0: as many as
    the others leave."""
    fsdp: int = 1
    """Devices of a group over which the batch is split, and parameters, optimiser state and teacher
    are stored split (fully sharded data parallelism). Also where memory is plenty: each device then
    updates its part alone."""
    tensor: int = 1
    """Devices over which the work of a layer is split by heads, feed-forward units and vocabulary
    entries."""
    teacher: Literal["split", "whole"] = "split"
    """Whether the teacher is split over `fsdp` too, and gathered in every step, or whole in each
    device's memory."""
    rules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """A pattern over a parameter's dotted path (* is any part of a name) -> for each of its axes
    fsdp, tensor or none. Come before the built-in ones (`kdjax.parallel.layout`); the first that
    matches counts."""

    def __post_init__(self) -> None:
        for name, least in (("data", 0), ("fsdp", 1), ("tensor", 1)):
            if getattr(self, name) < least:
                raise InputError(
                    f"train.mesh.{name} is {getattr(self, name)}, expected at least {least}"
                )


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run saves its state, where, and what is kept."""

    seconds: float = 300.0
    """A checkpoint is saved when this much time has passed since the last, and when the process is
    told to stop."""
    keep: int = 2
    """The newest checkpoints that are kept; where the newest is damaged, the run goes on from the
    one before."""
    directory: str = ""
    """A path or gs://bucket/path that outlives the machine. Checkpoints are written to its
    runs/ARM-seedN/checkpoints, and each holds all that another machine needs to go on with the same
    command and an empty --out; a finished run is kept there too. Empty: all lies in --out."""
    patience: float = 3600.0
    """Seconds that a run goes on while no checkpoint can be written, say because the disk is full,
    before it stops."""

    def __post_init__(self) -> None:
        for name in ("seconds", "patience"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"train.checkpoint.{name} is {getattr(self, name)}, expected at least 0"
                )
        if self.keep < 1:
            raise InputError(f"train.checkpoint.keep is {self.keep}, expected at least 1")
        if "://" in self.directory and not re.match(r"gs://[^/]+", self.directory):
            raise InputError(
                f"train.checkpoint.directory is {self.directory!r}, expected a path or "
                "gs://bucket/path"
            )


@dataclass(frozen=True)
class LogConfig:
    """What a run writes down as it goes, besides its account. Changes no result."""

    every: int = 10
    """Steps between records: lines of metrics.jsonl, and the same figures wherever else they go."""
    tensorboard: bool = True
    """Whether records go to TensorBoard event files too, in the run's tensorboard/."""
    wandb: str = ""
    """The project at Weights & Biases that records go to as well; empty: to none.
    WANDB_MODE=offline keeps them on this machine."""
    profile: tuple[int, ...] = ()
    """First and last step, counted from 1, that JAX's profiler captures, into the run's profile/;
    empty: no step."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"train.log.every is {self.every}, expected at least 1")
        if self.profile and not (
            len(self.profile) == 2 and 1 <= self.profile[0] <= self.profile[1]
        ):
            raise InputError(
                f"train.log.profile is {list(self.profile)}, expected [first, last], steps from 1 "
                "on"
            )


@dataclass(frozen=True)
class RampConfig:
    """A stretch of the budget whose steps have another batch than the rest."""

    until: float
    """Share of the budget at which it ends."""
    batch_size: int
    """Sequences of a step."""

    def __post_init__(self) -> None:
        if not 0 < self.until < 1:
            raise InputError(
                f"train.batch_ramp: until is {self.until}, expected a share of the budget between "
                "0 and 1"
            )
        if self.batch_size < 1:
            raise InputError(f"train.batch_ramp: batch is {self.batch_size}, expected at least 1")


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    batch_size: int = 256
    """Sequences of a step, over all devices."""
    batch_ramp: tuple[RampConfig, ...] = ()
    """Batch ramp: stretches of the budget, one after another, with batches of their own; `batch` is
    what follows. Each has its own price and compiled step."""
    grad_accum_steps: int = 1
    """Parts in which each device takes its sequences, one after another, to save memory. Changes
    neither the result (but for rounding) nor the price."""
    vmapped_seeds: int = 1
    """Seeds of an arm that train side by side as one vmapped program, which keeps a large device
    busy with small models. Each has the price, the account and the files of a run alone, and but
    for rounding its result; the time that passes is shared evenly. Under a budget of hours runs go
    one by one."""
    compute: ComputeConfig = ComputeConfig()
    """How a step is computed."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimiser, the same for every arm."""
    mesh: MeshConfig = MeshConfig()
    """How the devices are laid out."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Checkpoints."""
    log: LogConfig = LogConfig()
    """Metrics."""
    evaluations: int = 10
    """How often the held-out MLM loss is measured along the budget (not charged to it); where
    `evaluation.mlm_probe.along_the_way` is set, the MLM probe too."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "grad_accum_steps", "vmapped_seeds", "evaluations"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} is {getattr(self, name)}, expected at least 1")
        ends = [one.until for one in self.batch_ramp]
        if sorted(set(ends)) != ends:
            raise InputError(
                f"train.batch_ramp ends at {ends}, expected ascending shares of the budget"
            )
