"""The front door: one arm, its price, a budget, training, evaluation and saving, as functions.

`import kdjax` gives these names without importing JAX; the first use of one imports what it needs.
Whoever wants more control takes the parts below: `kdjax.training.phase.Phase.build_step` gives the
pure step, `kdjax.training.loop.TrainingLoop` is the loop around it.

In the examples `student` and `teacher` are models (`kdjax.models`), `arm` is one made of them,
`data` is prepared text, and `run` a run of the arm on it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kdjax import recipes
from kdjax.budget.accounting import CASES, Budget
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import Price
from kdjax.config import (
    ArmConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    MlmProbeConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
    predictions,
)
from kdjax.data.corpus import Corpus
from kdjax.data.prepare import local
from kdjax.data.prepare.preparation import TOKENIZER
from kdjax.errors import InputError, nearest
from kdjax.evaluation.mlm import HeldOut
from kdjax.models import Model, save_pretrained
from kdjax.parallel.layout import Layout
from kdjax.progress import Progress
from kdjax.runtime import standard_streams
from kdjax.storage import locks
from kdjax.storage.paths import local_path, path_text
from kdjax.study.batches import held_out_batches
from kdjax.study.compare import compare as run_study
from kdjax.study.measures.evaluation import Evaluation, mlm_probe_of
from kdjax.study.measures.task_scores import TaskScores
from kdjax.study.runs.arm_run import arm_run
from kdjax.study.runs.compiled_arm import compile_arm
from kdjax.tokenizers.tokenizer_files import locate_tokenizer
from kdjax.training.arm import Arm, resolve
from kdjax.training.phase import BatchShape
from kdjax.training.phase_price import price as phase_price
from kdjax.training.run_mask_rate import run_mask_rate
from kdjax.training.train import train as train_runs


@dataclass(frozen=True)
class ArmWithModels:
    """An arm, with the student it trains and the teacher it learns from.

    Attributes:
        definition: objective, phases and optimiser.
        student: the student before its first step.
        teacher: the teacher; None where the arm looks at none.
    """

    definition: Arm
    student: Model
    teacher: Model | None


@dataclass(frozen=True)
class PreparedText:
    """A prepared corpus, and how its sequences are masked.

    Attributes:
        corpus: tokenised, packed and sharded text, split into training and validation.
        settings: length, masking and split.
        tokenizer: the tokenizer.json it was prepared with.
    """

    corpus: Corpus
    settings: DataConfig
    tokenizer: Path


@dataclass(frozen=True)
class TrainedRun:
    """A run that has spent its budget.

    Attributes:
        arm: arm that was trained.
        params: the student's final parameters, on the host.
        ledger: account of what was spent, by part.
        curve: figures along the budget: step, flops, share of the budget, mlm_loss.
    """

    arm: ArmWithModels
    params: Any
    ledger: Ledger
    curve: list[dict[str, float]]

    @property
    def model(self) -> Model:
        """Return the trained student."""
        return Model(self.arm.student.config, self.params)


def flops(amount: float, teacher: str = "inference") -> Budget:
    """Make a budget of FLOPs.

    Args:
        amount: FLOPs.
        teacher: charged part of the teacher's cost: nothing, inference, training or both (Busbridge
            et al. 2025, arXiv 2502.08606).

    Raises:
        InputError: an unknown way to charge the teacher.

    Example:
        >>> print(kdjax.flops(1.5e12, teacher="both"))
        1.5e+12 FLOPs
    """
    if teacher not in CASES:
        raise InputError(
            f"teacher is {teacher!r}, expected one of {', '.join(CASES)}{nearest(teacher, CASES)}"
        )
    return Budget("flops", int(amount), teacher)


def tokens(amount: float) -> Budget:
    """Make a budget of tokens that the student sees: batch times length, padding included.

    Args:
        amount: tokens.

    Example:
        >>> print(kdjax.tokens(3.2e6))
        3.2e+06 tokens
    """
    return Budget("tokens", int(amount))


def hours(amount: float) -> Budget:
    """Make a budget of wall-clock hours of computing and of waiting for batches.

    Args:
        amount: hours.

    Example:
        >>> print(kdjax.hours(24))
        24 hours
    """
    return Budget("hours", amount)


def arm(
    name: str,
    student: Model,
    teacher: Model | None = None,
    *,
    settings: ArmConfig = ArmConfig(),
    optimizer: OptimizerConfig = OptimizerConfig(),
) -> ArmWithModels:
    """Make an arm ready for two models.

    Args:
        name: a named arm (`kdjax arms` lists them), or any name for one that `settings` write out.
        student: the student before its first step.
        teacher: the teacher; may be left out where the arm looks at none.
        settings: terms, phases and what else differs from the named arm. The student is as given:
            settings of `start` and `student` are refused.
        optimizer: the optimiser, its settings and the schedule of the learning rate.

    Raises:
        InputError: an unknown arm, an objective that these two models do not allow, or a missing
            teacher.

    Example:
        >>> arm = kdjax.arm("logit", student, teacher)
        >>> arm.definition.uses_teacher
        True
    """
    if settings.student or settings.start:
        raise InputError(
            f"arm {name!r}: settings of student and start are given, expected none: the student is "
            "the model itself"
        )
    teacher_config = None
    if teacher is not None:
        teacher_config = teacher.config
    definition = resolve(name, settings, student.config, teacher_config, optimizer)
    if not definition.uses_teacher:
        teacher = None
    return ArmWithModels(definition, student, teacher)


def price(
    arm: ArmWithModels,
    *,
    batch_size: int,
    seq_len: int,
    max_predictions: int | None = None,
    phase: int = 0,
) -> Price:
    """Count the FLOPs of one step, by part; needs no data.

    Args:
        arm: arm whose step is priced, between its two models.
        batch_size: sequences of a step.
        seq_len: tokens of a sequence.
        max_predictions: masked positions of a sequence, at most; None: 15% of them.
        phase: number of the arm's phase, from 0.

    Raises:
        FlopCountError: XLA's count cannot be trusted for this objective.

    Example:
        >>> distilled = kdjax.price(arm, batch_size=8, seq_len=12)
        >>> scratch = kdjax.price(kdjax.arm("scratch", student), batch_size=8, seq_len=12)
        >>> scratch.teacher_forward
        0
        >>> distilled.total > scratch.total
        True
    """
    if max_predictions is None:
        max_predictions = predictions(seq_len, DataConfig.mlm_probability)
    batch_shape = BatchShape(batch_size, seq_len, max_predictions)
    return phase_price(arm.definition.phases[phase], batch_shape)


def prepare(
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    tokenizer: str | Path | TokenizerConfig,
    seq_len: int = 128,
    max_predictions: int | None = None,
    mlm_probability: float = 0.15,
    mlm_probability_start: float = 0.0,
    validation: float = 0.05,
    text_field: str | Sequence[str] = DataConfig.text_field,
    documents: Literal["paragraphs", "lines", "files"] = "paragraphs",
    unusable: Literal["refuse", "skip"] = "refuse",
    deduplicate: bool = False,
    workers: int = 1,
) -> PreparedText:
    """Tokenise, pack and shard text, or find it done.

    One worker, the default, starts no other process, so that a plain script may call this at its
    top level. Several are faster on much text; each of them imports the script anew, which then has
    to call this under `if __name__ == "__main__":`.

    Args:
        files: paths or globs, as `data.files` of a recipe.
        out: the corpus's directory: new, empty, or an earlier preparation of the same text.
        tokenizer: a tokenizer.json, a directory that has a tokenizer, or how one is trained on this
            text.
        seq_len: tokens of a sequence.
        max_predictions: masked positions of a sequence, at most; None: as many as
            `mlm_probability` may need.
        mlm_probability: share of the tokens that are masked.
        mlm_probability_start: share of them when a run's budget begins, from which it goes on a
            line to `mlm_probability`; 0: the same throughout.
        validation: share of documents held out.
        text_field: name of the field, column or feature that holds the text; of several names, the
            first one present in a record counts.
        documents: what a document of a text file is: what stands between blank lines, a line, or
            the file.
        unusable: what happens to a record without a usable text: it ends the call, or it is left
            out and counted.
        deduplicate: whether a document whose text an earlier one has is left out.
        workers: number of processes that prepare; 0: one per core. Does not change the result.

    Raises:
        InputError: unusable text or tokenizer, or a directory that holds something else.

    Example:
        >>> data = kdjax.prepare("*.jsonl", "corpus", tokenizer="tokenizer.json", seq_len=32)
        >>> data.settings.seq_len, data.corpus.manifest.vocab_size
        (32, 53)
    """
    out = local_path(out, "out")
    if isinstance(files, (str, os.PathLike)):
        files = path_text(files, "files")
    elif isinstance(files, Sequence):
        files = tuple(path_text(path, "files") for path in files)
    else:
        raise InputError(f"files is {files!r:.80}, expected a path or a sequence of paths")
    if not isinstance(text_field, str):
        text_field = tuple(text_field)
    if not isinstance(tokenizer, TokenizerConfig):
        tokenizer = path_text(tokenizer, "tokenizer", "a tokenizer.json or a TokenizerConfig")
    settings = DataConfig(
        files=files,
        tokenizer=tokenizer,
        seq_len=seq_len,
        max_predictions=max_predictions or 0,
        mlm_probability=mlm_probability,
        mlm_probability_start=mlm_probability_start,
        validation=validation,
        text_field=text_field,
        documents=documents,
        unusable=unusable,
        deduplicate=deduplicate,
        workers=workers,
    )
    if isinstance(tokenizer, TokenizerConfig):
        local.prepare(settings, None, out)
        return PreparedText(Corpus.open(out), settings, out / TOKENIZER)
    tokenizer_file = locate_tokenizer(tokenizer)
    local.prepare(settings, tokenizer_file, out)
    return PreparedText(Corpus.open(out), settings, tokenizer_file)


def train(
    arm: ArmWithModels,
    data: PreparedText,
    budget: Budget,
    *,
    batch_size: int = 32,
    seed: int = 0,
    out: str | Path | None = None,
    settings: TrainConfig = TrainConfig(),
    watch: Callable[[Progress], None] = lambda progress: None,
) -> TrainedRun:
    """Train one arm until its budget is spent.

    Args:
        arm: arm to train, with its student and its teacher.
        data: text to train on; repeated where the budget outlasts it.
        budget: amount to spend; never overspent, and underspent by less than one step.
        batch_size: sequences of a step.
        seed: random seed of the data order, masks, dropout and the objective's projections.
        out: the run's directory, with ledger.jsonl, metrics.jsonl and checkpoints, in which a call
            that was interrupted goes on; None: a temporary one.
        settings: settings for computing, saving and logging. The batch is `batch_size`, the
            optimiser the arm's.
        watch: function called after every step with the ledger and the step's losses.

    Raises:
        Diverged: the loss is not finite.
        InputError: data that do not fit the models, or a budget below one step.

    Example:
        >>> run = kdjax.train(arm, data, kdjax.tokens(200), batch_size=8)
        >>> ledger = run.ledger
        >>> ledger.steps, ledger.padded_tokens  # a third step of 8 x 12 tokens would not fit
        (2, 192)
    """
    if out is not None:
        out = local_path(out, "out")
    settings = replace(settings, batch_size=batch_size)
    layout = Layout.from_config(settings.mesh)
    batch_shape = BatchShape(batch_size, data.settings.seq_len, data.settings.max_predictions)
    _check_vocabulary(arm, data)

    definition = arm.definition.ramped(settings.batch_ramp)
    prices = []
    for phase in definition.phases:
        phase_shape = phase.batch_shape(batch_shape)
        prices.append(phase_price(phase, phase_shape))
    # A budget that does not afford one step of each phase is refused before anything is written.
    spans = definition.schedule_phases(budget, prices, batch_shape) if budget.countable else ()
    masking = run_mask_rate(data.settings, budget, spans)

    # Compile each phase, and place the teacher on the devices.
    config = replace(_recipe(data), train=settings)
    compiled_phases = compile_arm(
        definition,
        prices,
        batch_shape,
        [seed],
        config=config,
        corpus=data.corpus,
        layout=layout,
        teacher_params=arm.teacher.params if arm.teacher else None,
        mask_rate=masking,
    )

    with ExitStack() as stack:
        if out is None:
            out = stack.enter_context(tempfile.TemporaryDirectory(prefix="kdjax-"))
        stack.enter_context(locks.hold(out))
        spec = arm_run(
            definition,
            seed,
            compiled_phases[seed],
            config=config,
            budget=budget,
            evaluation=Evaluation(
                config.evaluation, _held_out(data, sequences=256), TaskScores(config.evaluation)
            ),
            start=arm.student.params,
            directory=Path(out),
            mask_rate=masking,
            watch=watch,
        )
        (outcome,) = train_runs(spec)
        outcome.require_finite()
    return TrainedRun(arm, outcome.params, outcome.ledger, outcome.curve)


def evaluate(
    run: TrainedRun | Model,
    data: PreparedText,
    *,
    sequences: int = 256,
    mlm_probe: MlmProbeConfig = MlmProbeConfig(),
) -> dict[str, float]:
    """Measure a model on held-out text with fixed masks.

    Args:
        run: a trained run, or a model.
        data: text whose validation split is measured; an MLM probe is fitted on its training split.
        sequences: held-out sequences, at most.
        mlm_probe: the probe's settings; without tokens there is none.

    Returns:
        `mlm_loss` and `mlm_accuracy` of the model's own head, in nats and as a share, where it has
        one that was trained; `mlm_probe`, the loss of a fresh head on the frozen model, where
        `mlm_probe.tokens` is set.

    Raises:
        InputError: no held-out text, a result that is not finite, or nothing to measure: no trained
            head and no probe.

    Example:
        >>> sorted(kdjax.evaluate(run, data))
        ['mlm_accuracy', 'mlm_loss']
    """
    if isinstance(run, Model):
        model = run
        has_head = "mlm" in model.params
    else:
        model = run.model
        has_head = run.arm.definition.trains_mlm_head
    if not has_head and not mlm_probe.tokens:
        raise InputError(
            "the model has no trained MLM head and mlm_probe.tokens is 0, expected tokens for a "
            "probe, for instance mlm_probe=MlmProbeConfig(tokens=3e5)"
        )
    held_out = _held_out(data, sequences)
    figures: dict[str, float] = {}
    if has_head:
        result = held_out.measure(model.config, model.params)
        figures["mlm_loss"] = result.loss
        figures["mlm_accuracy"] = result.accuracy
    probe = mlm_probe_of(_recipe(data, mlm_probe=mlm_probe), data.corpus)
    if probe is not None:
        fitted = probe.fit(model.config, model.params)
        figures["mlm_probe"] = fitted.measure(held_out).loss
    return figures


def save(
    run: TrainedRun | Model,
    directory: str | Path,
    data: PreparedText | None = None,
    *,
    for_transformers: bool = False,
) -> None:
    """Write a directory that `kdjax.models.from_pretrained` reads.

    transformers reads it too, where it has a class of this architecture.

    Args:
        run: a trained run, or a model.
        directory: new, empty, or written by this function before.
        data: the text it was trained on, whose tokenizer is put beside the weights.
        for_transformers: whether a model that no class of transformers computes is refused, with
            the nearest class and what differs.

    Raises:
        InputError: a directory that holds other files or cannot be written, or a model that is
            refused.

    Example:
        >>> kdjax.save(run, "trained", data)
        >>> kdjax.models.from_pretrained("trained").config == run.model.config
        True
    """
    model = run.model if isinstance(run, TrainedRun) else run
    tokenizer = None
    if data:
        tokenizer = data.tokenizer
    save_pretrained(model, directory, tokenizer=tokenizer, for_transformers=for_transformers)


def compare(recipe: str | Path | Config, out: str | Path, overrides: Sequence[str] = ()) -> Any:
    """Run a whole study, or go on with an interrupted one, as `kdjax compare` does.

    Args:
        recipe: a YAML file, or the settings themselves.
        out: directory for the study's results; one that was begun goes on.
        overrides: settings that replace a YAML file's, for instance `["--budget.flops", "1e12"]`.

    Returns:
        What results.json says.

    Raises:
        InputError: anything wrong with the recipe, the text, the teacher or the directory.

    Example:
        >>> results = kdjax.compare("recipe.yaml", "study", ["--seeds", "[0]"])
        2.00e7 FLOPs a run
        ...
        report: study/report.html
        >>> [(run.arm, run.seed) for run in results.runs]
        [('scratch', 0)]
    """
    config = recipe if isinstance(recipe, Config) else recipes.load(recipe, overrides)
    # What the program's terminal cannot show does not lose what was computed.
    with standard_streams.protected():
        return run_study(config, local_path(out, "out"))


def _check_vocabulary(arm: ArmWithModels, data: PreparedText) -> None:
    """Raise InputError where the text's tokenizer has more entries than the student's table."""
    entries = data.corpus.manifest.vocab_size
    rows = arm.student.config.vocab_size
    if entries > rows:
        raise InputError(
            f"{data.tokenizer}: has {entries} entries, expected at most the student's vocab_size, "
            f"{rows}"
        )


def _recipe(
    data: PreparedText, sequences: int = 256, mlm_probe: MlmProbeConfig = MlmProbeConfig()
) -> Config:
    """Return the settings by which a study would read this text."""
    evaluation = EvaluationConfig(mlm_sequences=sequences, mlm_probe=mlm_probe)
    return Config(data=data.settings, train=TrainConfig(batch_size=32), evaluation=evaluation)


def _held_out(data: PreparedText, sequences: int) -> HeldOut:
    """Read the held-out sequences with the masks that they have in every study."""
    return HeldOut(held_out_batches(_recipe(data, sequences), data.corpus))
