"""Settings of the evaluation, once the budget is spent."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal, get_args

from kdjax.config.contamination import ContaminationConfig
from kdjax.config.finetune import FinetuneConfig
from kdjax.config.minimal_pairs import MinimalPairsConfig
from kdjax.config.suites import check_suite, has_mean, result_names
from kdjax.config.tasks import TaskConfig
from kdjax.config.values import (
    FLOAT32_LIMIT,
    LATER,
    TOKENS_LIMIT,
    check_names,
    check_number,
    check_range,
    expect,
)
from kdjax.config.verdicts import ContrastConfig, MarginsConfig, Scale, check_contrasts
from kdjax.errors import InputError
from kdjax.storage.paths import check_setting

Protocol = Literal["probe", "fixed", "grid", "few_shot"]
"""The ways to measure a model on a task."""
NO_ENDPOINT = "none"
"""Value of `evaluation.primary` for a study without a primary endpoint."""


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
    suite: Literal["", "glue", "babylm"] = ""
    """A suite of tasks besides: `glue` (Wang et al. 2019, arXiv 1804.07461), or `babylm`, the seven
    tasks of BabyLM 2025. Empty: none."""
    suite_tasks: tuple[str, ...] = ()
    """The suite's tasks that are read, such as [sst2, mrpc]. Empty: all."""
    glue: str = ""
    """Directory of GLUE: the official TSV files, or Parquet or JSON lines as on Hugging Face's hub;
    tfds:DIR or tfds:glue for what TFDS prepared."""
    babylm: str = ""
    """Directory of BabyLM's `glue_filtered`."""
    report_on: Literal["unseen", "dev"] = "unseen"
    """Which rows of a suite are reported. `unseen`: the official dev rows; settings are chosen on
    rows that are taken out of the training rows. `dev`: settings are chosen on the dev rows and
    reported on them, as papers do; that is optimistic."""
    selection: float = 0.1
    """Share of a suite's training rows that settings are chosen on with `report_on: unseen`,
    between 0 and 0.5."""
    contamination: ContaminationConfig = ContaminationConfig()
    """Whether rows of the tasks stand in the pretraining text, or among the training rows of
    another task."""
    seq_len: int = 0
    """The most tokens of a task's row, special tokens included, 8 to 65,536; longer rows are cut.
    0: `data.seq_len`."""
    protocols: tuple[Protocol, ...] = ("probe", "fixed")
    """How the tasks are measured, each protocol once: `probe` by linear probes on frozen states;
    `fixed` by fine-tuning with one setting for all tasks; `grid` by fine-tuning with every setting
    of a grid, of which the selection rows choose; `few_shot` by fine-tuning on few rows."""
    probe: ProbeConfig = ProbeConfig()
    """Linear probes."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Fine-tuning, for the protocols `fixed`, `grid` and `few_shot`."""
    primary: str = ""
    """The endpoint on which every arm is tested against the baseline arm, as the study's
    confirmatory tests: mlm_loss, mlm_probe, minimal_pairs.SET, or on tasks PROTOCOL.RESULT, such as
    probe.TASK, grid.mrpc or, for a whole suite's mean, grid.glue. Empty: mlm_probe where it is
    measured, and else none; none: no endpoint."""
    baseline: str = field(default="", metadata=LATER)
    """The arm that the others are held against. Empty: the first without a teacher, or the first
    where each needs one."""
    hypotheses: dict[str, ContrastConfig] = field(default_factory=dict, metadata=LATER)
    """Claims written down before the run, by name. They are confirmatory tests, too."""
    contrasts: dict[str, ContrastConfig] = field(default_factory=dict, metadata=LATER)
    """Further contrasts that are looked at, by name. They are secondary tests."""
    planned_seeds: int = field(default=0, metadata=LATER)
    """Seeds that the study is to have; with fewer its verdicts are provisional. 0: those of
    `seeds`; up to 1000."""
    confidence: float = 0.95
    """Confidence level of the paired intervals over seeds, between 0 and 1. What is left of 1 is
    the chance that a study of equal arms names a winner anywhere."""
    margin: float = 0.01
    """Difference that does not matter, in the endpoint's unit (accuracy, r, or nats for the MLM
    loss), where `margins` has none of its own: two arms tie when two one-sided tests show that
    theirs is smaller. From 0."""
    margins: MarginsConfig = field(default=MarginsConfig(), metadata=LATER)
    """Margins by kind of endpoint."""

    def __post_init__(self) -> None:
        # How runs are compared
        check_range(self, "evaluation.", 1, 10**9, "mlm_sequences")
        level = self.confidence
        between = "a number between 0 and 1, both excluded"
        is_level = not isinstance(level, bool) and 0 < level < 1
        expect(is_level, "evaluation.confidence", level, between)
        check_range(self, "evaluation.", 0, FLOAT32_LIMIT, "margin")
        check_range(self, "evaluation.", 0, 1000, "planned_seeds")
        check_contrasts(self.hypotheses, "evaluation.hypotheses")
        check_contrasts(self.contrasts, "evaluation.contrasts")

        # Tasks, and the protocols by which models are measured on them
        if self.seq_len:
            check_range(self, "evaluation.", 8, 2**16, "seq_len")
        names = get_args(Protocol)
        expected = f"some of {', '.join(names)}, each once"
        for protocol in self.protocols:
            expect(protocol in names, "evaluation.protocols", repr(protocol), expected)
        is_once = len(set(self.protocols)) == len(self.protocols)
        expect(is_once, "evaluation.protocols", list(self.protocols), expected)
        check_names(self.tasks, "evaluation.tasks")
        for name, task in self.tasks.items():
            task.check(f"evaluation.tasks.{name}")
        check_range(self, "evaluation.", 0, 0.5, "selection", above=True)
        check_setting(self.glue, "evaluation.glue")
        check_setting(self.babylm, "evaluation.babylm")
        check_suite(self.suite, self.suite_tasks, self.suite_place, self.tasks)

        # Held-out text from elsewhere
        check_names(self.texts, "evaluation.texts")
        for name, files in self.texts.items():
            expect(bool(files), f"evaluation.texts.{name}", "empty", "files")
            paths = (files,) if isinstance(files, str) else files
            for path in paths:
                check_setting(path, f"evaluation.texts.{name}", url=True, hub_file=True)

    @property
    def primary_endpoint(self) -> str:
        """Return the name of the primary endpoint; empty where there is none."""
        if self.primary == NO_ENDPOINT:
            return ""
        if not self.primary and self.mlm_probe.tokens:
            return "mlm_probe"
        return self.primary

    def margin_of(self, scale: Scale) -> float:
        """Return the largest difference that does not matter on endpoints of a kind."""
        of_scale: float | None = getattr(self.margins, scale)
        if of_scale is None:
            return self.margin
        return of_scale

    @property
    def suite_place(self) -> str:
        """Return the directory of the suite's data; empty where there is no suite."""
        return {"glue": self.glue, "babylm": self.babylm}.get(self.suite, "")

    @property
    def task_results(self) -> tuple[str, ...]:
        """Return the names of all tasks' results: one's own, then the suite's."""
        return (*self.tasks, *result_names(self.suite, self.suite_tasks))

    @property
    def task_endpoints(self) -> tuple[str, ...]:
        """Return the endpoints on tasks: `PROTOCOL.RESULT`, and `PROTOCOL.SUITE` for a suite's mean
        where all tasks of it are read."""
        names = list(self.task_results)
        if has_mean(self.suite, self.suite_tasks):
            names.append(self.suite)
        pairs = itertools.product(self.protocols, names)
        return tuple(f"{protocol}.{name}" for protocol, name in pairs)
