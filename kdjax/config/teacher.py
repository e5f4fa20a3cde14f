"""The teacher, and its stored outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    batch: int = 32
    """Sequences of a step."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    """Its optimiser."""


@dataclass(frozen=True)
class TeacherConfig:
    """The teacher: a Hugging Face BERT directory."""

    source: str = ""
    """Directory with config.json and model.safetensors (path or package:NAME/PATH)."""
    architecture: ModelSpec = ModelSpec(size="base")
    """Its architecture, so that pricing needs no weights; checked against the weights when they are read."""
    head: HeadConfig = HeadConfig()
    """Fits an MLM head first, where the directory has none."""
    note: str = ""
    """What readers of a report should know of the teacher, for instance how it was made."""
    training_flops: float = 0.0
    """What training it cost before, in FLOPs; 0: what its card says, or not known."""


@dataclass(frozen=True)
class CacheConfig:
    """Stored teacher outputs, for arms with `teacher: cached`. The corpus needs `data.views`."""

    source: str = ""
    """Directory that `kdjax cache` made. Empty: the study makes one in its output directory."""
    logits: Literal["all", "top_k", "sampled"] = "top_k"
    """What is kept of a distribution: all logits, the k largest probabilities and the mass of the rest, or k draws."""
    k: int = 64
    """Entries kept (top_k) or drawn (sampled) per position."""
    temperature: float = 1.0
    """Temperature at which `sampled` draws: that of the term that will read them."""
    dtype: Literal["float32", "float16"] = "float16"
    """How numbers are stored."""
    batch: int = 32
    """Sequences of one of the teacher's forward passes."""
    shared_by: int = 0
    """Runs over which the cache's FLOPs are shared; 0: those of this recipe that read it."""

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("batch", 1), ("shared_by", 0)):
            if getattr(self, name) < least:
                raise InputError(f"cache.{name} is {getattr(self, name)}, expected at least {least}")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"cache.temperature is {self.temperature}, expected a number above 0")
