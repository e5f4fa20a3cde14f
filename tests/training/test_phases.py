"""An arm of several phases: each is compiled and priced by itself, and a run through them can be
stopped anywhere."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import PhaseSpan
from kdjax.config import (
    ArmConfig,
    OptimizerConfig,
    PhaseConfig,
    Schedule,
    TermConfig,
)
from kdjax.errors import InputError
from kdjax.parallel.layout import Layout
from kdjax.training.arm import Arm, resolve
from kdjax.training.outcome import Outcome
from kdjax.training.partition import flatten
from kdjax.training.phase_price import price
from kdjax.training.program import Program
from kdjax.training.step import ScheduleInputs
from tests.support import metrics, tiny, trainers

TEMPERATURE = {"shape": "linear", "points": [[0.0, 4.0], [0.5, 1.0]]}
FADING = Schedule("cosine", ((0.0, 1.0), (1.0, 0.25)))
PHASES = (
    PhaseConfig(
        (TermConfig("mlm"), TermConfig("logit", FADING, options={"temperature": TEMPERATURE})),
        until=0.5,
    ),
    PhaseConfig((TermConfig("hidden_mse"),), until=0.8),
    PhaseConfig((TermConfig("mlm", 2.0), TermConfig("hidden_mse", options={"layers": "last"}))),
)
STUDENT = dataclasses.replace(tiny.SHALLOW_STUDENT, dropout=0.1)
TEACHER = tiny.SHALLOW_TEACHER
BUDGET_STEPS = 14


@functools.cache
def arm() -> Arm:
    config = ArmConfig(phases=PHASES)
    return resolve(
        "mine", config, STUDENT, TEACHER, OptimizerConfig(learning_rate=1e-2, weight_decay=0.3)
    )


@functools.cache
def laid_out() -> tuple[Budget, tuple[PhaseSpan, ...]]:
    # The budget pays a number of the first phase's steps; the others have prices of their own.
    costs = [price(phase, tiny.SHAPE) for phase in arm().phases]
    budget = Budget.flops(BUDGET_STEPS * costs[0].total)
    return budget, arm().schedule_phases(budget, costs, tiny.SHAPE)


@functools.cache
def programs() -> tuple[Program, ...]:
    return tuple(
        Program(phase, tiny.SHAPE, Layout.from_config(devices=jax.devices()[:1]))
        for phase in arm().phases
    )


def run(directory: Path, stop_at: int | None = None) -> Outcome:
    teacher = tiny.params(TEACHER, 9)
    phases = []
    for phase, program in zip(arm().phases, programs(), strict=True):
        placed = program.place_teacher(teacher)
        phases.append(tiny.compiled_phase(phase, program, tiny.Batches(), placed))
    return trainers.train_one(directory, phases, laid_out()[0], stop_at=stop_at, evaluations=2)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, list[dict[str, float]]]:
    here = tmp_path_factory.mktemp("straight")
    return run(here), metrics.same_each_time(here)


def test_ledger_adds_up_across_phases(straight: tuple[Outcome, list[dict[str, float]]]) -> None:
    budget, spans = laid_out()
    ledger = straight[0].ledger
    # Every phase has steps, so that borders between them are met.
    assert [span.steps > 1 for span in spans] == [True, True, True]
    assert ledger.steps == sum(span.steps for span in spans)
    assert ledger.charged_flops == sum(span.steps * span.price.total for span in spans)
    assert 0 <= budget.amount - ledger.charged_flops < spans[-1].price.total
    # Parts of the price add up over phases too.
    for part in ("student_forward", "teacher_forward", "objective"):
        assert ledger.spent[part] == sum(span.steps * getattr(span.price, part) for span in spans)


def test_steps_have_terms_of_their_phase(straight: tuple[Outcome, list[dict[str, float]]]) -> None:
    _, spans = laid_out()
    first, second, _ = spans
    for line in straight[1]:
        # Steps count from 1, and a phase ends with its last step.
        phase = 0 if line["step"] <= first.stop else 1 if line["step"] <= second.stop else 2
        terms = {name.removeprefix("loss/") for name in line if name.startswith("loss/")}
        assert (line["phase"], terms) == (phase + 1, {t.name for t in PHASES[phase].terms})


def test_scheduled_weights_follow_budget_fraction(
    straight: tuple[Outcome, list[dict[str, float]]],
) -> None:
    budget, spans = laid_out()
    first = spans[0]
    for line in straight[1][: first.stop]:
        # The weight is that of the moment before the step.
        progress = (line["step"] - 1) * first.price.total / budget.amount
        weight = 1.0 + (0.25 - 1.0) * (1 - np.cos(np.pi * progress)) / 2
        assert line["loss"] == pytest.approx(
            line["loss/mlm"] + weight * line["loss/logit"], rel=1e-5
        )
        assert line["weight/logit"] == pytest.approx(weight, rel=1e-5)
        # A constant weight is no figure.
        assert "weight/mlm" not in line


@pytest.mark.parametrize("where", ["first", "border", "second", "third"])
def test_resume_in_any_phase_keeps_params_bitwise(
    where: str, straight: tuple[Outcome, list[dict[str, float]]], tmp_path: Path
) -> None:
    _, spans = laid_out()
    first, second, third = spans
    # The border is where one phase's optimizer state becomes the next one's.
    stop_at = {
        "first": 2,
        "border": first.stop,
        "second": first.stop + 1,
        "third": third.first + 1,
    }[where]
    assert second.steps > 1
    with pytest.raises(trainers.Interrupted):
        run(tmp_path, stop_at)
    resumed = run(tmp_path)
    # Stopped anywhere, the run ends with the same parameters, account and lines.
    assert resumed.params_sha256 == straight[0].params_sha256
    assert resumed.ledger.spent == straight[0].ledger.spent
    assert metrics.same_each_time(tmp_path) == straight[1]


def test_frozen_params_ignore_momentum_of_earlier_phase() -> None:
    mlm, hidden, _ = programs()
    state = mlm.start(tiny.params(arm().student_config, 0), seed=0)
    teacher = tiny.params(TEACHER, 9)
    # Momentum gathers on parameters that the next phase does not train.
    for step in range(3):
        state, _ = mlm.step(
            state,
            mlm.place_teacher(teacher),
            mlm.place(tiny.batch(step)),
            ScheduleInputs(0.0, 1e-2),
        )
    before = jax.device_get(state)
    state, _ = hidden.step(
        state, hidden.place_teacher(teacher), hidden.place(tiny.batch(3)), ScheduleInputs(0.5, 1e-2)
    )
    after = jax.device_get(state)
    # Only what the phase trains has moved, and only its moments.
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before.params, after.params)
    assert moved == hidden.phase.gradient_mask
    mu_before = before.opt[0].mu
    mu_after = after.opt[0].mu
    changed = {name for name in mu_before if np.any(mu_before[name] != mu_after[name])}
    assert changed == {
        name for name, has_gradient in flatten(hidden.phase.gradient_mask).items() if has_gradient
    }
    # The head has no part in a phase of hidden states, and the projection has.
    assert not any(jax.tree.leaves(moved["model"]["mlm"]))
    assert all(jax.tree.leaves(moved["objective"]))


def test_projection_is_shared_by_phases_with_its_term() -> None:
    # All phases carry the projection; those with its term train it.
    keys: list[Any] = [
        program.abstract_state().params["objective"].keys() for program in programs()
    ]
    assert keys == [{"hidden_mse"}] * 3
    assert [
        bool(p.phase.gradient_mask["objective"]["hidden_mse"]["kernel"]) for p in programs()
    ] == [
        False,
        True,
        True,
    ]


MODULE = """
from kdjax.objectives import FeatureRequest, term
import jax.numpy as jnp

@term(student=lambda c: FeatureRequest(hidden=frozenset({{1}})), params=lambda s, t, seed: {{"kernel": jnp.zeros({width})}})
def own(student, teacher, batch, params):
    return jnp.sum(params["kernel"])
"""  # noqa: E501


def test_phases_sharing_unequal_params_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two modules whose terms have one name, and parameters of different shapes.
    for name, width in (("narrow_terms", 2), ("wide_terms", 3)):
        (tmp_path / f"{name}.py").write_text(MODULE.format(width=width))
    monkeypatch.syspath_prepend(tmp_path)
    narrow = (TermConfig("narrow_terms:own"),)
    wide = (TermConfig("wide_terms:own"),)
    config = ArmConfig(phases=(PhaseConfig(wide, until=0.5), PhaseConfig(narrow)))
    with pytest.raises(
        InputError, match=r"arms.a: own: has parameters of other shapes in another phase"
    ):
        resolve("a", config, tiny.STUDENT, tiny.TEACHER, OptimizerConfig())
