"""The rules by which a recipe is scaled down for a rehearsal: settings in, settings out.

What a study does stays: arms, objectives, phases, schedules, families, the kind of tokenizer, the
regime, protocols, how devices are laid out. How much it does shrinks: layers, widths, vocabulary,
lengths, batches, seeds, trials. `kdjax.rehearsal.budgets` gives the result its budgets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdjax.config import (
    ArmConfig,
    CacheConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    FinetuneConfig,
    MeshConfig,
    ModelConfig,
    ModelSpec,
    PhaseConfig,
    PlanConfig,
    TaskConfig,
    TeacherConfig,
    TermConfig,
    TokenizerConfig,
    TrainConfig,
    TuneConfig,
)
from kdjax.models import zoo
from kdjax.objectives.presets import arm_of
from kdjax.rehearsal.models import SmallerModels

LENGTH = 32
"""The most tokens of a sequence, and of a task's row."""
VOCABULARY = 512
"""The most entries of a vocabulary."""
BATCH = 8
"""Sequences of a step, where the devices and turns that share them are no more."""
SEEDS = 2
"""The most seeds, of students and of teachers."""
SHARING_RUNS = 1000
"""Runs that are said to share what storing the teacher's outputs costs."""
WORDS = 100
"""Words at which a student is kept, where the recipe keeps some."""
HELD_OUT = 16
"""Held-out sequences that losses are measured on."""
_SIZES = ("size", "layers", "width", "heads", "ffn")
"""Settings of an arm's student that give it a size of its own."""


@dataclass(frozen=True)
class Inputs:
    """What a rehearsal reads in place of a recipe's inputs.

    Attributes:
        text: file of the text.
        teacher: directory of a teacher's weights; None: the recipe reads none.
        tokenizer: a tokenizer.json, where the recipe names one by itself.
        texts: files of the held-out texts, by name.
        tasks: the recipe's own tasks, by name, each with its stand-in's file.
        suite: directory of a suite of tasks.
        pairs: directory of minimal pairs.
        backup: directory that stands for the one that outlives the machine.
    """

    text: Path
    teacher: Path | None = None
    tokenizer: Path | None = None
    texts: Mapping[str, Path] = field(default_factory=dict)
    tasks: Mapping[str, TaskConfig] = field(default_factory=dict)
    suite: Path | None = None
    pairs: Path | None = None
    backup: Path | None = None


def scale_recipe(config: Config, inputs: Inputs) -> Config:
    """Return a recipe scaled down, whose budgets are still to be set.

    Args:
        config: the recipe.
        inputs: what is read in place of its text, teacher and tasks.

    Raises:
        InputError: a setting of the recipe contradicts another.
    """
    models = smaller_models(config)
    train = _train(config.train)
    keep_at_words = (WORDS,) if train.checkpoint.keep_at_words else ()
    checkpoint = replace(
        train.checkpoint, directory=_named(inputs.backup), keep_at_words=keep_at_words
    )
    return replace(
        config,
        data=_data(config.data, inputs, train.batch_size),
        student=_model(config, config.student, models),
        teacher=_teacher(config, inputs, models),
        arms={name: _arm(config, name, arm, models) for name, arm in config.arms.items()},
        cache=_cache(config),
        train=replace(train, checkpoint=checkpoint),
        seeds=config.seeds[:SEEDS],
        evaluation=_evaluation(config.evaluation, inputs, train.batch_size),
        # What belongs to other commands than `compare`, and trials that these settings are not of
        sweep={},
        tune=TuneConfig(),
        tuning="",
        plan=PlanConfig(),
    )


def _named(path: Path | None) -> str:
    """Return a path as a setting names it; empty where there is none."""
    if path is None:
        return ""
    return str(path)


def smaller_models(config: Config) -> SmallerModels:
    """Return the rules by which a recipe's models are made smaller.

    Raises:
        InputError: a model whose settings contradict one another.
    """
    others = []
    for arm in config.arms.values():
        if set(arm.student) & set(_SIZES):
            sizes = {name: value for name, value in arm.student.items() if name in _SIZES}
            others.append(zoo.resolve(replace(config.student, **sizes)))
    student = zoo.resolve(config.student)
    return SmallerModels(student, zoo.resolve(config.teacher.architecture), tuple(others))


def devices(mesh: MeshConfig) -> int:
    """Return the devices of a scaled mesh, which has each axis that the recipe's has."""
    return max(mesh.data, 1) * mesh.fsdp * mesh.tensor


def _model(config: Config, spec: ModelSpec, models: SmallerModels) -> ModelSpec:
    """Return a smaller model of the same family, with the recipe's other settings."""
    model = zoo.resolve(spec)
    vocab_size = min(model.vocab_size, VOCABULARY)
    return replace(spec, vocab_size=vocab_size, **models.sizes(model))


def _data(config: DataConfig, inputs: Inputs, batch_size: int) -> DataConfig:
    seq_len = min(config.seq_len, LENGTH)
    tokenizer: TokenizerConfig | str = ""
    if isinstance(config.tokenizer, TokenizerConfig):
        size = min(config.tokenizer.size, VOCABULARY)
        tokenizer = replace(config.tokenizer, size=size, alphabet=0)
    elif inputs.tokenizer is not None:
        tokenizer = str(inputs.tokenizer)
    # The teacher's own tokens are those of the tokenizer beside its weights.
    teacher_tokenizer = str(inputs.teacher) if config.teacher_tokenizer else ""
    unique_tokens = 0.0
    if config.regime == "limited":
        # Two batches, so that every run repeats them.
        unique_tokens = 2.0 * batch_size * seq_len
    return replace(
        config,
        files=str(inputs.text),
        text_field="text",
        tokenizer=tokenizer,
        teacher_tokenizer=teacher_tokenizer,
        teacher_seq_len=min(config.teacher_seq_len, LENGTH),
        seq_len=seq_len,
        max_predictions=0,
        mask_copies=min(config.mask_copies, 3),
        unique_tokens=unique_tokens,
        shard_documents=128,
        workers=1,
        prepared="",
    )


def _cache(config: Config) -> CacheConfig:
    """Return stored outputs of fewer entries, where an arm reads any."""
    cache = config.cache
    if all(arm.teacher == "online" for arm in config.arms.values()):
        return cache
    # Storing takes more than the few steps here: a share of it has to leave them some budget.
    return replace(cache, source="", k=min(cache.k, 16), batch_size=BATCH, shared_by=SHARING_RUNS)


def _teacher(config: Config, inputs: Inputs, models: SmallerModels) -> TeacherConfig:
    teacher = config.teacher
    # What is not used stays as it is.
    training = teacher.train
    if training.budget:
        training = replace(training, batch_size=BATCH, seeds=training.seeds[:SEEDS])
    head = teacher.head
    if head.budget:
        head = replace(head, batch_size=BATCH)
    # A teacher that was trained before is a directory of one model here.
    at = teacher.at if teacher.train.budget else 1.0
    return replace(
        teacher,
        source=_named(inputs.teacher),
        train=training,
        at=at,
        architecture=_model(config, teacher.architecture, models),
        head=head,
    )


def _arm(config: Config, name: str, arm: ArmConfig, models: SmallerModels) -> ArmConfig:
    """Return an arm whose layers and relation heads are those of the smaller models."""
    own_student = dict(arm.student)
    sizes = {setting: value for setting, value in own_student.items() if setting in _SIZES}
    student = zoo.resolve(replace(config.student, **sizes))
    if sizes:
        own_student = {name: own_student[name] for name in own_student if name not in _SIZES}
        smaller = models.sizes(student)
        own_student |= {name: value for name, value in smaller.items() if value is not None}

    start = arm.start
    if start is not None:
        layers = start.layers
        if not isinstance(layers, str):
            layers = models.start_layers(layers, student)
        sequences = min(start.calibration_sequences, 2 * BATCH)
        start = replace(start, layers=layers, calibration_sequences=sequences)

    # A number of steps is more than there are here; a share of them is one of any number.
    finetune = dict(arm.finetune)
    shared = config.evaluation.finetune
    if arm_of(name, arm).finetune.get("warmup", shared.warmup) >= 1:
        finetune["warmup"] = 0.1
    for setting in ("steps", "epochs", "batch_size", "batch_sizes", "epoch_counts"):
        finetune.pop(setting, None)
    return replace(
        arm,
        terms=tuple(_term(term, models, student) for term in arm.terms),
        phases=tuple(_phase(phase, models, student) for phase in arm.phases),
        start=start,
        student=own_student,
        finetune=finetune,
    )


def _phase(phase: PhaseConfig, models: SmallerModels, student: ModelConfig) -> PhaseConfig:
    return replace(phase, terms=tuple(_term(term, models, student) for term in phase.terms))


def _term(term: TermConfig, models: SmallerModels, student: ModelConfig) -> TermConfig:
    """Return a term whose options name what the smaller models have."""
    options: dict[str, Any] = dict(term.options)
    layers = options.get("layers")
    if isinstance(layers, (list, tuple)):
        options["layers"] = models.pairs(layers, student)
    if options.get("teacher_layer"):
        options["teacher_layer"] = models.teacher_layer(options["teacher_layer"])
    if options.get("relation_heads"):
        options["relation_heads"] = models.relation_heads(options["relation_heads"])
    return replace(term, options=options)


def _train(train: TrainConfig) -> TrainConfig:
    """Return smaller batches on fewer devices, which still are split in each way that they were."""
    mesh = replace(
        train.mesh,
        data=min(train.mesh.data, 2),
        fsdp=min(train.mesh.fsdp, 2),
        tensor=min(train.mesh.tensor, 2),
    )
    turns = min(train.grad_accum_steps, 2)
    # A batch is shared out evenly among devices and turns; one of a ramp, too, which is half of it.
    shares = devices(mesh) * turns
    batch_size = 2 * shares * math.ceil(BATCH / (2 * shares))
    ramp = []
    for stretch in train.batch_ramp:
        smaller = stretch.batch_size <= train.batch_size
        ramp_size = batch_size // 2 if smaller else 2 * batch_size
        ramp.append(replace(stretch, batch_size=ramp_size))
    return replace(
        train,
        batch_size=batch_size,
        batch_ramp=tuple(ramp),
        grad_accum_steps=turns,
        vmapped_seeds=min(train.vmapped_seeds, SEEDS),
        mesh=mesh,
        log=replace(train.log, every=1, wandb="", mlflow="", profile=()),
        evaluations=min(train.evaluations, 2),
    )


def _evaluation(evaluation: EvaluationConfig, inputs: Inputs, batch_size: int) -> EvaluationConfig:
    # What no protocol reads stays as it is.
    probe = evaluation.mlm_probe
    linear = evaluation.probe
    if "probe" in evaluation.protocols:
        examples = min(linear.examples, 60)
        linear = replace(linear, examples=examples, strengths=linear.strengths[:2])
    if probe.tokens:
        # Four steps: half of them are those of its half-way twin.
        probe = replace(probe, tokens=4.0 * BATCH * LENGTH, batch_size=BATCH)
    suites = {"glue": "", "babylm": ""}
    if evaluation.suite:
        suites[evaluation.suite] = str(inputs.suite)
    return replace(
        evaluation,
        mlm_sequences=min(evaluation.mlm_sequences, HELD_OUT),
        mlm_probe=probe,
        texts={name: str(path) for name, path in inputs.texts.items()},
        minimal_pairs=replace(evaluation.minimal_pairs, directory=_named(inputs.pairs)),
        tasks=dict(inputs.tasks),
        glue=suites["glue"],
        babylm=suites["babylm"],
        seq_len=min(evaluation.seq_len, LENGTH),
        probe=linear,
        finetune=_finetune(evaluation.finetune, evaluation.protocols),
    )


def _finetune(finetune: FinetuneConfig, protocols: Sequence[str]) -> FinetuneConfig:
    """Return fine-tuning of a few steps, with a grid that has two values where it had several."""
    smaller = replace(finetune, warmup=min(finetune.warmup, 0.1), seeds=1)
    if "fixed" in protocols:
        steps = min(finetune.steps, 3) if finetune.steps is not None else None
        smaller = replace(smaller, epochs=1, steps=steps, batch_size=2 * BATCH)
    if "grid" in protocols:
        smaller = replace(
            smaller,
            learning_rates=finetune.learning_rates[:2],
            batch_sizes=(BATCH, 2 * BATCH)[: len(finetune.batch_sizes)],
            epoch_counts=(1,),
        )
    if "few_shot" in protocols:
        few = replace(
            finetune.few_shot,
            examples=min(finetune.few_shot.examples, BATCH),
            draws=min(finetune.few_shot.draws, 2),
            steps=min(finetune.few_shot.steps, 2),
        )
        smaller = replace(smaller, few_shot=few)
    return smaller
