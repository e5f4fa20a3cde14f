"""The model card of an exported student: README.md with the Hub's head, from the run's record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

import kdjax
from kdjax.config import ModelConfig
from kdjax.evaluation.finetuning.results import FinetunedTask
from kdjax.models import Model, count_params
from kdjax.models.families import transformers_classes
from kdjax.models.families.task_heads import TASK_HEADS
from kdjax.report import numbers
from kdjax.report.phrases import counted
from kdjax.study.export import names
from kdjax.study.export.comparison import comparison_section
from kdjax.study.export.cost import cost_section
from kdjax.study.export.directory import Format
from kdjax.study.export.finetuned import TunedStudent
from kdjax.study.runs.recorded_run import RecordedRun
from kdjax.study.runs.retuning import scores_in_words, setting_in_words
from kdjax.study.runs.snapshots import Snapshot

USABLE_POSITIONS = 512
"""Positions that evaluations of encoders take for granted."""
PAPER = """@inproceedings{bui-etal-2024-knowledge,
  title = {Knowledge Distillation vs. Pretraining from Scratch under a Fixed (Computation) Budget},
  author = {Bui, Minh Duc and Schmidt, Fabian David and Glava{\\v{s}}, Goran and
            von der Wense, Katharina},
  year = {2024},
  eprint = {2404.19319},
  archivePrefix = {arXiv}
}"""


@dataclass(frozen=True)
class ExportedModel:
    """A model on its way out, as its card tells of it.

    Attributes:
        run: the run it is from.
        model: the encoder, with its MLM head where it has a trained one.
        library: library that its directory is for.
        license: licence that its user names, or that it is unknown.
        tuned: how it was fine-tuned on a task; None: it was not.
        snapshot: where on the run's way it is from; None: from its end.
    """

    run: RecordedRun
    model: Model
    library: Format
    license: str
    tuned: TunedStudent | None = None
    snapshot: Snapshot | None = None

    @property
    def has_mlm_head(self) -> bool:
        """Return whether it leaves with an MLM head."""
        return self.tuned is None and "mlm" in self.model.params

    @property
    def auto_class(self) -> str:
        """Return the class of transformers by which it is loaded."""
        if self.tuned is not None:
            return "AutoModelForSequenceClassification"
        if self.has_mlm_head:
            return "AutoModelForMaskedLM"
        return "AutoModel"


def model_card(exported: ExportedModel) -> str:
    """Return the text of README.md.

    Args:
        exported: the model that it is about.

    Raises:
        InputError: the study's results.json is damaged.
    """
    result = exported.run.result
    comparison = "What the study says of its arms is said of finished students."
    if exported.snapshot is None:
        comparison = comparison_section(exported.run)
    sections = {
        "": _what_it_is(exported),
        "How to load it": _loading(exported),
        "Mind": _limits(exported),
        "What it cost": cost_section(exported.run, exported.snapshot),
        "Text and licence": _text(exported),
        "What it scores": _scores(exported),
        "Beside the other arms": comparison,
        "How to cite": _citation(),
    }
    parts = [f"---\n{_head(exported)}---\n\n# {result.arm}, seed {result.seed}\n"]
    for title, text in sections.items():
        if title:
            parts.append(f"## {title}\n")
        parts.append(f"{text}\n")
    return "\n".join(parts)


def _head(exported: ExportedModel) -> str:
    """Return the card's settings, by which the Hub lists and runs the model."""
    head: dict[str, Any] = {
        "library_name": exported.library,
        "license": exported.license,
        "tags": ["kdjax", "masked-language-model", f"kdjax-arm-{exported.run.result.arm}"],
    }
    datasets = names.hub_datasets(exported.run.config)
    if datasets:
        head["datasets"] = datasets
    if exported.library == "sentence-transformers":
        head["pipeline_tag"] = "sentence-similarity"
    elif exported.tuned is not None:
        head["pipeline_tag"] = "text-classification"
    elif exported.has_mlm_head:
        head["pipeline_tag"] = "fill-mask"
    else:
        head["pipeline_tag"] = "feature-extraction"
    return yaml.safe_dump(head, sort_keys=False)


def _what_it_is(exported: ExportedModel) -> str:
    """Return sentences on the model: size, objective, teacher, task."""
    run = exported.run
    config = exported.model.config
    parameters = count_params(exported.model.params)
    total = parameters.embeddings + parameters.others
    teacher = ""
    if run.arm.needs_teacher:
        source = (run.manifest.teacher or {}).get("source") or ""
        named = f"`{names.public_name(source)}`" if source else "one that kdjax pretrained"
        uses = "It learned from a teacher" if run.arm.uses_teacher else "It started from a teacher"
        teacher = f" {uses}, {named}."
    tuned = ""
    if exported.tuned is not None:
        of_head = (
            f"It was then fine-tuned on `{exported.tuned.task}` with "
            f"{setting_in_words(exported.tuned.trial.setting, exported.tuned.trial.seed)}, the "
            f"setting of the protocol `{exported.tuned.protocol}`; that is not in the budget."
        )
        tuned = f"\n\n{of_head}"
    snapshot = ""
    if exported.snapshot is not None:
        snapshot = (
            f"\n\nThis is the student on its way, `{exported.snapshot.name}`: at the first step at "
            f"which it had seen {exported.snapshot.words:,} words. Its learning rate had not "
            "fallen to its end yet."
        )
    return (
        f"An encoder of {counted(config.layers, 'layer')}, width {config.width}, {config.heads} "
        f"heads, {total:,} parameters, of them {parameters.embeddings:,} in embeddings. kdjax "
        f"{kdjax.__version__} trained it as the arm `{run.result.arm}` of a study that compares "
        f"distillation and pretraining under one budget: {numbers.budget(run.result.budget)} a "
        f"run.{teacher} Objective: {_objective(run)}.{tuned}"
        f"{snapshot}"
    )


def _objective(run: RecordedRun) -> str:
    """Return the terms of the arm's phases, in words."""
    phases = []
    for phase in run.arm.phases:
        terms = ", ".join(f"`{key}`" for key, _, _ in phase.objective.terms)
        if phase.until < 1:
            terms += f" until {phase.until:g} of the budget"
        phases.append(terms)
    return "; then ".join(phases)


def _loading(exported: ExportedModel) -> str:
    """Return a program that loads the model."""
    if exported.library == "sentence-transformers":
        return (
            "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
            'model = SentenceTransformer("DIRECTORY or OWNER/NAME")\n'
            'vectors = model.encode(["A sentence.", "Another one."])\n```'
        )
    options = ""
    if exported.auto_class == "AutoModel" and _has_pooler(exported.model.config):
        options = ", add_pooling_layer=False"
    lines = [
        f"from transformers import {exported.auto_class}, AutoTokenizer",
        "",
        'source = "DIRECTORY or OWNER/NAME"',
        "tokenizer = AutoTokenizer.from_pretrained(source)",
        f"model = {exported.auto_class}.from_pretrained(source{options})",
    ]
    return "\n".join(["```python", *lines, "```"])


def _has_pooler(config: ModelConfig) -> bool:
    """Return whether the class of transformers has a pooler beside the encoder."""
    stored = transformers_classes.class_of(config)
    return stored is not None and stored.has_pooler


def _limits(exported: ExportedModel) -> str:
    """Return the limits that a user has to know, a line each."""
    config = exported.model.config
    seq_len = exported.run.config.data.seq_len
    lines = [
        f"It takes {config.max_positions:,} positions and was trained on sequences of "
        f"{seq_len:,} tokens; of longer texts it has seen none."
    ]
    if config.max_positions < USABLE_POSITIONS:
        lines.append(
            f"That is fewer than {USABLE_POSITIONS}: cut texts to {config.max_positions:,} tokens, "
            "special ones included."
        )
    stored = transformers_classes.class_of(config)
    if exported.tuned is None and not exported.has_mlm_head:
        if exported.run.arm.trains_mlm_head:
            lines.append("Its MLM head is left out: nothing here reads it.")
        else:
            lines.append(
                "It has no trained MLM head: this arm's objective trains the encoder alone. "
                "`AutoModelForMaskedLM` would start one at random."
            )
    if exported.tuned is None and _has_pooler(config):
        lines.append(
            "It has no pooler: `AutoModel` starts one at random unless told otherwise. Read the "
            "last layer's states."
        )
    if exported.tuned is None and stored is not None and stored.model_type not in TASK_HEADS:
        lines.append("`--task` cannot export it: its class has another head than kdjax fits.")
    if exported.tuned is not None and not exported.tuned.head.classes:
        lines.append("Its output is a number in the unit of the labels.")
    if config.type_vocab_size > 1 and exported.tuned is None:
        lines.append("In pretraining every token was of type 0: that of type 1 is untrained.")
    return "\n".join(f"- {line}" for line in lines)


def _text(exported: ExportedModel) -> str:
    """Return the lines on the training text and its licence."""
    config = exported.run.config
    texts = ", ".join(f"`{name}`" for name in names.text_names(config)) or "not named"
    licence = f"The model's licence is `{exported.license}`, as its user says."
    if exported.license == names.UNKNOWN_LICENSE:
        licence = "Nobody has said under which licence the model is."
    return (
        f"Trained on {texts}; digest of the prepared text `{exported.run.manifest.corpus}`. "
        f"{licence} That of the text, and of a teacher, is for its user to look up."
    )


def _scores(exported: ExportedModel) -> str:
    """Return the lines on the scores of the run, or of the fine-tuned model."""
    run = exported.run
    if exported.snapshot is not None:
        return "Nothing was measured of it; of the finished student the card says it."
    lines = []
    if exported.tuned is not None:
        trial = exported.tuned.trial
        lines += [f"Of this model: {scores_in_words(trial)}; {exported.tuned.as_recorded}.", ""]
    lines += ["| measure | value |", "|---|---|"]
    for endpoint, value in run.result.metrics.items():
        detail = run.result.details.get(endpoint)
        note = ""
        if isinstance(detail, FinetunedTask) and detail.failed:
            note = " (a trial failed)"
        lines.append(f"| {endpoint} | {value:.4f}{note} |")
    if not run.result.metrics:
        return "Nothing was measured of it."
    return "\n".join(lines)


def _citation() -> str:
    """Return the lines on citing the paper and this tool."""
    tool = (
        "@software{kdjax,\n  title = {kdjax: distil or pretrain under one exact compute budget},\n"
        f"  version = {{{kdjax.__version__}}}\n}}"
    )
    return f"```bibtex\n{PAPER}\n\n{tool}\n```"
