"""Settings of a training run: how it computes, optimises and saves."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from kdjax.config.values import expect
from kdjax.errors import InputError


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and linear decay to 0, sized to the budget."""

    learning_rate: float = 5e-4
    """Peak learning rate."""
    warmup: float = 0.06
    """Share of the steps that warm up."""
    weight_decay: float = 0.01
    """Decoupled weight decay; not on biases and LayerNorms, nor on what gets no gradient. The
    default is BERT's."""
    b1: float = 0.9
    """Adam's beta 1."""
    b2: float = 0.98
    """Adam's beta 2. The default is RoBERTa's, which is steadier with large batches (Liu et al.
    2019, arXiv 1907.11692)."""
    eps: float = 1e-6
    """Adam's epsilon. The default is BERT's."""
    clip: float = 0.0
    """Largest global gradient norm; 0: no clipping."""

    def __post_init__(self) -> None:
        # The caller says which optimiser it is: there are several in a recipe.
        expect(self.learning_rate > 0, "learning_rate", self.learning_rate, "more than 0")
        expect(0 <= self.warmup < 1, "warmup", self.warmup, "a share in [0, 1)")
        why = "more than 0: what gets no gradient is divided by it"
        expect(self.eps > 0, "eps", self.eps, why)


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
    """Whether layers of the same shape run as one loop, which compiles faster."""
    attention: Literal["auto", "plain"] = "auto"
    """`auto`: a kernel where the device has one: kdjax's own on TPUs; cuDNN's on GPUs in bfloat16,
    where nobody asks for the scores and there is no attention dropout. `plain`: no kernel."""


@dataclass(frozen=True)
class MeshConfig:
    """The mesh: how the devices of all hosts are laid out, and what is split over which of them.

    Changes the result by no more than rounding, and not the price.
    """

    data: int = 0
    """Number of groups of devices that each have all parameters and take a share of the batch; 0:
    as many as the other axes leave."""
    fsdp: int = 1
    """Number of devices over which a group splits its batch, and stores parameters, optimiser state
    and teacher (fully sharded data parallelism). Worth it where memory is plenty, too: each device
    then updates only what it stores."""
    tensor: int = 1
    """Number of devices over which the work of a layer is split, by heads, feed-forward units and
    vocabulary entries."""
    teacher: Literal["split", "whole"] = "split"
    """Whether the teacher is stored split over `fsdp` and gathered in every step, or whole in each
    device's memory."""
    rules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Mesh axes by a pattern over a parameter's dotted path (* is any part of a name): fsdp, tensor
    or none for each axis of the parameter. They come before the built-in ones
    (`kdjax.parallel.layout`), and the first that matches counts."""

    def __post_init__(self) -> None:
        for name, least in (("data", 0), ("fsdp", 1), ("tensor", 1)):
            value = getattr(self, name)
            expect(value >= least, f"train.mesh.{name}", value, f"at least {least}")


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run saves its state, where, and how many checkpoints stay."""

    seconds: float = 300.0
    """Seconds between checkpoints; one is also saved when the process is told to stop."""
    keep: int = 2
    """Number of checkpoints that stay, the newest ones. From two on, a run goes on from the one
    before where the newest is damaged."""
    directory: str = ""
    """A path or gs://bucket/path that outlives the machine. Checkpoints are written to its
    runs/ARM-seedN/checkpoints, and each holds all that another machine needs to go on with the same
    command and an empty --out; finished runs are stored there, too. Empty: all lies in --out."""
    patience: float = 3600.0
    """Seconds that a run goes on while no checkpoint can be written, say because the disk is full,
    before it stops."""

    def __post_init__(self) -> None:
        where = "train.checkpoint"
        # Without a checkpoint that stays, a run could not go on.
        for name, least in (("seconds", 0), ("patience", 0), ("keep", 1)):
            value = getattr(self, name)
            expect(value >= least, f"{where}.{name}", value, f"at least {least}")
        is_path = "://" not in self.directory or bool(re.match(r"gs://[^/]+", self.directory))
        expect(is_path, f"{where}.directory", repr(self.directory), "a path or gs://bucket/path")


@dataclass(frozen=True)
class LogConfig:
    """What a run logs as it goes, besides its ledger. Changes no result."""

    every: int = 10
    """Steps between records: lines of metrics.jsonl, and the same figures wherever else they go."""
    tensorboard: bool = True
    """Whether records go to TensorBoard event files too, in the run's tensorboard/."""
    wandb: str = ""
    """The project at Weights & Biases that records go to as well; empty: to none. With
    WANDB_MODE=offline they stay on this machine."""
    profile: tuple[int, ...] = ()
    """First and last step, counted from 1, that JAX's profiler captures, into the run's profile/;
    empty: no step."""

    def __post_init__(self) -> None:
        expect(self.every >= 1, "train.log.every", self.every, "at least 1")
        # No step, or the first and the last.
        steps = list(self.profile)
        ordered = steps == sorted(steps) and min(steps, default=1) >= 1
        fits = ordered and len(steps) in (0, 2)
        expect(fits, "train.log.profile", steps, "[first, last], steps from 1 on")


@dataclass(frozen=True)
class RampConfig:
    """A stretch of the budget whose steps have another batch size than the rest."""

    until: float
    """Share of the budget at which it ends."""
    batch_size: int
    """Sequences of a step."""

    def __post_init__(self) -> None:
        where = "train.batch_ramp"
        in_range = 0 < self.until < 1
        expect(in_range, f"{where}: until", self.until, "a share of the budget between 0 and 1")
        expect(self.batch_size >= 1, f"{where}: batch_size", self.batch_size, "at least 1")


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    batch_size: int = 256
    """Sequences of a step, over all devices."""
    batch_ramp: tuple[RampConfig, ...] = ()
    """Batch ramp: stretches of the budget, one after another, with batch sizes of their own;
    `batch_size` is that of the rest. Each has its own price and compiled step."""
    grad_accum_steps: int = 1
    """Gradient accumulation: number of turns in which each device takes its sequences, to save
    memory. Changes neither the result (but for rounding) nor the price."""
    vmapped_seeds: int = 1
    """Number of an arm's seeds that train side by side as one vmapped program, which keeps a large
    device busy with small models. Each has the price, the ledger and the files of a run alone, and
    but for rounding its result; the time that passes is divided evenly. Under a budget of hours
    runs go one by one."""
    compute: ComputeConfig = ComputeConfig()
    """How a step is computed."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimiser, the same for every arm."""
    mesh: MeshConfig = MeshConfig()
    """How the devices are laid out."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Checkpoints."""
    log: LogConfig = LogConfig()
    """Logs."""
    evaluations: int = 10
    """Number of times that the held-out MLM loss is measured during training, and with
    `evaluation.mlm_probe.along_the_way` the MLM probe too. Not charged to the budget."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "grad_accum_steps", "vmapped_seeds", "evaluations"):
            value = getattr(self, name)
            expect(value >= 1, f"train.{name}", value, "at least 1")
        # Stretches follow one another.
        ends = [stretch.until for stretch in self.batch_ramp]
        if sorted(set(ends)) != ends:
            raise InputError(
                f"train.batch_ramp ends at {ends}, expected ascending shares of the budget"
            )
