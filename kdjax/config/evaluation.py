"""Settings of the evaluation, once the budget is spent."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from kdjax.config.values import expect
from kdjax.errors import InputError

TEXT_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Names that a text of `evaluation.texts` may have: it is part of an endpoint's name."""


@dataclass(frozen=True)
class TaskConfig:
    """A labelled task: a file whose rows are split by the hash of their identity."""

    file: str
    """A .csv, .tsv, .jsonl or .json file (path or package:NAME/PATH)."""
    text: str = "text"
    """Column of the text."""
    label: str = "label"
    """Column of the label."""
    identity: str = ""
    """Column whose hash decides the split. Empty: the record's key in a .json mapping, else the
    text."""
    where: dict[str, str] = field(default_factory=dict)
    """Values by column: only rows that have all of them are used."""
    drop_labels: tuple[str, ...] = ()
    """Labels whose rows are left out."""
    regression: bool = False
    """Whether the label is a number to predict, measured by Pearson's r; else it is a class,
    measured by accuracy."""
    dev: float = 0.1
    """Share of rows by which layer and regularisation are chosen."""
    test: float = 0.1
    """Share of rows for the reported figure. A task on the corpus's own documents is tested on none
    that the student was trained on only if this is at most `data.validation`."""


@dataclass(frozen=True)
class ProbeConfig:
    """Linear probes on frozen, mean-pooled features of every layer."""

    examples: int = 3000
    """The most training rows that are used."""
    strengths: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Inverse regularisation strengths C to try; the best pair of strength and layer on dev is
    chosen."""

    def __post_init__(self) -> None:
        where = "evaluation.probe"
        least = min(self.strengths, default=0.0)
        expect(self.examples >= 2, f"{where}.examples", self.examples, "at least 2")
        expect(least > 0, f"{where}.strengths", self.strengths, "one or more numbers above 0")


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tuning of the whole encoder."""

    steps: int = 100
    """Number of steps; 0: no fine-tuning."""
    batch_size: int = 32
    """Rows of a step."""
    learning_rate: float = 1e-4
    """Peak learning rate, which decays to 0 on a line."""
    warmup: float = 0.1
    """Share of the steps that warm up; a number from 1 on is a number of steps."""
    weight_decay: float = 0.01
    """Decoupled weight decay; not on biases and LayerNorms."""
    eps: float = 1e-6
    """Adam's epsilon."""
    clip: float = 0.0
    """Largest global gradient norm; 0: no clipping."""
    pool: Literal["first", "mean"] = "first"
    """What the head reads of the last layer: the first token, as in BERT, or the mean over tokens,
    which needs less training."""

    def __post_init__(self) -> None:
        where = "evaluation.finetune"
        expect(self.batch_size >= 1, f"{where}.batch_size", self.batch_size, "at least 1")
        # Adam divides by eps where a gradient is 0.
        for name in ("learning_rate", "eps"):
            value = getattr(self, name)
            expect(value > 0, f"{where}.{name}", value, "more than 0")
        # 0 turns each of these off.
        for name in ("steps", "warmup", "weight_decay", "clip"):
            value = getattr(self, name)
            expect(value >= 0, f"{where}.{name}", value, "at least 0")


@dataclass(frozen=True)
class MlmProbeConfig:
    """A fresh MLM head on the frozen model, for a held-out loss that every arm has."""

    tokens: float = 0.0
    """Tokens of the training text that it is fitted on, batch x length a step, padding included.
    The same for every model, whatever its budget. 0: no probe."""
    batch_size: int = 8
    """Sequences of a step."""
    decoder: Literal["free", "tied"] = "free"
    """`free`: an output matrix of its own. `tied`: the model's word embedding, as BERT's head has
    it, which favours models that trained such a head."""
    features: Literal["mix", "last"] = "mix"
    """What it reads at a masked position: a learned mix of all layers, embeddings included (Peters
    et al. 2018, arXiv 1802.05365, equation 1), or the last layer alone."""
    learning_rate: float = 1e-2
    """Peak learning rate of Adam, with a linear warm-up over a tenth of the steps and a linear
    decay to 0."""
    tolerance: float = 0.05
    """Nats by which the second half of its tokens may lower the held-out loss of a probe that
    counts as converged."""
    charged: bool = False
    """Whether a budget of FLOPs pays for it: a run then trains with what is left of its budget."""
    along_the_way: bool = False
    """Whether it is fitted anew at each of `train.evaluations`, for the learning curve."""

    def __post_init__(self) -> None:
        where = "evaluation.mlm_probe"
        tokens = self.tokens
        rate = self.learning_rate
        tolerance = self.tolerance
        expect(0 <= tokens < math.inf, f"{where}.tokens", tokens, "a number of at least 0")
        expect(self.batch_size >= 1, f"{where}.batch_size", self.batch_size, "at least 1")
        expect(0 < rate < math.inf, f"{where}.learning_rate", rate, "more than 0")
        expect(0 <= tolerance < math.inf, f"{where}.tolerance", tolerance, "at least 0 nats")
        # A learning curve's probes come while the student trains, when the budget is not yet spent.
        if self.charged and self.along_the_way:
            raise InputError(
                f"{where}.charged and along_the_way are both true, expected one of them: a run is "
                "charged for one probe, at its end"
            )


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured once the budget is spent: the same for every arm, and charged to no budget
    (but `mlm_probe` where it is `charged`)."""

    mlm_sequences: int = 256
    """Held-out sequences for the MLM loss, with fixed masks."""
    mlm_probe: MlmProbeConfig = MlmProbeConfig()
    """The MLM probe: held-out loss of a fresh head on the frozen model, for every arm."""
    texts: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Held-out text from elsewhere: files, as in `data.files`, by the text's name. The MLM loss and
    the MLM probe are measured on at most `mlm_sequences` sequences of each, too."""
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    """The downstream tasks by name."""
    probe: ProbeConfig = ProbeConfig()
    """Linear probes."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Fine-tuning."""
    primary: str = ""
    """The endpoint on which every arm is tested against the baseline arm (the first one without a
    teacher), with Holm's adjustment for the number of arms: mlm_loss, mlm_probe, probe.TASK or
    finetune.TASK. Empty: none."""
    confidence: float = 0.95
    """Confidence level of the paired intervals over seeds."""
    margin: float = 0.01
    """Difference that does not matter, in the endpoint's unit (accuracy, r, or nats for the MLM
    loss): two arms tie when the whole interval lies within it."""

    def __post_init__(self) -> None:
        level = self.confidence
        between = "a number between 0 and 1, both excluded"
        expect(0 < level < 1, "evaluation.confidence", level, between)
        margin = self.margin
        finite = "a finite number of at least 0"
        expect(0 <= margin < math.inf, "evaluation.margin", margin, finite)
        # YAML reads a bare number or `no` as no name.
        for name, files in self.texts.items():
            if not TEXT_NAME.fullmatch(str(name)) or not isinstance(name, str):
                raise InputError(
                    f"evaluation.texts has {name!r:.80}, expected names of at most 64 letters, "
                    "digits, - and _, quoted where YAML reads something else"
                )
            expect(bool(files), f"evaluation.texts.{name}", "empty", "files")
