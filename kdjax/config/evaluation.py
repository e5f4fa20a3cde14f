"""What is measured once the budget is spent."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from kdjax.errors import InputError

TEXT_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a text of `evaluation.texts` may be called: its name is part of an endpoint's."""


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
    """Column whose hash decides the split; empty: the record's key in a .json mapping, else the
    text."""
    where: dict[str, str] = field(default_factory=dict)
    """Column -> value: only rows that have it are used."""
    drop_labels: tuple[str, ...] = ()
    """Labels whose rows are left out."""
    regression: bool = False
    """Whether the label is a number to predict (Pearson's r) or a class (accuracy)."""
    dev: float = 0.1
    """Share of rows for choosing (layer, regularisation)."""
    test: float = 0.1
    """Share of rows for the reported figure. With the corpus's `validation` share or more, a task
    on the corpus's own documents is tested on none the student was trained on only if this is at
    most that share."""


@dataclass(frozen=True)
class ProbeConfig:
    """Linear probes on frozen, mean-pooled features of every layer."""

    examples: int = 3000
    """Most training rows used."""
    strengths: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Inverse regularisation strengths C tried; the best on dev is kept, together with the
    layer."""

    def __post_init__(self) -> None:
        if self.examples < 2:
            raise InputError(f"evaluation.probe.examples is {self.examples}, expected at least 2")
        if not self.strengths or min(self.strengths) <= 0:
            raise InputError(
                f"evaluation.probe.strengths is {self.strengths}, expected one or more numbers "
                "above 0"
            )


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tuning of the whole encoder."""

    steps: int = 100
    """Steps; 0: no fine-tuning."""
    batch_size: int = 32
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
        for name, least in (("steps", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise InputError(
                    f"evaluation.finetune.{name} is {getattr(self, name)}, expected at least "
                    f"{least}"
                )
        if self.learning_rate <= 0:
            raise InputError(
                f"evaluation.finetune.learning_rate is {self.learning_rate}, expected more than 0"
            )
        if self.eps <= 0:
            raise InputError(f"evaluation.finetune.eps is {self.eps}, expected more than 0")
        for name in ("warmup", "weight_decay", "clip"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"evaluation.finetune.{name} is {getattr(self, name)}, expected at least 0"
                )


@dataclass(frozen=True)
class MlmProbeConfig:
    """A fresh MLM head fitted on the frozen model: held-out loss that every arm has."""

    tokens: float = 0.0
    """Tokens of the training text it is fitted on, batch x length a step, padding included; the
    same for every model, whatever its budget. 0: no probe."""
    batch_size: int = 8
    """Sequences of a step."""
    decoder: Literal["free", "tied"] = "free"
    """`free`: an output matrix of its own. `tied`: the model's word embedding, as BERT's head has
    it, which favours models that trained such a head."""
    features: Literal["mix", "last"] = "mix"
    """What it reads at a masked position: a learned mix of all layers, embeddings included (Peters
    et al. 2018, arXiv 1802.05365, equation 1), or the last layer alone."""
    learning_rate: float = 1e-2
    """Peak learning rate; Adam, linear warm-up over a tenth of the steps, linear decay to 0."""
    tolerance: float = 0.05
    """A probe counts as converged when the second half of its tokens lowered the held-out loss by
    at most so many nats."""
    charged: bool = False
    """Whether a budget of FLOPs pays for it: a run then trains with what is left of its budget."""
    along_the_way: bool = False
    """Whether it is fitted anew at each of `train.evaluations`, for the learning curve."""

    def __post_init__(self) -> None:
        where = "evaluation.mlm_probe"
        if not 0 <= self.tokens < math.inf:
            raise InputError(f"{where}.tokens is {self.tokens}, expected a number of at least 0")
        if self.batch_size < 1:
            raise InputError(f"{where}.batch_size is {self.batch_size}, expected at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"{where}.learning_rate is {self.learning_rate}, expected more than 0")
        if not 0 <= self.tolerance < math.inf:
            raise InputError(f"{where}.tolerance is {self.tolerance}, expected at least 0 nats")
        if self.charged and self.along_the_way:
            raise InputError(
                f"{where}.charged and along_the_way are both true, expected one of them: a run is "
                "charged for one probe, at its end"
            )


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured once the budget is spent: the same for every arm, and not charged to the
    budget (but for `mlm_probe` where it says so)."""

    mlm_sequences: int = 256
    """Held-out sequences for the MLM loss, with fixed masks."""
    mlm_probe: MlmProbeConfig = MlmProbeConfig()
    """The MLM probe: held-out loss of a fresh head on the frozen model, for every arm."""
    texts: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Name -> files as of `data.files`: held-out text from elsewhere, on which the MLM loss and the
    MLM probe are measured too, on at most `mlm_sequences` sequences of each."""
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    """The downstream tasks."""
    probe: ProbeConfig = ProbeConfig()
    """Linear probes."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Fine-tuning."""
    primary: str = ""
    """The endpoint on which every arm is tested against the baseline arm (the first one without a
    teacher), with Holm's adjustment for the number of arms: mlm_loss, mlm_probe, probe.TASK or
    finetune.TASK. Empty: none."""
    confidence: float = 0.95
    """Confidence of the paired intervals over seeds."""
    margin: float = 0.01
    """Two arms tie when the whole interval lies within this much of 0 (accuracy, r; for the MLM
    loss in nats)."""

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise InputError(
                f"evaluation.confidence is {self.confidence}, expected a number between 0 and 1, "
                "both excluded"
            )
        if not 0 <= self.margin < math.inf:
            raise InputError(
                f"evaluation.margin is {self.margin}, expected a finite number of at least 0"
            )
        for name, files in self.texts.items():
            if not TEXT_NAME.fullmatch(str(name)) or not isinstance(name, str):
                raise InputError(
                    f"evaluation.texts has {name!r:.80}, expected names of at most 64 letters, "
                    "digits, - and _, quoted where YAML reads something else"
                )
            if not files:
                raise InputError(f"evaluation.texts.{name} is empty, expected files")
