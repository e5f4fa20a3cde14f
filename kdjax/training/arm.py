"""An arm resolved from a recipe's settings: its student, its start and its phases."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import PhaseSpan, schedule_phases
from kdjax.budget.price import Price
from kdjax.config import (
    ArmConfig,
    CacheConfig,
    ModelConfig,
    ModelSpec,
    OptimizerConfig,
    RampConfig,
    StartConfig,
    changed,
)
from kdjax.config.model import with_family_settings
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.models.features import FeatureRequest
from kdjax.objectives.objective import Objective
from kdjax.objectives.over_words import over_words
from kdjax.objectives.presets import arm_of, objectives_of
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.starts.start import check_start
from kdjax.training.teacher.source import (
    CachedTeacher,
    OnlineTeacher,
    check_readable,
)


@dataclass(frozen=True)
class Arm:
    """One way to spend the budget, fully determined.

    Attributes:
        name: name of the arm in the recipe.
        config: settings, with nothing left open (`kdjax.objectives.presets.arm_of`).
        phases: phases, one after another.
    """

    name: str
    config: ArmConfig
    phases: tuple[Phase, ...]

    @property
    def student_config(self) -> ModelConfig:
        """Return the student's configuration."""
        return self.phases[0].student_config

    @property
    def start(self) -> StartConfig:
        """Return the start of the student."""
        return self.config.start or StartConfig()

    @property
    def uses_teacher(self) -> bool:
        """Return whether any phase looks at a teacher."""
        return any(phase.teacher_config for phase in self.phases)

    @property
    def needs_teacher(self) -> bool:
        """Return whether the teacher's parameters are needed: for a phase, or for the start."""
        return self.uses_teacher or self.start.source == "teacher"

    @property
    def stored_features(self) -> FeatureRequest:
        """Return the stored teacher outputs that the arm reads, over all its phases."""
        request = FeatureRequest()
        for phase in self.phases:
            if isinstance(phase.teacher_source, CachedTeacher):
                request |= phase.needs.teacher
        return request

    @cached_property
    def gradient_mask(self) -> Any:
        """Return the parameters that any phase gives a gradient: a tree of booleans."""
        masks = [phase.gradient_mask for phase in self.phases]
        return jax.tree.map(lambda *in_phases: any(in_phases), *masks)

    @property
    def trains_mlm_head(self) -> bool:
        """Return whether the MLM head gets a gradient in some phase."""
        head = dict(self.gradient_mask["model"]["mlm"])
        # Where the decoder has no bias, nothing trains the 0 in its place.
        if not self.phases[0].student_config.decoder_bias:
            del head["bias"]
        return all(jax.tree.leaves(head))

    @property
    def needs_mlm_head(self) -> bool:
        """Return whether the teacher's MLM head is needed: for a phase, or for the start."""
        if self.start.source == "teacher":
            return True
        return any(phase.needs.teacher.head for phase in self.phases)

    def ramped(self, ramp: Sequence[RampConfig]) -> Arm:
        """Return the arm with a batch ramp: a phase in which the batch changes becomes several."""
        ends = {phase.until for phase in self.phases}
        ends |= {ramp_step.until for ramp_step in ramp}
        phases = []
        settings = []
        for end in sorted(ends):
            number = [end <= phase.until for phase in self.phases].index(True)
            # After the ramp the batch is the recipe's, which None stands for.
            batch_size = next(
                (ramp_step.batch_size for ramp_step in ramp if end <= ramp_step.until), None
            )
            phases.append(replace(self.phases[number], until=end, batch_size=batch_size))
            settings.append(replace(self.config.phases[number], until=end))
        config = replace(self.config, phases=tuple(settings))
        return replace(self, phases=tuple(phases), config=config)

    def schedule_phases(
        self,
        budget: Budget,
        prices: Sequence[Price],
        batch_shape: BatchShape,
        upfront: Mapping[str, int] | None = None,
    ) -> tuple[PhaseSpan, ...]:
        """Lay the arm's phases out in a budget (`kdjax.budget.ledger.schedule_phases`).

        Args:
            budget: a budget of FLOPs or tokens.
            prices: price of a step of each phase.
            batch_shape: shape of the recipe's batch.
            upfront: FLOPs spent before the first step, by account.
        """
        tokens_per_step = [phase.batch_shape(batch_shape).tokens_per_step for phase in self.phases]
        phases = [(phase.until, price) for phase, price in zip(self.phases, prices, strict=True)]
        return schedule_phases(
            budget, phases, tokens_per_step, upfront, f"arms.{self.name}: budget.{budget.kind}"
        )


def resolve(
    name: str,
    config: ArmConfig,
    student: ModelSpec | ModelConfig,
    teacher_config: ModelConfig | None,
    optimizer: OptimizerConfig,
    cache: CacheConfig = CacheConfig(),
    own_seq_len: int = 0,
) -> Arm:
    """Return an arm of a recipe.

    Args:
        name: name of the arm in the recipe.
        config: settings of the arm.
        student: student of the recipe, which the arm's own settings may change.
        teacher_config: the recipe's teacher; None: there is none, and no objective may look at one.
        optimizer: optimiser of the recipe, which the arm's own settings may change.
        cache: settings of stored teacher outputs, for an arm that reads them.
        own_seq_len: tokens of a sequence by the teacher's own tokenizer, whose states are then
            compared over aligned words; 0: the teacher reads the student's tokens.

    Raises:
        InputError: an unknown preset, term or setting, or an objective or start these two models do
            not allow.
    """
    # The recipe's settings with those of the arm, and nothing left open
    config = arm_of(name, config)
    objectives = objectives_of(name, config)
    if own_seq_len:
        objectives = tuple(map(over_words, objectives))
    student = _changed_student(student, config.student, f"arms.{name}.student")
    if isinstance(student, ModelSpec):
        model = zoo.resolve(student, f"arms.{name}.student" if config.student else "student")
    else:
        model = student
    optimizer = changed(optimizer, config.optimizer, f"arms.{name}.optimizer")

    # What is wrong with a phase is an error of this arm.
    phases = []
    try:
        start = config.start or StartConfig()
        if own_seq_len and start.source == "teacher":
            raise InputError(
                "start.source is 'teacher' under data.teacher_tokenizer, expected 'random': the "
                "teacher's word embeddings are of its own vocabulary"
            )
        check_start(start, model, teacher_config)
        for n, objective in enumerate(objectives):
            other_objectives = objectives[:n] + objectives[n + 1 :]
            phase = _phase(
                name, model, teacher_config, objective, other_objectives, optimizer, own_seq_len
            )
            phases.append(replace(phase, until=config.phases[n].until))
        _check_shared(phases)
        if config.teacher == "cached":
            phases = _cached(phases, cache)
    except InputError as e:
        raise InputError(f"arms.{name}: {e}") from None
    return Arm(name, config, tuple(phases))


def _changed_student(
    student: ModelSpec | ModelConfig, changes: dict[str, Any], where: str
) -> ModelSpec | ModelConfig:
    """Return the recipe's student with an arm's own settings.

    A student of another family has that family's settings, but for its size and the vocabulary,
    which is the text's.
    """
    if isinstance(student, ModelSpec):
        student = with_family_settings(student)
    family = changes.get("family", student.family)
    if isinstance(student, ModelSpec) and family != student.family:
        # Checks the family's name
        changed(student, {"family": family}, where)
        sizes = ("size", "layers", "width", "heads", "ffn", "vocab_size")
        settings = {name: getattr(student, name) for name in sizes}
        student = with_family_settings(ModelSpec(family=family, **settings))
    of_arm: ModelSpec | ModelConfig = changed(student, changes, where)
    return of_arm


def _phase(
    name: str,
    student_config: ModelConfig,
    teacher_config: ModelConfig | None,
    objective: Objective,
    other_objectives: tuple[Objective, ...],
    optimizer: OptimizerConfig,
    own_seq_len: int,
) -> Phase:
    """Return a phase that looks at the teacher only if its objective does.

    Raises:
        InputError: the objective cannot be computed between these two models.
    """
    if objective.needs_teacher and teacher_config is None:
        raise InputError("the objective looks at a teacher, expected one")
    phase_teacher = None
    teacher_source = None
    if objective.needs_teacher and teacher_config is not None:
        phase_teacher = teacher_config
        teacher_source = OnlineTeacher(teacher_config, own_seq_len)
    # Raises where a term cannot be computed between these two models.
    objective.needs(student_config, phase_teacher)

    # A phase without a teacher may stand beside one whose projection has the teacher's width.
    other_teacher = None
    if any(other.needs_teacher for other in other_objectives):
        other_teacher = teacher_config
    return Phase(
        name,
        student_config,
        phase_teacher,
        teacher_source,
        objective,
        optimizer,
        other_objectives=other_objectives,
        other_teacher_config=other_teacher,
    )


def _check_shared(phases: list[Phase]) -> None:
    """Raise InputError where terms of one name have unequal parameters over an arm's phases."""
    shapes: dict[str, Any] = {}
    for phase in phases:
        init = functools.partial(
            phase.objective.init, phase.student_config, phase.teacher_config, 0
        )
        for key, params in jax.eval_shape(init).items():
            shape = jax.tree.map(lambda x: x.shape, params)
            if shapes.setdefault(key, shape) != shape:
                raise InputError(
                    f"{key}: has parameters of other shapes in another phase, {shapes[key]} and "
                    f"{shape}, expected the same ones: phases share them"
                )


def _cached(phases: list[Phase], cache: CacheConfig) -> list[Phase]:
    """Return the phases with stored outputs in place of the teacher."""
    if not any(phase.teacher_config for phase in phases):
        raise InputError("teacher is 'cached', expected an objective that looks at a teacher")
    cached_phases = []
    for phase in phases:
        if phase.teacher_config is not None:
            if phase.needs.teacher.head:
                check_readable(phase.objective, cache, phase.student_config, phase.teacher_config)
            online = phase.teacher_source
            own_seq_len = online.own_seq_len if isinstance(online, OnlineTeacher) else 0
            stored = CachedTeacher(phase.teacher_config, phase.needs.teacher, cache, own_seq_len)
            phase = replace(phase, teacher_source=stored)  # noqa: PLW2901
        cached_phases.append(phase)
    return cached_phases
