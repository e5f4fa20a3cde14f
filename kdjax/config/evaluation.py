"""What is measured once the budget is spent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kdjax.errors import InputError


@dataclass(frozen=True)
class TaskConfig:
    """A labelled task: one file, split by the hash of each row's identity."""

    file: str
    """.csv, .tsv, .jsonl or .json (path or package:NAME/PATH)."""
    text: str = "text"
    """Column of the text."""
    label: str = "label"
    """Column of the label."""
    identity: str = ""
    """Column whose hash decides the split; empty: the record's key in a .json mapping, else the text."""
    where: dict[str, str] = field(default_factory=dict)
    """Column -> value: only rows that have it are used."""
    drop_labels: tuple[str, ...] = ()
    """Labels whose rows are left out."""
    regression: bool = False
    """Whether the label is a number to predict (Pearson's r) or a class (accuracy)."""
    dev: float = 0.1
    """Share of rows for choosing (layer, regularisation)."""
    test: float = 0.1
    """Share of rows for the reported figure. With the corpus's `validation` share or more, a task on the corpus's own
    documents is tested on none the student was trained on only if this is at most that share."""


@dataclass(frozen=True)
class ProbeConfig:
    """Linear probes on frozen, mean-pooled features of every layer."""

    examples: int = 3000
    """Most training rows used."""
    strengths: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Inverse regularisation strengths C tried; the best on dev is kept, together with the layer."""

    def __post_init__(self) -> None:
        if self.examples < 2:
            raise InputError(f"evaluation.probe.examples is {self.examples}, expected at least 2")
        if not self.strengths or min(self.strengths) <= 0:
            raise InputError(f"evaluation.probe.strengths is {self.strengths}, expected one or more numbers above 0")


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tuning of the whole encoder."""

    steps: int = 100
    """Steps; 0: no fine-tuning."""
    batch: int = 32
    """Rows of a step."""
    learning_rate: float = 1e-4
    """Peak learning rate; linear decay to 0."""
    warmup: float = 0.1
    """Share of the steps that warm up; from 1 on, their number."""
    weight_decay: float = 0.01
    """Decoupled weight decay; not on biases and LayerNorms."""
    eps: float = 1e-6
    """Adam's epsilon."""
    clip: float = 0.0
    """Largest global gradient norm; 0: no clipping."""
    pool: Literal["first", "mean"] = "first"
    """What the head reads of the last layer: the first token (BERT's way) or the mean over
    tokens, which needs less training."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise InputError(f"evaluation.finetune.{name} is {getattr(self, name)}, expected at least {least}")
        if self.learning_rate <= 0:
            raise InputError(f"evaluation.finetune.learning_rate is {self.learning_rate}, expected more than 0")
        if self.eps <= 0:
            raise InputError(f"evaluation.finetune.eps is {self.eps}, expected more than 0")
        for name in ("warmup", "weight_decay", "clip"):
            if getattr(self, name) < 0:
                raise InputError(f"evaluation.finetune.{name} is {getattr(self, name)}, expected at least 0")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured once the budget is spent: the same for every arm, and not charged to the budget."""

    mlm_sequences: int = 256
    """Held-out sequences for the MLM loss, with fixed masks."""
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    """The downstream tasks."""
    probe: ProbeConfig = ProbeConfig()
    """Linear probes."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Fine-tuning."""
    primary: str = ""
    """The endpoint on which every arm is tested against the baseline arm (the first one without a teacher), with
    Holm's adjustment for the number of arms: mlm_loss, mlm_probe, probe.TASK or finetune.TASK. Empty: none."""
    confidence: float = 0.95
    """Confidence of the paired intervals over seeds."""
    margin: float = 0.01
    """Two arms tie when the whole interval lies within this much of 0 (accuracy, r; for the MLM loss in nats)."""
