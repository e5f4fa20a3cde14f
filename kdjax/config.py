"""Every setting of kdjax: frozen dataclasses. `kdjax.recipes` reads them from YAML and the command line."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from kdjax.errors import InputError, nearest


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What a BERT encoder has besides its size."""

    vocab_size: int = 30522
    """Entries of the vocabulary."""
    positions: int = 512
    """Longest sequence the position embeddings allow, in tokens."""
    types: int = 2
    """Entries of the token type embedding."""
    norm: Literal["post", "pre"] = "post"
    """Where LayerNorm stands: after each residual sum (post, BERT's) or before each block (pre)."""
    embedding_norm: bool = True
    """Whether the embedding output passes a LayerNorm."""
    gelu: Literal["exact", "tanh"] = "exact"
    """The GELU: with the error function, or its tanh approximation."""
    dropout: float = 0.1
    """Dropout rate of embeddings and of both blocks' outputs."""
    attention_dropout: float = 0.1
    """Dropout rate of the attention probabilities."""
    norm_eps: float = 1e-12
    """Epsilon of every LayerNorm."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelOptions):
    """One BERT encoder, fully determined. `kdjax.models.zoo` has the named sizes."""

    layers: int
    """Transformer layers."""
    width: int
    """Hidden width D."""
    heads: int
    """Attention heads; they divide the width."""
    ffn: int
    """Width of the feed-forward block."""

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "ffn", "vocab_size", "positions", "types"):
            if getattr(self, name) < 1:
                raise InputError(f"model: {name} is {getattr(self, name)}, expected at least 1")
        if self.width % self.heads:
            raise InputError(f"model: {self.heads} heads do not divide the width {self.width}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"model: {name} is {getattr(self, name)}, expected a rate in [0, 1)")

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class ModelSpec(ModelOptions):
    """A model by name, with whatever shall differ from the name."""

    size: str = "6x768"
    """A named size (`kdjax.models.zoo`): sets layers, width, heads and ffn."""
    layers: int | None = None
    """Transformer layers, where not the named size's."""
    width: int | None = None
    """Hidden width, where not the named size's."""
    heads: int | None = None
    """Attention heads, where not the named size's."""
    ffn: int | None = None
    """Width of the feed-forward block, where not the named size's."""


@dataclass(frozen=True)
class DataConfig:
    """The corpus: from raw text to fixed-length sequences."""

    files: str | tuple[str, ...] = ()
    """Text: paths or globs of .txt (documents are separated by blank lines), .jsonl (one record a line) or .json (a
    list or a mapping of records); `package:NAME/PATH` reads a file an installed package carries."""
    text_field: str | tuple[str, ...] = ("text", "extract")
    """Field of a JSON record that holds the text; of several, the first one present."""
    tokenizer: str = ""
    """A Hugging Face tokenizer.json (path or package:NAME/PATH). Empty: the one beside the teacher's weights."""
    length: int = 128
    """Tokens of a sequence, [CLS] and [SEP] included."""
    slots: int = 20
    """Masked positions a sequence can have: fixed, so that shapes are; unused ones get weight 0."""
    mask_rate: float = 0.15
    """Share of a sequence's tokens that are masked (never special tokens or padding), at most `slots`."""
    views: int = 0
    """Mask views of a sequence: epoch e of seed s sees view (e + s) modulo this, the same for every seed. 0: new masks
    in every epoch, and of every seed."""
    validation: float = 0.05
    """Share of documents held out, chosen by the hash of a document's identity."""
    regime: Literal["all", "unlimited", "limited"] = "all"
    """How much unique text there is: all of it, repeated where the budget outlasts it; unlimited, where a budget that
    would repeat any of it is refused; limited, where `unique_tokens` of it are taken and repeated."""
    unique_tokens: float = 0.0
    """Tokens of the limited regime: whole sequences, chosen by `subset_seed`, that hold at most so many."""
    subset_seed: int = 0
    """Which sequences the limited regime takes: under one seed, a smaller subset lies within a larger one."""
    shard_documents: int = 4096
    """Documents packed together into one shard."""
    workers: int = 0
    """Processes that prepare; 0: one per core. Does not change the result."""
    prepared: str = ""
    """Directory of an already prepared corpus. Empty: the command prepares one in its output directory."""

    def __post_init__(self) -> None:
        if self.length < 8:
            raise InputError(f"data.length is {self.length}, expected at least 8 tokens")
        if not 1 <= self.slots < self.length:
            raise InputError(f"data.slots is {self.slots}, expected 1 to data.length - 1 ({self.length - 1})")
        if not 0 < self.mask_rate < 1:
            raise InputError(f"data.mask_rate is {self.mask_rate}, expected a share between 0 and 1")
        if not 0 < self.validation < 1:
            raise InputError(f"data.validation is {self.validation}, expected a share between 0 and 1")
        if self.views < 0:
            raise InputError(f"data.views is {self.views}, expected at least 0")
        if self.shard_documents < 1:
            raise InputError(f"data.shard_documents is {self.shard_documents}, expected at least 1")
        if (self.regime == "limited") != (self.unique_tokens > 0):
            raise InputError(
                f"data.unique_tokens is {self.unique_tokens:g} under data.regime {self.regime!r}, expected more than 0 "
                "with 'limited' and 0 without"
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and linear decay to 0, sized to the budget."""

    learning_rate: float = 5e-4
    """Peak learning rate."""
    warmup: float = 0.06
    """Share of the steps that warm up."""
    weight_decay: float = 0.01
    """Decoupled weight decay; not on biases and LayerNorms, nor on what gets no gradient."""
    b1: float = 0.9
    """Adam's beta 1."""
    b2: float = 0.98
    """Adam's beta 2."""
    eps: float = 1e-6
    """Adam's epsilon."""
    clip: float = 0.0
    """Largest global gradient norm; 0: no clipping."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise InputError(f"learning_rate is {self.learning_rate}, expected more than 0")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup is {self.warmup}, expected a share in [0, 1)")
        if self.eps <= 0:
            raise InputError(f"eps is {self.eps}, expected more than 0: what gets no gradient is divided by it")


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
class Schedule:
    """A number that changes over the budget; before its first point and after its last it stays as it is there."""

    shape: Literal["linear", "cosine", "step"] = "linear"
    """How it gets from one point to the next: on a line, on half a cosine wave, or all at once when that is reached."""
    points: tuple[tuple[float, float], ...] = ()
    """Points [share of the arm's budget spent, value], in ascending order."""

    def __post_init__(self) -> None:
        numbers = [number for point in self.points for number in point]
        if not self.points or not all(math.isfinite(number) for number in numbers):
            raise InputError(f"schedule: points are {list(self.points)}, expected one or more pairs of finite numbers")
        shares = [share for share, _ in self.points]
        if not (shares[0] >= 0 and shares[-1] <= 1 and all(a < b for a, b in pairwise(shares))):
            raise InputError(f"schedule: points are at {shares}, expected ascending shares of the budget from 0 to 1")


@dataclass(frozen=True)
class TermConfig:
    """One term of an objective."""

    name: str
    """The term: mlm, logit, attention_mse, hidden_mse, relation, …; or MODULE:NAME, one of your own: it is imported."""
    weight: float | Schedule = 1.0
    """Its weight in the sum: a number, or a schedule {shape, points} over the budget."""
    variant: Literal["original", "bui2024"] = "original"
    """The method's own paper, or what the code of arXiv 2404.19319 computes."""
    options: dict[str, Any] = field(default_factory=dict)
    """The term's own options, for instance temperature (a number or a schedule) or relation_heads."""


@dataclass(frozen=True)
class PhaseConfig:
    """A stretch of an arm with its own objective, compiled and priced by itself."""

    terms: tuple[TermConfig, ...]
    """Its objective."""
    until: float = 1.0
    """Share of the arm's budget at which it ends; the last phase ends at 1."""


@dataclass(frozen=True)
class StartConfig:
    """Where the student's parameters start."""

    source: Literal["random", "teacher"] = "random"
    """As BERT starts, or from the teacher's embeddings, layers and MLM head: copied where the widths are equal, else
    projected by a truncated SVD."""
    layers: str | tuple[int, ...] = "uniform"
    """Which teacher layers: uniform (every k-th), spread (evenly from the first to the last, as DistilBERT), lower,
    upper, or one number for each student layer."""


@dataclass(frozen=True)
class ArmConfig:
    """One way to spend the budget. What is not set here is the preset's, and what that leaves open the recipe's."""

    preset: str = ""
    """A named arm (`kdjax arms` lists them); empty: the arm's own name, unless terms or phases are given."""
    terms: tuple[TermConfig, ...] = ()
    """The objective written out, instead of a preset."""
    phases: tuple[PhaseConfig, ...] = ()
    """Several objectives one after another, instead of a preset."""
    teacher: Literal["online", "cached"] = "online"
    """Whether the teacher runs inside every step, or its stored outputs are read."""
    start: StartConfig | None = None
    """Where the student starts."""
    student: dict[str, Any] = field(default_factory=dict)
    """Settings of `student` that differ for this arm."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """Settings of `train.optimizer` that differ for this arm."""
    finetune: dict[str, Any] = field(default_factory=dict)
    """Settings of `evaluation.finetune` that differ for this arm."""


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


KINDS = ("flops", "tokens", "hours")
"""The kinds of budget."""


@dataclass(frozen=True)
class BudgetConfig:
    """What each run may spend: FLOPs, tokens or hours, one of them."""

    flops: float = 0.0
    """FLOPs of the training steps by XLA's count of the canonical program; which of the teacher's count: `teacher`."""
    tokens: float = 0.0
    """Tokens the student sees: batch x length a step, padding included."""
    hours: float = 0.0
    """Wall-clock hours of what `clock` names."""
    clock: tuple[Literal["compute", "input", "compile", "checkpoint", "evaluation"], ...] = ("compute", "input")
    """What a budget of hours counts: steps, waiting for batches, compiling, saving, evaluating along the way."""
    teacher: Literal["nothing", "inference", "training", "both"] = "inference"
    """What of the teacher a budget of FLOPs pays for: nothing, its forward passes (or their stored outputs), its
    training, or both (the four cases of Busbridge et al. 2025, arXiv 2502.08606)."""
    students: int = 1
    """Students that share what the teacher's training cost."""

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in KINDS if getattr(self, name)}
        for name, value in given.items():
            if not 0 < value < math.inf:
                raise InputError(f"budget.{name} is {value}, expected a number above 0")
        if len(given) > 1:
            named = " and ".join(f"budget.{name} {value:g}" for name, value in given.items())
            raise InputError(f"{named} are both set, expected one of flops, tokens and hours, and 0 for the others")
        if self.students < 1:
            raise InputError(f"budget.students is {self.students}, expected at least 1")
        if not self.clock:
            raise InputError("budget.clock is empty, expected at least one of compute, input, compile, …")

    @property
    def kind(self) -> str:
        """Which kind of budget is set; flops where none is."""
        return next((name for name in KINDS if getattr(self, name)), "flops")


@dataclass(frozen=True)
class ComputeConfig:
    """How a step is computed. Changes neither the price nor, but for rounding, the result."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and matmuls. Parameters, optimiser, softmax, LayerNorm and losses stay float32."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass computes again to save memory: nothing, all but the linear layers' results, or whole
    layers. Without `scan`, XLA's CPU compiler merges the second computation with the first, and nothing is saved."""
    scan: bool = False
    """Whether runs of layers that are alike are one loop, which compiles faster."""
    attention: Literal["plain", "fused"] = "plain"
    """Whether attention whose scores nobody asks for goes through jax.nn.dot_product_attention, which takes a fused
    kernel where JAX has one for the device. It has no attention dropout."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    batch: int = 256
    """Sequences of a step, over all devices."""
    microbatches: int = 1
    """Parts in which each device takes its sequences, one after another, to save memory. Changes neither the result
    (but for rounding, and dropout's random numbers) nor the price."""
    compute: ComputeConfig = ComputeConfig()
    """How a step is computed."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimiser, the same for every arm."""
    checkpoint_seconds: float = 300.0
    """A checkpoint is saved when this much time has passed since the last."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    evaluations: int = 10
    """How often the held-out MLM loss is measured along the budget (not charged to it)."""

    def __post_init__(self) -> None:
        for name in ("batch", "microbatches", "log_every", "evaluations"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} is {getattr(self, name)}, expected at least 1")


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
    confidence: float = 0.95
    """Confidence of the paired intervals over seeds."""
    margin: float = 0.01
    """Two arms tie when the whole interval lies within this much of 0 (accuracy, r; for the MLM loss in nats)."""


@dataclass(frozen=True)
class RangeConfig:
    """Values that tuning may try: a range of numbers, or a list of choices."""

    low: float = 0.0
    """Lowest number."""
    high: float = 0.0
    """Highest number."""
    log: bool = False
    """Whether they are drawn evenly on a logarithmic scale."""
    choices: tuple[Any, ...] = ()
    """The values, instead of a range."""

    def __post_init__(self) -> None:
        if self.choices and (self.low, self.high, self.log) != (0.0, 0.0, False):
            raise InputError("tune.space: found choices and a range, expected one of them")
        if not self.choices and not (self.low < self.high and (self.low > 0 or not self.log)):
            kind = "0 < low < high" if self.log else "low < high"
            raise InputError(f"tune.space: found low {self.low:g} and high {self.high:g}, expected {kind}, or choices")


@dataclass(frozen=True)
class TuneConfig:
    """Equal tuning: every arm gets the same number of trials of the same budget, on seeds of their own."""

    trials: int = 0
    """Trials of each arm."""
    space: dict[str, RangeConfig] = field(default_factory=dict)
    """An arm's own setting -> the values to try, for instance optimizer.learning_rate."""
    endpoint: str = "mlm_loss"
    """What is optimised: mlm_loss, on held-out sequences that no evaluation uses, or probe.TASK on its dev rows."""
    share: float = 1.0
    """Budget of a trial, as a share of the recipe's."""
    seeds: tuple[int, ...] = (1000,)
    """Seeds of a trial; its value is the mean over them. None of them may be among the recipe's seeds."""
    sampler: Literal["tpe", "random", "qmc"] = "tpe"
    """Optuna's sampler: tpe learns from the arm's trials so far; random and qmc give every arm the same points."""
    sampler_seed: int = 0
    """Its seed."""

    def __post_init__(self) -> None:
        if self.trials < 0:
            raise InputError(f"tune.trials is {self.trials}, expected at least 0")
        if not 0 < self.share <= 1:
            raise InputError(f"tune.share is {self.share}, expected a share of the budget above 0, up to 1")


@dataclass(frozen=True)
class PlanConfig:
    """A forecast of what each arm would reach at budgets nobody has spent."""

    pilot: str = ""
    """Directory of a finished sweep over budgets with this recipe's arms: what the forecast is fitted to. Empty: only
    prices and published laws."""
    budgets: tuple[float, ...] = ()
    """Budgets to forecast, in FLOPs. Empty: 1, 3, 10, 30 and 100 times the pilot's largest, or the recipe's."""
    endpoint: str = "mlm_loss"
    """Which endpoint is forecast."""
    resamples: int = 1000
    """Bootstrap resamples."""
    seed: int = 0
    """Their seed."""

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise InputError(f"plan.resamples is {self.resamples}, expected at least 100")
        if any(not 0 < budget < math.inf for budget in self.budgets):
            raise InputError(f"plan.budgets is {list(self.budgets)}, expected numbers of FLOPs above 0")


@dataclass(frozen=True)
class Config:
    """A recipe: corpus, student, teacher, arms, budget, seeds, evaluation."""

    data: DataConfig = DataConfig()
    """The corpus."""
    student: ModelSpec = ModelSpec()
    """The student."""
    teacher: TeacherConfig = TeacherConfig()
    """The teacher."""
    arms: dict[str, ArmConfig] = field(default_factory=dict)
    """Arms by name."""
    cache: CacheConfig = CacheConfig()
    """Stored teacher outputs."""
    budget: BudgetConfig = BudgetConfig()
    """The budget of each arm."""
    train: TrainConfig = TrainConfig()
    """Training."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run per arm and seed; runs of a seed share start, order and masks."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation."""
    sweep: dict[str, Any] = field(default_factory=dict)
    """A dotted setting -> a list of values, for `kdjax sweep`: every combination of values is a study."""
    tune: TuneConfig = TuneConfig()
    """Tuning, for `kdjax tune`."""
    tuning: str = ""
    """The tuning.json that this recipe's settings come from; its trials are counted in the report."""
    plan: PlanConfig = PlanConfig()
    """Forecasts, for `kdjax plan`."""


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain values, for JSON and YAML."""
    return dataclasses.asdict(config)


def plain(value: Any) -> Any:
    """A tree of plain values with lists for tuples, as JSON and YAML give it back."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def changed(config: Any, changes: dict[str, Any], where: str) -> Any:
    """A config with some of its settings replaced.

    Args:
        config: a frozen dataclass.
        changes: setting -> value.
        where: the changes' dotted name, for messages.

    Raises:
        InputError: an unknown setting, or a value of another type or out of range.
    """
    known = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    for name, value in changes.items():
        if name not in known:
            raise InputError(f"{where}: unknown setting {name!r}{nearest(name, known)}")
        before = known[name]
        same = isinstance(value, type(before)) and isinstance(value, bool) == isinstance(before, bool)
        whole_for_real = isinstance(before, float) and isinstance(value, int) and not isinstance(value, bool)
        if before is not None and not (same or whole_for_real):
            raise InputError(f"{where}.{name} is {value!r}, expected {type(before).__name__}")
    try:
        return dataclasses.replace(config, **changes)
    except InputError as e:
        raise InputError(f"{where}: {e}") from None
