"""Settings of the teacher, and of its stored outputs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from kdjax.config.model import ModelSpec
from kdjax.config.train import OptimizerConfig
from kdjax.config.values import (
    FLOAT32_LIMIT,
    FLOPS_LIMIT,
    check_number,
    check_range,
    check_seeds,
    expect,
)
from kdjax.errors import InputError
from kdjax.storage.paths import check_setting


@dataclass(frozen=True)
class HeadConfig:
    """Fitting an MLM head on a teacher's encoder that comes without one."""

    budget: float = 0.0
    """FLOPs to spend on it, up to 1e30; 0: the teacher is used as it is."""
    encoder: Literal["frozen", "tuned"] = "frozen"
    """Whether the encoder's parameters stay as they are, or are trained with the head."""
    batch_size: int = 32
    """Sequences of a step, 1 to 16,777,216."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    """The head's optimiser."""

    def __post_init__(self) -> None:
        check_range(self, "teacher.head.", 0, FLOPS_LIMIT, "budget")
        check_range(self, "teacher.head.", 1, 2**24, "batch_size")


@dataclass(frozen=True)
class PretrainingConfig:
    """Pretraining the teacher from scratch, by MLM on the study's training text."""

    budget: float = 0.0
    """FLOPs of one teacher's training, up to 1e30; 0: the teacher is not trained here, but read
    from `teacher.source`."""
    batch_size: int = 256
    """Sequences of a step, 1 to 16,777,216."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The teacher's optimiser. Warm-up and decay follow the whole budget, whichever checkpoint the
    study uses."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the teachers, 0 to 2^32 - 1, each once: one is trained for each, and its
    start, order, masks and dropout follow from it. Of n teachers in ascending order of their seeds,
    the student of seed s learns from teacher s mod n, counted from 0."""
    checkpoints: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    """Shares of the budget at which the teacher is saved, above 0 and ascending; the last is 1."""

    def __post_init__(self) -> None:
        where = "teacher.train"
        check_range(self, f"{where}.", 0, FLOPS_LIMIT, "budget")
        check_range(self, f"{where}.", 1, 2**24, "batch_size")
        check_seeds(self.seeds, f"{where}.seeds")
        for share in self.checkpoints:
            check_number(share, f"{where}.checkpoints", 0, 1, above=True)
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
    """Directory with config.json and model.safetensors (path or package:NAME/PATH), a repository of
    the Hugging Face Hub with these (hf:OWNER/NAME@REVISION), or a directory that
    `kdjax teacher` made of a recipe with `teacher.train`, all of whose seeds are used. Empty where
    `teacher.train` is set."""
    train: PretrainingConfig = PretrainingConfig()
    """Pretrains the teacher here, instead of reading one."""
    at: float = 1.0
    """The checkpoint that students learn from, of a teacher that was trained here or by `kdjax
    teacher`: a share of the training budget, one of `teacher.train.checkpoints`. It has cost that
    share. Above 0, up to 1."""
    architecture: ModelSpec = ModelSpec(size="base")
    """The teacher's architecture, so that pricing needs no weights; checked against the weights
    when they are read."""
    head: HeadConfig = HeadConfig()
    """Fits an MLM head first, where the directory has none."""
    note: str = ""
    """What readers of a report should know of the teacher, for instance how it was made."""
    training_flops: float = 0.0
    """FLOPs that its training has cost before. 0: those on its card, else they are not known. They
    are counted for a teacher that is trained here. Up to 1e30."""

    def __post_init__(self) -> None:
        check_setting(self.source, "teacher.source", hub_repository=True)
        check_range(self, "teacher.", 0, FLOPS_LIMIT, "training_flops")
        in_range = not isinstance(self.at, bool) and 0 < self.at <= 1
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
    """Entries that `top_k` stores or `sampled` draws, per masked position; 1 to 16,777,216, and
    fewer than the vocabulary has."""
    temperature: float = 1.0
    """Temperature at which `sampled` draws: that of the term that will read them. Above 0."""
    dtype: Literal["float32", "float16"] = "float16"
    """Type in which numbers are stored; float16 takes half the space."""
    batch_size: int = 32
    """Sequences of each of the teacher's forward passes, 1 to 16,777,216."""
    shared_by: int = 0
    """Number of runs that share the cache's FLOPs, up to 1,000,000,000; 0: those of this recipe
    that read it."""

    def __post_init__(self) -> None:
        check_setting(self.source, "cache.source")
        check_range(self, "cache.", 1, 2**24, "k", "batch_size")
        check_range(self, "cache.", 0, 10**9, "shared_by")
        check_range(self, "cache.", 0, FLOAT32_LIMIT, "temperature", above=True)
