"""Settings of a training run: how it computes, optimises and saves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kdjax.config.values import (
    FLOAT32_LIMIT,
    FLOPS_LIMIT,
    LATER,
    check_mapping,
    check_number,
    check_range,
    expect,
)
from kdjax.errors import InputError
from kdjax.storage.paths import check_setting

Dtype = Literal["float32", "bfloat16"]
"""Types that models compute in."""

_MILLION = 10**6
BABYLM_WORDS = (
    *range(_MILLION, 10 * _MILLION, _MILLION),
    *range(10 * _MILLION, 100 * _MILLION, 10 * _MILLION),
    *range(100 * _MILLION, 1001 * _MILLION, 100 * _MILLION),
)
"""Words seen at which BabyLM's evaluation looks at a model, under the names chck_1M to
chck_1000M."""

_OPTIMIZER_WORDS = {
    "name": ("adamw", "muon"),
    "schedule": ("linear", "cosine", "wsd"),
    "decay_shape": ("linear", "sqrt", "cosine", "exponential"),
}
"""Words that settings of an optimiser may be; an arm's own settings are checked by them alone."""

SCHEDULE_SETTINGS = (
    "learning_rate",
    "warmup",
    "warmup_budget",
    "schedule",
    "decay",
    "decay_shape",
    "min_lr_ratio",
)
"""Settings of an optimiser that make a step's learning rate; the compiled step depends on all
others."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser, and the schedule of its learning rate, sized to the budget."""

    name: Literal["adamw", "muon"] = field(default="adamw", metadata=LATER)
    """`adamw`: AdamW for all parameters. `muon`: Muon for the matrices of the encoder's layers,
    AdamW for all others: embeddings, LayerNorms, biases, heads and projections."""
    learning_rate: float = 5e-4
    """Peak learning rate, above 0."""
    warmup: float = 0.06
    """Share of the budget over which the learning rate rises linearly, from 0, below 1."""
    warmup_budget: float = field(default=0.0, metadata=LATER)
    """The budget that `warmup` is a share of, in the unit of the run's own, FLOPs or tokens; up to
    1e30. 0: the run's own. With one for all, runs of several budgets warm up alike."""
    schedule: Literal["linear", "cosine", "wsd"] = field(default="linear", metadata=LATER)
    """How the learning rate falls after the warm-up, until the budget ends. `linear`: on a line.
    `cosine`: on half a cosine wave (Loshchilov & Hutter 2017, arXiv 1608.03983). `wsd`: it stays at
    the peak and falls in the last part alone: warm-up, stable, decay (Hu et al. 2024, arXiv
    2404.06395)."""
    decay: float = field(default=0.1, metadata=LATER)
    """Share of the budget, at its end, over which `wsd` falls; above 0, and with `warmup` at most
    1."""
    decay_shape: Literal["linear", "sqrt", "cosine", "exponential"] = field(
        default="linear", metadata=LATER
    )
    """How `wsd` falls. `sqrt`: as 1 - sqrt(t) with t = 0 … 1 of the decay behind (Hägele et al.
    2024, arXiv 2405.18392). `exponential`: as min_lr_ratio^t, which must be above 0."""
    min_lr_ratio: float = field(default=0.0, metadata=LATER)
    """Learning rate at the budget's end as a share of the peak, from 0, below 1."""
    weight_decay: float = 0.01
    """Decoupled weight decay, from 0; not on biases and LayerNorms, nor on what gets no gradient.
    The default is BERT's."""
    b1: float = 0.9
    """Adam's beta 1, from 0, below 1."""
    b2: float = 0.98
    """Adam's beta 2. The default is RoBERTa's, which is steadier with large batches (Liu et al.
    2019, arXiv 1907.11692). From 0, below 1."""
    eps: float = 1e-6
    """Adam's epsilon, above 0. The default is BERT's."""
    clip: float = 0.0
    """Largest global gradient norm, from 0; 0: no clipping."""
    momentum: float = field(default=0.95, metadata=LATER)
    """Muon's momentum, from 0, below 1."""
    nesterov: bool = field(default=True, metadata=LATER)
    """Whether Muon's momentum is Nesterov's."""
    ns_steps: int = field(default=5, metadata=LATER)
    """Newton-Schulz iterations in which Muon makes a matrix about orthogonal, 1 to 20."""
    muon_lr_scale: float = field(default=1.0, metadata=LATER)
    """Muon's learning rate as a multiple of AdamW's, above 0; of both the schedule is the same."""
    consistent_rms: float = field(default=0.2, metadata=LATER)
    """Muon's updates of an m x n matrix are multiplied by this times sqrt(max(m, n)), which gives
    them the root mean square that AdamW's usually have, so that one learning rate suits both (Liu
    et al. 2025, arXiv 2502.16982). 0: by sqrt(max(1, n / m)) with m inputs and n outputs (Jordan et
    al. 2024), which wants a learning rate of its own, some 0.02. From 0."""

    def __post_init__(self) -> None:
        # The caller says which optimiser it is: there are several in a recipe.
        # What gets no gradient is divided by eps.
        positive = ("learning_rate", "eps", "muon_lr_scale")
        check_range(self, "", 0, FLOAT32_LIMIT, *positive, above=True)
        check_range(self, "", 0, FLOAT32_LIMIT, "weight_decay", "clip", "consistent_rms")
        check_range(self, "", 0, FLOPS_LIMIT, "warmup_budget")
        check_range(self, "", 1, 20, "ns_steps")
        for name in ("warmup", "b1", "b2", "momentum", "min_lr_ratio"):
            share = getattr(self, name)
            is_share = not isinstance(share, bool) and 0 <= share < 1
            expect(is_share, name, share, "a share in [0, 1)")
        for name, known in _OPTIMIZER_WORDS.items():
            word = getattr(self, name)
            expect(word in known, name, repr(word), " or ".join(known))
        self._check_decay()

    def _check_decay(self) -> None:
        """Check the decay of `wsd`; with another schedule nobody reads it.

        Raises:
            InputError: it is no share of what the warm-up leaves, or goes to 0 exponentially.
        """
        check_range(self, "", 0, 1, "decay", above=True)
        if self.schedule != "wsd":
            return
        if self.warmup + self.decay > 1:
            raise InputError(
                f"warmup is {self.warmup:g} and decay {self.decay:g}, expected at most 1 together"
            )
        if self.decay_shape == "exponential" and not self.min_lr_ratio:
            raise InputError(
                "min_lr_ratio is 0 and decay_shape 'exponential', expected a ratio above 0, say "
                "0.1: nothing falls to 0 exponentially"
            )

    @property
    def decay_start(self) -> float:
        """Return the share of the budget at which the learning rate leaves its peak.

        Of `wsd` that is where the stable part ends. Up to there the learning rate depends on the
        warm-up alone, so budgets of any length may share what is trained before.
        """
        if self.schedule == "wsd":
            return 1 - self.decay
        return self.warmup


@dataclass(frozen=True)
class ComputeConfig:
    """How a step is computed. Changes neither the price nor, but for rounding, the result."""

    dtype: Dtype = "float32"
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
    """Number of groups of devices that each have all parameters and take a share of the batch, up
    to 1,048,576; 0: as many as the other axes leave."""
    fsdp: int = 1
    """Number of devices over which a group splits its batch, and stores parameters, optimiser state
    and teacher (fully sharded data parallelism). Worth it where memory is plenty, too: each device
    then updates only what it stores. 1 to 1,048,576."""
    tensor: int = 1
    """Number of devices over which the work of a layer is split, by heads, feed-forward units and
    vocabulary entries; 1 to 1,048,576."""
    teacher: Literal["split", "whole"] = "split"
    """Whether the teacher is stored split over `fsdp` and gathered in every step, or whole in each
    device's memory."""
    rules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Mesh axes by a pattern over a parameter's dotted path (* is any part of a name): fsdp, tensor
    or none for each axis of the parameter. They come before the built-in ones
    (`kdjax.parallel.layout`), and the first that matches counts."""

    def __post_init__(self) -> None:
        check_range(self, "train.mesh.", 0, 2**20, "data")
        check_range(self, "train.mesh.", 1, 2**20, "fsdp", "tensor")
        check_mapping(self.rules, "train.mesh.rules")


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run saves its state, where, and how many checkpoints stay."""

    seconds: float = 300.0
    """Seconds between checkpoints, 0 to 1e10; one is also saved when the process is told to
    stop."""
    keep: int = 2
    """Number of checkpoints that stay, the newest ones. From two on, a run goes on from the one
    before where the newest is damaged. 1 to 1,000,000."""
    directory: str = ""
    """A path (~ is your home) or gs://bucket/path that outlives the machine. Checkpoints are
    written to its runs/ARM-seedN/checkpoints, and each holds all that another machine needs to go
    on with the same command and an empty --out; finished runs are stored there, too. Empty: all
    lies in --out."""
    patience: float = 3600.0
    """Seconds that a run goes on while no checkpoint can be written, say because the disk is full,
    before it stops; 0 to 1e10."""
    keep_at_words: tuple[int, ...] | Literal["babylm"] = field(default=(), metadata=LATER)
    """Numbers of words, ascending, 1 to 1e15: a run's student is kept at the first step at which it
    has seen as many, beside the one at the end, for `kdjax export --revisions`. `babylm`: those
    that BabyLM's evaluation asks for, 1, 2, … 10, 20, … 100, 200, … 1,000 million. Changes no
    result."""

    def __post_init__(self) -> None:
        where = "train.checkpoint"
        # Without a checkpoint that stays, a run could not go on.
        check_range(self, f"{where}.", 0, 1e10, "seconds", "patience")
        check_range(self, f"{where}.", 1, 10**6, "keep")
        check_setting(self.directory, f"{where}.directory", bucket=True)
        self._check_words()

    def _check_words(self) -> None:
        """Check the numbers of words at which the student is kept.

        Raises:
            InputError: they are neither ascending whole numbers nor a known word.
        """
        name = "train.checkpoint.keep_at_words"
        if isinstance(self.keep_at_words, str):
            known = self.keep_at_words == "babylm"
            expect(known, name, repr(self.keep_at_words), "babylm, or numbers of words")
            return
        for words in self.keep_at_words:
            check_number(words, name, 1, 10**15, whole=True)
        ascends = sorted(set(self.keep_at_words)) == list(self.keep_at_words)
        expect(ascends, name, list(self.keep_at_words), "ascending numbers of words")

    @property
    def words_of_snapshots(self) -> tuple[int, ...]:
        """Return the numbers of words at which the student is kept, ascending."""
        if isinstance(self.keep_at_words, str):
            return BABYLM_WORDS
        return self.keep_at_words


@dataclass(frozen=True)
class LogConfig:
    """What a run logs as it goes, besides its ledger. Changes no result."""

    every: int = 10
    """Steps between records, 1 to 1,000,000,000: lines of metrics.jsonl, and the same figures
    wherever else they go."""
    tensorboard: bool = True
    """Whether records go to TensorBoard event files too, in the run's tensorboard/."""
    wandb: str = ""
    """The project at Weights & Biases that records go to as well; empty: to none. With
    WANDB_MODE=offline they stay on this machine."""
    mlflow: str = field(default="", metadata=LATER)
    """The experiment at MLflow that records go to as well; empty: to none. The server is the one
    that MLFLOW_TRACKING_URI names."""
    profile: tuple[int, ...] = ()
    """First and last step, counted from 1, that JAX's profiler captures, into the run's profile/;
    empty: no step."""

    def __post_init__(self) -> None:
        check_range(self, "train.log.", 1, 10**9, "every")
        # No step, or the first and the last.
        steps = list(self.profile)
        for step in steps:
            check_number(step, "train.log.profile", 1, 10**12, whole=True)
        fits = steps == sorted(steps) and len(steps) in (0, 2)
        expect(fits, "train.log.profile", steps, "[first, last], steps from 1 on")


@dataclass(frozen=True)
class RampConfig:
    """A stretch of the budget whose steps have another batch size than the rest."""

    until: float
    """Share of the budget at which it ends, between 0 and 1."""
    batch_size: int
    """Sequences of a step, 1 to 16,777,216."""

    def __post_init__(self) -> None:
        where = "train.batch_ramp"
        in_range = 0 < self.until < 1
        expect(in_range, f"{where}: until", self.until, "a share of the budget between 0 and 1")
        check_range(self, f"{where}: ", 1, 2**24, "batch_size")


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    batch_size: int = 256
    """Sequences of a step, over all devices; 1 to 16,777,216."""
    batch_ramp: tuple[RampConfig, ...] = ()
    """Batch ramp: stretches of the budget, one after another, with batch sizes of their own;
    `batch_size` is that of the rest. Each has its own price and compiled step."""
    grad_accum_steps: int = 1
    """Gradient accumulation: number of turns in which each device takes its sequences, to save
    memory; 1 to 16,777,216. Changes neither the result (but for rounding) nor the price."""
    vmapped_seeds: int = 1
    """Number of an arm's seeds that train side by side as one vmapped program, 1 to 65,536, which
    keeps a large device busy with small models. Each has the price, the ledger and the files of a
    run alone, and but for rounding its result; the time that passes is divided evenly. Under a
    budget of hours runs go one by one."""
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
    `evaluation.mlm_probe.along_the_way` the MLM probe too. Not charged to the budget. 1 to
    1,000,000."""

    def __post_init__(self) -> None:
        check_range(self, "train.", 1, 2**24, "batch_size", "grad_accum_steps")
        check_range(self, "train.", 1, 2**16, "vmapped_seeds")
        check_range(self, "train.", 1, 10**6, "evaluations")
        # Stretches follow one another.
        ends = [ramp_step.until for ramp_step in self.batch_ramp]
        if sorted(set(ends)) != ends:
            raise InputError(
                f"train.batch_ramp ends at {ends}, expected ascending shares of the budget"
            )
