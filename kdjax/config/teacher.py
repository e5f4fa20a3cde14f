"""The teacher, and its stored outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from kdjax.config.model import ModelSpec
from kdjax.config.train import OptimizerConfig
from kdjax.errors import InputError


@dataclass(frozen=True)
class HeadConfig:
    """Fitting an MLM head on a teacher's encoder that comes without one."""

    budget: float = 0.0
    """FLOPs to spend; 0: the teacher is used as it is."""
    encoder: Literal["frozen", "tuned"] = "frozen"
    """Whether the encoder's parameters stay or are trained with the head."""
    batch_size: int = 32
    """Sequences of a step."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    """Its optimiser."""


@dataclass(frozen=True)
class PretrainingConfig:
    """Pretraining the teacher from scratch, by masked language modelling on the study's training
    text."""

    budget: float = 0.0
    """FLOPs of one teacher's training; 0: the teacher is not trained here, but read from
    `teacher.source`."""
    batch_size: int = 256
    """Sequences of a step."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Its optimiser; warm-up and decay follow the whole budget, whichever checkpoint the study
    uses."""
    seeds: tuple[int, ...] = (0,)
    """A teacher is trained for each seed: its start, order, masks and dropout follow from it. Of n
    teachers in ascending order of their seeds, the student of seed s learns from teacher s mod n,
    counted from 0."""
    checkpoints: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    """Shares of the budget at which the teacher is saved; the last is 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.budget < math.inf:
            raise InputError(
                f"teacher.train.budget is {self.budget}, expected a number of FLOPs, or 0"
            )
        if self.batch_size < 1:
            raise InputError(f"teacher.train.batch_size is {self.batch_size}, expected at least 1")
        distinct = set(self.seeds)
        if not distinct or len(distinct) < len(self.seeds) or min(distinct) < 0:
            raise InputError(
                f"teacher.train.seeds is {list(self.seeds)}, expected one or more whole numbers "
                "from 0, each once"
            )
        shares = self.checkpoints
        ascending = all(before < after for before, after in pairwise(shares))
        if not shares or shares[0] <= 0 or not ascending or shares[-1] != 1:
            raise InputError(
                f"teacher.train.checkpoints is {list(shares)}, expected ascending shares of the "
                "budget that end at 1"
            )


@dataclass(frozen=True)
class TeacherConfig:
    """The teacher: a Hugging Face BERT directory, or one that is trained here."""

    source: str = ""
    """Directory with config.json and model.safetensors (path or package:NAME/PATH), or one that
    `kdjax teacher` made of a recipe with `teacher.train`: then all its seeds are used. Empty where
    `teacher.train` is set."""
    train: PretrainingConfig = PretrainingConfig()
    """Pretrains the teacher here, instead of reading one."""
    at: float = 1.0
    """Of teachers that were trained here or by `kdjax teacher`: the checkpoint that students learn
    from, as a share of the training budget; one of `teacher.train.checkpoints`. It has cost that
    share."""
    architecture: ModelSpec = ModelSpec(size="base")
    """Its architecture, so that pricing needs no weights; checked against the weights when they are
    read."""
    head: HeadConfig = HeadConfig()
    """Fits an MLM head first, where the directory has none."""
    note: str = ""
    """What readers of a report should know of the teacher, for instance how it was made."""
    training_flops: float = 0.0
    """What training it cost before, in FLOPs; 0: what its card says, or not known. Of a teacher
    that is trained here it is counted."""

    def __post_init__(self) -> None:
        if not 0 < self.at <= 1:
            raise InputError(
                f"teacher.at is {self.at}, expected a share of the training budget above 0, up to 1"
            )
        if not self.train.budget:
            return
        if self.source:
            raise InputError(
                f"teacher.source is {self.source!r} and teacher.train.budget "
                f"{self.train.budget:g}, expected one of "
                "them: a teacher is read or trained"
            )
        for name, found in (
            ("head.budget", self.head.budget),
            ("training_flops", self.training_flops),
        ):
            if found:
                raise InputError(
                    f"teacher.{name} is {found:g} and teacher.train.budget {self.train.budget:g}, "
                    "expected 0: a "
                    "teacher trained here has an MLM head, and what it cost is counted"
                )
        if self.at not in self.train.checkpoints:
            raise InputError(
                f"teacher.at is {self.at}, expected one of teacher.train.checkpoints, "
                f"{list(self.train.checkpoints)}"
            )


@dataclass(frozen=True)
class CacheConfig:
    """Stored teacher outputs, for arms with `teacher: cached`. The corpus needs
    `data.mask_copies`."""

    source: str = ""
    """Directory that `kdjax cache` made. Empty: the study makes one in its output directory."""
    logits: Literal["all", "top_k", "sampled"] = "top_k"
    """What is kept of a distribution: all logits, the k largest probabilities and the mass of the
    rest, or k draws."""
    k: int = 64
    """Entries kept (top_k) or drawn (sampled) per position."""
    temperature: float = 1.0
    """Temperature at which `sampled` draws: that of the term that will read them."""
    dtype: Literal["float32", "float16"] = "float16"
    """How numbers are stored."""
    batch_size: int = 32
    """Sequences of one of the teacher's forward passes."""
    shared_by: int = 0
    """Runs over which the cache's FLOPs are shared; 0: those of this recipe that read it."""

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("batch_size", 1), ("shared_by", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"cache.{name} is {getattr(self, name)}, expected at least {least}"
                )
        if not 0 < self.temperature < math.inf:
            raise InputError(f"cache.temperature is {self.temperature}, expected a number above 0")
