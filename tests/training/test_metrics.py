"""The record of a step says what its page says, and says it truly."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.budget.accounting import EVERY_LEDGER
from kdjax.budget.hardware import Peak
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import PARTS
from kdjax.config import CheckpointConfig
from kdjax.training.outcome import Outcome
from kdjax.training.phase_price import price
from kdjax.training.records.step_metrics import MEASURED, MetricsRecorder, PendingStep
from kdjax.training.step import ScheduleInputs
from kdjax.training.stopwatch import Stopwatch
from tests.support import metrics, tiny, trainers
from tests.training import runs

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"
PEAK = Peak(1e12, "float32", "made up")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, list[dict[str, Any]]]:
    here = tmp_path_factory.mktemp("run")
    often = CheckpointConfig(seconds=tiny.EVERY_STEP)
    return runs.run(here, checkpoint=often, peak=PEAK), metrics.lines(here)


def of_steps(finished: tuple[Outcome, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [line for line in finished[1] if "loss" in line]


def test_record_agrees_with_ledger(finished: tuple[Outcome, list[dict[str, Any]]]) -> None:
    ledger = finished[0].ledger
    last = of_steps(finished)[-1]
    # Accounts, shares and tokens are the ledger's, figure by figure.
    assert last["step"] == runs.STEPS
    assert (last["flops"], last["share"]) == (ledger.charged_flops, ledger.share)
    assert {account: last[f"spent/{account}"] for account in EVERY_LEDGER} == ledger.spent
    assert last["flops"] == sum(last[f"spent/{part}"] for part in PARTS)
    actual = (last["tokens/seen"], last["tokens/unique"], last["tokens/masked"])
    assert actual == (ledger.tokens, ledger.unique_tokens, ledger.masked_tokens)


def test_recorded_learning_rates_follow_schedule(
    finished: tuple[Outcome, list[dict[str, Any]]],
) -> None:
    phase = runs.compiled().phase
    # Each step's rate depends on the share before it and behind it.
    shares = [n / runs.STEPS for n in range(runs.STEPS + 1)]
    expected = [phase.learning_rate(before, after) for before, after in itertools.pairwise(shares)]
    assert [line["learning_rate"] for line in of_steps(finished)] == pytest.approx(expected)


def test_group_norms_add_up_to_gradient_norm(
    finished: tuple[Outcome, list[dict[str, Any]]],
) -> None:
    for line in of_steps(finished):
        groups = {name: norm for name, norm in line.items() if name.startswith("grad_norm/")}
        assert groups.keys() == {
            f"grad_norm/{g}" for g in ("embeddings", "layer_1", "layer_2", "projections")
        }
        # Groups are disjoint and cover all that is trained.
        assert math.hypot(*groups.values()) == pytest.approx(line["grad_norm"], rel=1e-5)


def test_group_norm_is_norm_of_its_gradient() -> None:
    program = runs.compiled()
    phase = runs.compiled().phase
    teacher = program.place_teacher(tiny.params(runs.TEACHER, 9))
    state = program.start(tiny.params(phase.student_config, 0), seed=0)
    # The key and the parameters are those of the step about to be taken.
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    params = jax.device_get(state.params)
    grads = jax.jit(jax.grad(phase.loss_fn(), has_aux=True))(
        params, teacher, tiny.batch(0), key, 0.0
    )[0]
    _, measured = program.step(
        state, teacher, program.place(tiny.batch(0)), tiny.schedule_inputs(phase, 0, 9)
    )
    # One group of the model, and one of the objective.
    for group, tree in (
        ("layer_2", grads["model"]["layers"]["2"]),
        ("projections", grads["objective"]),
    ):
        expected = math.sqrt(sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(tree)))
        assert float(measured[f"grad_norm/{group}"]) == pytest.approx(expected, rel=1e-4)


def test_resumed_run_has_same_records(
    finished: tuple[Outcome, list[dict[str, Any]]], tmp_path: Path
) -> None:
    with pytest.raises(trainers.Interrupted):
        runs.run(tmp_path, stop_at=4)
    assert runs.run(tmp_path).curve == finished[0].curve
    resumed = metrics.same_each_time(tmp_path)
    # Only measured figures may differ.
    for line, expected in zip(resumed, finished[1], strict=True):
        names = [name for name in expected if not name.startswith(MEASURED)]
        assert line == {name: expected[name] for name in names}


def test_figures_and_their_descriptions_in_docs_match(
    finished: tuple[Outcome, list[dict[str, Any]]],
) -> None:
    records = PAGE.read_text(encoding="utf-8").split("\n## Records\n")[1].split("\n## ")[0]
    # The table names figures with capitals for what varies: LAYER, TERM.
    cells = re.findall(r"^\| (`.*?) \|", records, re.MULTILINE)
    described = set(re.findall(r"`(.+?)`", " ".join(cells)))
    patterns = {name: re.compile(re.sub("[A-Z]+", r"\\w+", name)) for name in described}
    names = set().union(*finished[1])
    # No figure is without a description.
    for name in names:
        assert any(pattern.fullmatch(name) for pattern in patterns.values()), name
    only_sometimes = {
        "weight/TERM",
        "mlm_probability",
        "grad_norm/head",
        "seconds/profile",
        "mlm_probe",
        "teacher_mlm_loss",
        "teacher_kl",
        "teacher_agreement",
        "trunk/mlm_loss",
    }
    # No description is without a figure, but for those that this run has no cause to record.
    for description in described - only_sometimes:
        assert any(patterns[description].fullmatch(name) for name in names), description


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_speed_is_of_steps_since_last_record() -> None:
    clock = Clock()
    phase = runs.compiled().phase
    cost = price(phase, tiny.SHAPE)
    ledger = Ledger.open(runs.Budget.flops(100 * cost.total))
    seconds = Stopwatch({})
    recorder = MetricsRecorder([phase], 4, ledger, seconds, PEAK, perf_counter=clock)
    # Five steps in twelve seconds, two of which belong to an evaluation.
    for _ in range(5):
        ledger = ledger.charge(0, cost, tiny.SHAPE.tokens_per_step, 60, 60, 9)
    clock.now = 12.0
    seconds.add("input", 1.0)
    seconds.add("evaluation", 2.0)  # no step waits for it
    record = recorder.record(PendingStep(ledger, 0, ScheduleInputs(0.0, 0.1), {}), {"loss": 1.0})
    assert record["speed/step_seconds"] == pytest.approx(2.0)
    assert record["speed/tokens_per_second"] == pytest.approx(30.0)
    assert record["speed/input_wait"] == pytest.approx(0.1)
    assert record["speed/utilisation"] == pytest.approx(5 * cost.total / (10.0 * 4e12), rel=1e-5)
    # The next record counts from this one.
    clock.now = 13.0
    after = recorder.record(
        PendingStep(
            ledger.charge(0, cost, tiny.SHAPE.tokens_per_step, 60, 60, 9),
            0,
            ScheduleInputs(0.0, 0.1),
            {},
        ),
        {},
    )
    assert after["speed/step_seconds"] == pytest.approx(1.0)
    assert after["speed/input_wait"] == 0.0
