"""An arm made ready from a recipe's settings: its student, its start and its phases."""

from __future__ import annotations

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
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.models.features import FeatureRequest
from kdjax.objectives.presets import arm_of, objectives_of
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.start import check_start
from kdjax.training.teacher_source import (
    CachedTeacher,
    OnlineTeacher,
    check_readable,
)


@dataclass(frozen=True)
class Arm:
    """One way to spend the budget, fully determined.

    Attributes:
        name: as the recipe calls it.
        config: its settings, with nothing left open (`kdjax.objectives.presets.arm_of`).
        phases: what it does, one after another.
    """

    name: str
    config: ArmConfig
    phases: tuple[Phase, ...]

    @property
    def student(self) -> ModelConfig:
        """The student."""
        return self.phases[0].student

    @property
    def start(self) -> StartConfig:
        """Where the student starts."""
        return self.config.start or StartConfig()

    @property
    def uses_teacher(self) -> bool:
        """Whether any phase looks at a teacher."""
        return any(phase.teacher for phase in self.phases)

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's parameters are needed: a phase looks at it, or the student starts
        from it."""
        return self.uses_teacher or self.start.source == "teacher"

    @property
    def stored(self) -> FeatureRequest:
        """What the arm reads of the teacher's stored outputs, over all its phases."""
        asked = FeatureRequest()
        for phase in self.phases:
            asked |= (
                phase.needs.teacher
                if isinstance(phase.teacher_source, CachedTeacher)
                else FeatureRequest()
            )
        return asked

    @cached_property
    def trained(self) -> Any:
        """Which parameters any phase gives a gradient: a tree of booleans."""
        return jax.tree.map(lambda *moves: any(moves), *(phase.trained for phase in self.phases))

    @property
    def trains_mlm_head(self) -> bool:
        """Whether the MLM head gets a gradient in some phase."""
        return all(jax.tree.leaves(self.trained["model"]["mlm"]))

    @property
    def needs_mlm_head(self) -> bool:
        """Whether the teacher's MLM head is needed: a phase asks for its logits, or the student
        starts with it."""
        return self.start.source == "teacher" or any(
            phase.needs.teacher.head for phase in self.phases
        )

    def ramped(self, ramp: Sequence[RampConfig]) -> Arm:
        """The arm with a batch ramp: a phase in which the batch changes becomes several."""
        ends = sorted({*(phase.until for phase in self.phases), *(one.until for one in ramp)})
        phases = []
        settings = []
        for end in ends:
            phase, setting = next(
                both
                for both in zip(self.phases, self.config.phases, strict=True)
                if end <= both[0].until
            )
            batch = next((one.batch_size for one in ramp if end <= one.until), 0)
            phases.append(replace(phase, until=end, batch=batch))
            settings.append(replace(setting, until=end))
        return replace(
            self, phases=tuple(phases), config=replace(self.config, phases=tuple(settings))
        )

    def schedule_phases(
        self,
        budget: Budget,
        prices: Sequence[Price],
        shape: BatchShape,
        upfront: Mapping[str, int] | None = None,
    ) -> tuple[PhaseSpan, ...]:
        """The arm's phases in a budget (`kdjax.budget.ledger.schedule_phases`), from the price of a
        step of each.

        Args:
            budget: of FLOPs or tokens.
            prices: of a step of each phase.
            shape: of the recipe's batch.
            upfront: FLOPs spent before the first step, by account.
        """
        positions = [phase.shape(shape).tokens_per_step for phase in self.phases]
        phases = [(phase.until, price) for phase, price in zip(self.phases, prices, strict=True)]
        return schedule_phases(
            budget, phases, positions, upfront, f"arms.{self.name}: budget.{budget.kind}"
        )


def resolve(
    name: str,
    config: ArmConfig,
    student: ModelSpec | ModelConfig,
    teacher: ModelConfig | None,
    optimizer: OptimizerConfig,
    cache: CacheConfig = CacheConfig(),
) -> Arm:
    """An arm of a recipe.

    Args:
        name: as the recipe calls it.
        config: its settings.
        student: the recipe's student.
        teacher: the recipe's teacher; None: there is none, and no objective may look at one.
        optimizer: the recipe's optimiser.
        cache: how teacher outputs are stored, for an arm that reads them.

    Raises:
        InputError: an unknown preset, term or setting, or an objective or start these two models do
            not allow.
    """
    found = arm_of(name, config)
    objectives = objectives_of(name, found)
    own = changed(student, found.student, f"arms.{name}.student")
    model = zoo.resolve(own) if isinstance(own, ModelSpec) else own
    settings = changed(optimizer, found.optimizer, f"arms.{name}.optimizer")
    phases = []
    try:
        check_start(found.start or StartConfig(), model, teacher)
        for n, (objective, phase) in enumerate(zip(objectives, found.phases, strict=True)):
            if objective.needs_teacher and teacher is None:
                raise InputError("the objective looks at a teacher, expected one")
            seen = teacher if objective.needs_teacher else None
            objective.needs(model, seen)
            teacher_source = OnlineTeacher(seen) if seen else None
            others = objectives[:n] + objectives[n + 1 :]
            others_teacher = teacher if any(other.needs_teacher for other in others) else None
            phases.append(
                Phase(
                    name,
                    model,
                    seen,
                    teacher_source,
                    objective,
                    settings,
                    phase.until,
                    others=others,
                    others_teacher=others_teacher,
                )
            )
        _check_shared(phases)
        if found.teacher == "cached":
            phases = _reading(phases, cache)
    except InputError as e:
        raise InputError(f"arms.{name}: {e}") from None
    return Arm(name, found, tuple(phases))


def _check_shared(phases: list[Phase]) -> None:
    """Terms of one name share their parameters over an arm's phases."""
    shapes: dict[str, Any] = {}
    for phase in phases:
        own = jax.eval_shape(lambda p=phase: p.objective.init(p.student, p.teacher, 0))
        for key, params in own.items():
            found = jax.tree.map(lambda x: x.shape, params)
            if shapes.setdefault(key, found) != found:
                raise InputError(
                    f"{key}: has parameters of other shapes in another phase, {shapes[key]} and "
                    f"{found}, expected the "
                    "same ones: phases share them"
                )


def _reading(phases: list[Phase], cache: CacheConfig) -> list[Phase]:
    """The phases with stored outputs in place of the teacher."""
    if not any(phase.teacher for phase in phases):
        raise InputError("teacher is 'cached', expected an objective that looks at a teacher")
    made = []
    for phase in phases:
        if phase.teacher is not None:
            if phase.needs.teacher.head:
                check_readable(phase.objective, cache, phase.student, phase.teacher)
            stored = CachedTeacher(phase.teacher, phase.needs.teacher, cache)
            made.append(replace(phase, teacher_source=stored))
        else:
            made.append(phase)
    return made
