"""Every setting of kdjax: frozen dataclasses, read from one YAML file plus dotted overrides.

A recipe is one YAML file. `load(path, ["--data.length", "64"])` reads it, applies the overrides, checks names and types
and returns a `Config`. jsonargparse does the reading: it takes plain dataclasses as they are.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from kdjax.errors import InputError, nearest

set_parsing_settings(docstring_parse_attribute_docstrings=True)


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
    validation: float = 0.05
    """Share of documents held out, chosen by the hash of a document's identity."""
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
        if self.shard_documents < 1:
            raise InputError(f"data.shard_documents is {self.shard_documents}, expected at least 1")


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


@dataclass(frozen=True)
class TermConfig:
    """One term of an objective."""

    name: str
    """The term: mlm, logit, attention_mse, hidden_mse, relation, …"""
    weight: float = 1.0
    """Its weight in the sum."""
    variant: Literal["original", "bui2024"] = "original"
    """The method's own paper, or what the code of arXiv 2404.19319 computes."""
    options: dict[str, int | float | str | list[list[int]]] = field(default_factory=dict)
    """The term's own options, for instance temperature or relation_heads."""


@dataclass(frozen=True)
class ArmConfig:
    """One way to spend the budget."""

    preset: str = ""
    """A named objective (scratch, logit, tinybert, minilm); empty: the arm's own name."""
    terms: tuple[TermConfig, ...] = ()
    """The objective written out, instead of a preset."""


@dataclass(frozen=True)
class BudgetConfig:
    """What each arm may spend."""

    flops: float = 1e12
    """FLOPs of all training steps, student and teacher, by XLA's count of the canonical program."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    batch: int = 256
    """Sequences of a step, over all devices."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimiser, the same for every arm."""
    checkpoint_seconds: float = 300.0
    """A checkpoint is saved when this much time has passed since the last."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    evaluations: int = 10
    """How often the held-out MLM loss is measured along the budget (not charged to it)."""

    def __post_init__(self) -> None:
        for name in ("batch", "log_every", "evaluations"):
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
    """Peak learning rate; 10% warm-up, linear decay to 0."""
    pool: Literal["first", "mean"] = "first"
    """What the head reads of the last layer: the first token (BERT's way) or the mean over
    tokens, which needs less training."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise InputError(f"evaluation.finetune.{name} is {getattr(self, name)}, expected at least {least}")
        if self.learning_rate <= 0:
            raise InputError(f"evaluation.finetune.learning_rate is {self.learning_rate}, expected more than 0")


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
    budget: BudgetConfig = BudgetConfig()
    """The budget of each arm."""
    train: TrainConfig = TrainConfig()
    """Training."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run per arm and seed; runs of a seed share start, order and masks."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation."""


def parser(prog: str = "kdjax") -> ArgumentParser:
    """The parser of a recipe's settings."""
    made = ArgumentParser(prog=prog, exit_on_error=False, add_help=False)
    made.add_class_arguments(Config)
    made.add_argument("--config", action="config", help="The recipe.")
    return made


def help_text() -> str:
    """Every setting with its type, default and meaning, by its dotted name."""
    lines = ["settings, in the recipe or on the command line as --SETTING VALUE:"]
    for name, kind, default, meaning in _settings(Config, Config(), ""):
        given = "" if default is dataclasses.MISSING else f" = {default!r}"
        lines += [
            "",
            f"  {name}: {kind}{given}",
            *textwrap.wrap(meaning, 100, initial_indent="      ", subsequent_indent="      "),
        ]
    return "\n".join(lines)


def _settings(cls: Any, instance: Any, prefix: str) -> Iterator[tuple[str, str, Any, str]]:
    """(dotted name, type, default, meaning) of every setting below a dataclass."""
    meanings = {
        found.arg_name: " ".join((found.description or "").split())
        for base in reversed(cls.__mro__[:-1])
        for found in docstring_parser.parse_from_object(base).params
    }
    hints = get_type_hints(cls)
    for f in dataclasses.fields(cls):
        hint, default = hints[f.name], getattr(instance, f.name, dataclasses.MISSING)
        inner = next((arg for arg in get_args(hint) if dataclasses.is_dataclass(arg)), None)
        if dataclasses.is_dataclass(hint):
            yield from _settings(hint, default, f"{prefix}{f.name}.")
            continue
        kind = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
        yield f"{prefix}{f.name}", re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", kind), default, meanings.get(f.name, "")
        if inner is not None:
            yield from _settings(inner, inner, f"{prefix}{f.name}.{'NAME' if get_origin(hint) is dict else 'N'}.")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a recipe.

    Args:
        path: a YAML file.
        overrides: dotted overrides as on a command line, for instance `["--data.length", "64"]`.

    Raises:
        InputError: no such file, not YAML, an unknown key or a value of the wrong type; names the nearest valid key.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise InputError(f"{path}: not a readable YAML recipe: {e}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: expected a mapping of settings, found {type(raw).__name__}")
    _check_keys(raw, Config, str(path), ())
    _check_overrides(overrides)
    try:
        namespace = parser().parse_args(["--config", str(path), *overrides])
        namespace.pop("config", None)
        instance = parser().instantiate(namespace)
    except InputError:
        raise
    except (
        Exception
    ) as e:  # argparse's, jsonargparse's and the dataclasses' own complaints: all about the user's values
        if isinstance(e.__cause__, InputError):
            raise e.__cause__ from None
        where = " ".join([str(path), *overrides])
        raise InputError(f"{where}: {_one_line(str(e))}") from None
    return Config(**dict(instance.items()))


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain values, for JSON and YAML."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict` after a trip through JSON or YAML."""
    made = parser()
    namespace = made.parse_object(dict(values))
    namespace.pop("config", None)
    return Config(**dict(made.instantiate(namespace).items()))


def dump(config: Config) -> str:
    """The resolved config as YAML that `load` reads back to an equal one."""
    return yaml.safe_dump(plain(to_dict(config)), sort_keys=False, allow_unicode=True)


def plain(value: Any) -> Any:
    """A tree of plain values with lists for tuples, as JSON and YAML give it back."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def _one_line(message: str) -> str:
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", message)
    return message.replace("typing.", "").replace("Parser key ", "")


def _fields_of(hint: Any) -> dict[str, Any] | None:
    return get_type_hints(hint) if dataclasses.is_dataclass(hint) else None


def _check_keys(raw: Any, hint: Any, where: str, path: tuple[str, ...]) -> None:
    """Raises for the first key the dataclasses do not have, with the nearest one they have."""
    known = _fields_of(hint)
    if known is not None:
        if not isinstance(raw, dict):
            return
        for key, value in raw.items():
            if key not in known:
                name = ".".join((*path, str(key)))
                raise InputError(f"{where}: unknown setting '{name}'{nearest(str(key), known)}")
            _check_keys(value, known[key], where, (*path, str(key)))
    elif get_origin(hint) is dict and isinstance(raw, dict):
        for key, value in raw.items():
            _check_keys(value, get_args(hint)[1], where, (*path, str(key)))
    elif get_origin(hint) is tuple and isinstance(raw, list):
        for n, value in enumerate(raw):
            _check_keys(value, get_args(hint)[0], where, (*path, str(n)))


def _check_overrides(overrides: Sequence[str]) -> None:
    for name in _override_names(overrides):
        hint: Any = Config
        parts = name.split(".")
        for n, part in enumerate(parts):
            known = _fields_of(hint)
            if known is not None:
                if part not in known:
                    shown = ".".join([*parts[:n], difflib.get_close_matches(part, list(known), n=1, cutoff=0.0)[0]])
                    raise InputError(f"command line: unknown setting '--{name}' (did you mean '--{shown}'?)")
                hint = known[part]
            elif get_origin(hint) is dict:
                hint = get_args(hint)[1]
            else:
                break


def _override_names(overrides: Sequence[str]) -> Iterator[str]:
    for word in overrides:
        if word.startswith("--"):
            yield word[2:].split("=")[0].removesuffix("+")
