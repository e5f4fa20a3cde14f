"""Settings of the evaluation, once the budget is spent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kdjax.config.minimal_pairs import MinimalPairsConfig
from kdjax.config.values import (
    FLOAT32_LIMIT,
    TOKENS_LIMIT,
    check_mapping,
    check_names,
    check_number,
    check_range,
    expect,
)
from kdjax.errors import InputError
from kdjax.storage.paths import check_setting


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
    """Share of rows by which layer and regularisation are chosen, between 0 and 1."""
    test: float = 0.1
    """Share of rows for the reported figure. A task on the corpus's own documents is tested on none
    that the student was trained on only if this is at most `data.validation`. Between 0 and 1;
    with `dev` less than 1."""

    def check(self, name: str) -> None:
        """Check the settings.

        Args:
            name: dotted name of the task, for messages.

        Raises:
            InputError: one cannot be.
        """
        check_range(self, f"{name}.", 0, 1, "dev", "test", above=True)
        total = self.dev + self.test
        expected = "less than 1: the rest is trained on"
        expect(total < 1, f"{name}.dev and {name}.test", f"{total:g} together", expected)
        expect(bool(self.file), f"{name}.file", repr(self.file), "a path")
        check_setting(self.file, f"{name}.file")
        check_mapping(self.where, f"{name}.where")


@dataclass(frozen=True)
class ProbeConfig:
    """Linear probes on frozen, mean-pooled features of every layer."""

    examples: int = 3000
    """The most training rows that are used, 2 to 1,000,000,000."""
    strengths: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Inverse regularisation strengths C to try; the best pair of strength and layer on dev is
    chosen. One or more, each above 0 and up to 1e12."""

    def __post_init__(self) -> None:
        where = "evaluation.probe"
        check_range(self, f"{where}.", 2, 10**9, "examples")
        one_or_more = "one or more numbers above 0"
        expect(bool(self.strengths), f"{where}.strengths", self.strengths, one_or_more)
        for strength in self.strengths:
            check_number(strength, f"{where}.strengths", 0, 1e12, above=True)


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tuning of the whole encoder."""

    steps: int = 100
    """Number of steps, up to 1,000,000,000; 0: no fine-tuning."""
    batch_size: int = 32
    """Rows of a step, 1 to 16,777,216."""
    learning_rate: float = 1e-4
    """Peak learning rate, which decays to 0 on a line; above 0."""
    warmup: float = 0.1
    """Share of the steps that warm up, from 0; a number from 1 on is a number of steps."""
    weight_decay: float = 0.01
    """Decoupled weight decay, from 0; not on biases and LayerNorms."""
    eps: float = 1e-6
    """Adam's epsilon, above 0."""
    clip: float = 0.0
    """Largest global gradient norm, from 0; 0: no clipping."""
    pool: Literal["first", "mean"] = "first"
    """What the head reads of the last layer: the first token, as in BERT, or the mean over tokens,
    which needs less training."""

    def __post_init__(self) -> None:
        where = "evaluation.finetune"
        check_range(self, f"{where}.", 1, 2**24, "batch_size")
        # Adam divides by eps where a gradient is 0.
        check_range(self, f"{where}.", 0, FLOAT32_LIMIT, "learning_rate", "eps", above=True)
        # 0 turns each of these off.
        check_range(self, f"{where}.", 0, 10**9, "steps", "warmup")
        check_range(self, f"{where}.", 0, FLOAT32_LIMIT, "weight_decay", "clip")


@dataclass(frozen=True)
class MlmProbeConfig:
    """A fresh MLM head on the frozen model, for a held-out loss that every arm has."""

    tokens: float = 0.0
    """Tokens of the training text that it is fitted on, batch x length a step, padding included.
    The same for every model, whatever its budget. Up to 1e18; 0: no probe."""
    batch_size: int = 8
    """Sequences of a step, 1 to 16,777,216."""
    decoder: Literal["free", "tied"] = "free"
    """`free`: an output matrix of its own. `tied`: the model's word embedding, as BERT's head has
    it, which favours models that trained such a head."""
    features: Literal["mix", "last"] = "mix"
    """What it reads at a masked position: a learned mix of all layers, embeddings included (Peters
    et al. 2018, arXiv 1802.05365, equation 1), or the last layer alone."""
    learning_rate: float = 1e-2
    """Peak learning rate of Adam, with a linear warm-up over a tenth of the steps and a linear
    decay to 0. Above 0."""
    tolerance: float = 0.05
    """Nats by which the second half of its tokens may lower the held-out loss of a probe that
    counts as converged; from 0."""
    charged: bool = False
    """Whether a budget of FLOPs pays for it: a run then trains with what is left of its budget."""
    along_the_way: bool = False
    """Whether it is fitted anew at each of `train.evaluations`, for the learning curve."""

    def __post_init__(self) -> None:
        where = "evaluation.mlm_probe"
        check_range(self, f"{where}.", 0, TOKENS_LIMIT, "tokens")
        check_range(self, f"{where}.", 1, 2**24, "batch_size")
        check_range(self, f"{where}.", 0, FLOAT32_LIMIT, "learning_rate", above=True)
        check_range(self, f"{where}.", 0, FLOAT32_LIMIT, "tolerance")
        # Without tokens there is no probe that these could be about.
        for name in ("charged", "along_the_way"):
            if getattr(self, name) and not self.tokens:
                raise InputError(
                    f"{where}.{name} is true and {where}.tokens 0, expected tokens above 0 for it"
                )
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
    """Held-out sequences for the MLM loss, with fixed masks; 1 to 1,000,000,000, or all."""
    mlm_probe: MlmProbeConfig = MlmProbeConfig()
    """The MLM probe: held-out loss of a fresh head on the frozen model, for every arm."""
    texts: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Held-out text from elsewhere: files, as in `data.files`, by the text's name. The MLM loss and
    the MLM probe are measured on at most `mlm_sequences` sequences of each, too. Names have 1
    to 64 letters, digits, _, +, - and dots."""
    minimal_pairs: MinimalPairsConfig = MinimalPairsConfig()
    """Minimal pairs, for arms that train an MLM head."""
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    """The downstream tasks by name: 1 to 64 letters, digits, _, +, - and dots."""
    probe: ProbeConfig = ProbeConfig()
    """Linear probes."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Fine-tuning."""
    primary: str = ""
    """The endpoint on which every arm is tested against the baseline arm (the first one without a
    teacher), with Holm's adjustment for the number of arms: mlm_loss, mlm_probe,
    minimal_pairs.SET, probe.TASK or finetune.TASK. Empty: none."""
    confidence: float = 0.95
    """Confidence level of the paired intervals over seeds, between 0 and 1."""
    margin: float = 0.01
    """Difference that does not matter, in the endpoint's unit (accuracy, r, or nats for the MLM
    loss): two arms tie when the whole interval lies within it. From 0."""

    def __post_init__(self) -> None:
        check_range(self, "evaluation.", 1, 10**9, "mlm_sequences")
        level = self.confidence
        between = "a number between 0 and 1, both excluded"
        is_level = not isinstance(level, bool) and 0 < level < 1
        expect(is_level, "evaluation.confidence", level, between)
        check_range(self, "evaluation.", 0, FLOAT32_LIMIT, "margin")
        check_names(self.tasks, "evaluation.tasks")
        for name, task in self.tasks.items():
            task.check(f"evaluation.tasks.{name}")
        check_names(self.texts, "evaluation.texts")
        for name, files in self.texts.items():
            expect(bool(files), f"evaluation.texts.{name}", "empty", "files")
            for path in (files,) if isinstance(files, str) else files:
                check_setting(path, f"evaluation.texts.{name}")
