"""A trial gives the same model alone, in a lane, on a mesh, and after a kill."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.config import FinetuneConfig, MeshConfig
from kdjax.evaluation.finetuning import saved as saving
from kdjax.evaluation.finetuning.labels import LabelScale
from kdjax.evaluation.finetuning.results import Setting
from kdjax.evaluation.finetuning.saved import RunningState
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.evaluation.finetuning.step import init_state
from kdjax.evaluation.finetuning.trial import EncoderSetup, FinetunedModel, step_key_of, train_lanes
from kdjax.models import init
from kdjax.parallel.layout import Layout
from tests.evaluation import handmade
from tests.support.tolerance import assert_updates_equal

DROPPING = dataclasses.replace(handmade.MODEL, dropout=0.1, attention_dropout=0.1)
TASK = handmade.task(train=60)
STEPS = 12
STAGES = 20 * STEPS
"""Matmuls and sums one after another, over all steps."""
SETTING = Setting(1e-3, 16, None, STEPS)


def specs(*seeds: int, rate: float = 1e-3) -> list[TrialSpec]:
    setting = dataclasses.replace(SETTING, learning_rate=rate)
    return [TrialSpec(setting, seed) for seed in seeds]


def train(
    trials: list[TrialSpec], layout: Layout | None = None, saved: RunningState | None = None
) -> list[FinetunedModel]:
    """Train from the model of seed 0."""
    setup = EncoderSetup(DROPPING, layout or handmade.alone())
    step_key = step_key_of(setup, TASK, FinetuneConfig())
    params = init(DROPPING, 0).params
    return train_lanes(step_key, params, TASK.train, LabelScale(), trials, 0.1, saved)


def start(seed: int) -> Any:
    """Return the parameters before the first step."""
    step_key = step_key_of(EncoderSetup(DROPPING, handmade.alone()), TASK, FinetuneConfig())
    return init_state(step_key, init(DROPPING, 0).params, seed).params


@pytest.fixture(scope="module")
def one() -> FinetunedModel:
    """Return a model trained by itself, with seed 4."""
    return train(specs(4))[0]


def assert_same_model(actual: FinetunedModel, expected: FinetunedModel) -> None:
    assert_updates_equal(actual.params, expected.params, start(4), summands=16 * 8, stages=STAGES)


def test_lane_equals_the_same_trial_alone(one: FinetunedModel) -> None:
    # Beside it is another learning rate.
    lanes = train([*specs(4, rate=3e-3), *specs(4)])
    assert_same_model(lanes[1], one)
    # Its neighbour is another model.
    with pytest.raises(AssertionError):
        assert_same_model(lanes[0], one)


@pytest.mark.exhaustive
def test_mesh_gives_the_result_of_one_device(one: FinetunedModel) -> None:
    # A batch of 16 rows over 8 devices.
    assert_same_model(train(specs(4), Layout.from_config(MeshConfig(data=8)))[0], one)


def test_lanes_on_split_parameters_give_the_result_of_one_device(one: FinetunedModel) -> None:
    layout = Layout.from_config(MeshConfig(fsdp=2, tensor=2), devices=jax.devices()[:4])
    lanes = train(specs(9, 4), layout)
    assert_same_model(lanes[1], one)


class Killed(Exception):
    """Stands for a kill."""


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save at every step, and kill after the one of step 7."""
    monkeypatch.setattr(saving, "SAVE_SECONDS", 0.0)
    save = RunningState.save

    def save_and_kill(self: RunningState, state: Any, step: int) -> None:
        save(self, state, step)
        if step == 7:
            raise Killed

    monkeypatch.setattr(RunningState, "save", save_and_kill)


@pytest.mark.parametrize("seeds", [(4,), (4, 9)])
@pytest.mark.usefixtures("killed")
def test_trial_resumed_after_a_kill_keeps_params_bitwise(
    seeds: tuple[int, ...], tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        train(specs(*seeds), saved=RunningState(tmp_path, "a", "key"))
    # The newest state alone is there, and nothing half-written.
    assert [path.name for path in tmp_path.iterdir()] == ["a.step7.safetensors"]
    resumed = train(specs(*seeds), saved=RunningState(tmp_path, "a", "key"))
    expected = train(specs(*seeds))
    for lane, model in enumerate(resumed):
        jax.tree.map(np.testing.assert_array_equal, model.params, expected[lane].params)


@pytest.mark.usefixtures("killed")
def test_resumed_trial_takes_the_remaining_steps_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        train(specs(4), saved=RunningState(tmp_path, "a", "key"))
    steps = []
    monkeypatch.setattr(RunningState, "save", lambda self, state, step: steps.append(step))
    train(specs(4), saved=RunningState(tmp_path, "a", "key"))
    assert steps == [8, 9, 10, 11, 12]


@pytest.mark.usefixtures("killed")
@pytest.mark.parametrize("damage", ["another key", "truncated", "empty", "a bit"])
def test_state_that_cannot_be_used_is_passed_over(
    tmp_path: Path,
    damage: str,
    one: FinetunedModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Killed):
        train(specs(4), saved=RunningState(tmp_path, "a", "key"))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    content = {"truncated": whole[:-9], "empty": b"", "a bit": flipped}
    if damage in content:
        path.write_bytes(content[damage])
    key = "other" if damage == "another key" else "key"
    steps = []
    monkeypatch.setattr(RunningState, "save", lambda self, state, step: steps.append(step))
    (model,) = train(specs(4), saved=RunningState(tmp_path, "a", key))
    assert steps[0] == 1
    jax.tree.map(np.testing.assert_array_equal, model.params, one.params)
    # Damage is said in a line; a state of something else is no damage.
    said = capsys.readouterr().err.splitlines()
    assert len(said) == (damage in content)
    assert all(str(path) in line and "trained again" in line for line in said)


def test_state_is_due_once_the_last_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = RunningState(tmp_path, "a", "key")
    now = running._last
    monkeypatch.setattr(saving.time, "monotonic", lambda: now + saving.SAVE_SECONDS - 1)
    assert not running.is_due()
    monkeypatch.setattr(saving.time, "monotonic", lambda: now + saving.SAVE_SECONDS + 1)
    assert running.is_due()


def test_trials_whose_rates_differ_in_the_last_digit_have_names_of_their_own() -> None:
    rates = (1.234567e-4, 1.2345671e-4)
    names = {TrialSpec(Setting(rate, 16, 3, 30), 0).name for rate in rates}
    assert len(names) == 2
