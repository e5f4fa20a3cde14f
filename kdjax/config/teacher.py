"""Settings of the teacher, and of its stored outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from kdjax.config.model import ModelSpec
from kdjax.config.train import OptimizerConfig
from kdjax.config.values import expect
from kdjax.errors import InputError


@dataclass(frozen=True)
class HeadConfig:
    """Fitting an MLM head on a teacher's encoder that comes without one."""

    budget: float = 0.0
    """FLOPs to spend on it; 0: the teacher is used as it is."""
    encoder: Literal["frozen", "tuned"] = "frozen"
    """Whether the encoder's parameters stay as they are, or are trained with the head."""
    batch_size: int = 32
    """Sequences of a step."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    """The head's optimiser."""


@dataclass(frozen=True)
class PretrainingConfig:
    """Pretraining the teacher from scratch, by MLM on the study's training text."""

    budget: float = 0.0
    """FLOPs of one teacher's training; 0: the teacher is not trained here, but read from
    `teacher.source`."""
    batch_size: int = 256
    """Sequences of a step."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The teacher's optimiser. Warm-up and decay follow the whole budget, whichever checkpoint the
    study uses."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the teachers: one is trained for each, and its start, order, masks and dropout
    follow from it. Of n teachers in ascending order of their seeds, the student of seed s learns
    from teacher s mod n, counted from 0."""
    checkpoints: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    """Shares of the budget at which the teacher is saved; the last is 1."""

    def __post_init__(self) -> None:
        where = "teacher.train"
        finite = 0 <= self.budget < math.inf
        expect(finite, f"{where}.budget", self.budget, "a number of FLOPs, or 0")
        expect(self.batch_size >= 1, f"{where}.batch_size", self.batch_size, "at least 1")
        expect(
            min(self.seeds, default=-1) >= 0 and len({*self.seeds}) == len(self.seeds),
            f"{where}.seeds",
            list(self.seeds),
            "one or more whole numbers from 0, each once",
        )
        # From 0, which is none of them, to 1.
        shares = (0.0, *self.checkpoints)
        ascending = all(before < after for before, after in pairwise(shares))
        expect(
            ascending and shares[-1] == 1,
            f"{where}.checkpoints",
            list(self.checkpoints),
            "ascending shares of the budget that end at 1",
        )


@dataclass(frozen=True)
class TeacherConfig:
    """The teacher: a Hugging Face BERT directory, or a model that is trained here."""

    source: str = ""
    """Directory with config.json and model.safetensors (path or package:NAME/PATH), or one that
    `kdjax teacher` made of a recipe with `teacher.train`, all of whose seeds are used. Empty where
    `teacher.train` is set."""
    train: PretrainingConfig = PretrainingConfig()
    """Pretrains the teacher here, instead of reading one."""
    at: float = 1.0
    """The checkpoint that students learn from, of a teacher that was trained here or by `kdjax
    teacher`: a share of the training budget, one of `teacher.train.checkpoints`. It has cost that
    share."""
    architecture: ModelSpec = ModelSpec(size="base")
    """The teacher's architecture, so that pricing needs no weights; checked against the weights
    when they are read."""
    head: HeadConfig = HeadConfig()
    """Fits an MLM head first, where the directory has none."""
    note: str = ""
    """What readers of a report should know of the teacher, for instance how it was made."""
    training_flops: float = 0.0
    """FLOPs that its training has cost before. 0: those on its card, else they are not known. They
    are counted for a teacher that is trained here."""

    def __post_init__(self) -> None:
        in_range = 0 < self.at <= 1
        expect(in_range, "teacher.at", self.at, "a share of the training budget above 0, up to 1")
        # The rest is about a teacher that is trained here: it is not read, too, and needs no head.
        if not self.train.budget:
            return
        if self.source:
            raise InputError(
                f"teacher.source is {self.source!r} and teacher.train.budget "
                f"{self.train.budget:g}, expected one of them: a teacher is read or trained"
            )
        costs = {"head.budget": self.head.budget, "training_flops": self.training_flops}
        for name, flops in costs.items():
            expect(
                not flops,
                f"teacher.{name}",
                f"{flops:g} and teacher.train.budget {self.train.budget:g}",
                "0: a teacher trained here has an MLM head, and what it cost is counted",
            )
        saved = list(self.train.checkpoints)
        expect(
            self.at in saved, "teacher.at", self.at, f"one of teacher.train.checkpoints, {saved}"
        )


@dataclass(frozen=True)
class CacheConfig:
    """Stored teacher outputs, for arms with `teacher: cached`, which need `data.mask_copies`."""

    source: str = ""
    """Directory that `kdjax cache` made. Empty: the study makes one in its output directory."""
    logits: Literal["all", "top_k", "sampled"] = "top_k"
    """What is stored of a distribution: all logits, the k largest probabilities and the mass of the
    rest, or k draws."""
    k: int = 64
    """Entries that `top_k` stores or `sampled` draws, per masked position."""
    temperature: float = 1.0
    """Temperature at which `sampled` draws: that of the term that will read them."""
    dtype: Literal["float32", "float16"] = "float16"
    """Type in which numbers are stored; float16 takes half the space."""
    batch_size: int = 32
    """Sequences of each of the teacher's forward passes."""
    shared_by: int = 0
    """Number of runs that share the cache's FLOPs; 0: those of this recipe that read it."""

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("batch_size", 1), ("shared_by", 0)):
            # shared_by 0: by the runs of this recipe.
            value = getattr(self, name)
            expect(value >= least, f"cache.{name}", value, f"at least {least}")
        positive = 0 < self.temperature < math.inf
        expect(positive, "cache.temperature", self.temperature, "a number above 0")
