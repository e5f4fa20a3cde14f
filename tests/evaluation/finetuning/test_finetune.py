"""Fine-tuning learns a task from nothing, the same way every time, and counts what fails."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.config import Dtype, FewShotConfig, FinetuneConfig, ModelConfig
from kdjax.data.tasks.task import Task
from kdjax.evaluation.finetuning import (
    EncoderSetup,
    FinetunedTask,
    FinetuningTrial,
    Setting,
    TunedEncoder,
    by_protocol,
    finetune_one,
    predict,
    right_rows,
    squared_errors,
    tuned_start,
)
from kdjax.evaluation.finetuning.saved import check_state
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.evaluation.finetuning.trial_groups import groups, lanes_of
from kdjax.models import init
from kdjax.storage.files import read_json
from tests.evaluation import handmade
from tests.support.compilations import compilations

SETTINGS = FinetuneConfig(steps=40, batch_size=16, learning_rate=3e-3, pool="mean", lanes=1)
FEW_STEPS = dataclasses.replace(SETTINGS, steps=3)
TASK = handmade.task()
MODEL = init(handmade.MODEL, 0)
SETUP = EncoderSetup(handmade.MODEL, handmade.alone())


def finetune(
    task: Task = TASK,
    settings: FinetuneConfig = SETTINGS,
    *,
    params: Any = MODEL.params,
    protocol: str = "fixed",
    seed: int = 0,
    config: ModelConfig = handmade.MODEL,
    dtype: Dtype = "float32",
    **options: Any,
) -> FinetunedTask:
    """Fine-tune a model on one device."""
    setup = EncoderSetup(config, handmade.alone(), dtype)
    return by_protocol.finetune(
        setup, params, task, settings, protocol=protocol, seed=seed, **options
    )


def test_separable_task_is_learnt() -> None:
    result = finetune()
    # Always naming the larger class scores far less.
    assert result.baseline["handmade"] < 0.7
    assert result.scores["handmade"] > 0.95
    assert result.selection > 0.95
    assert (result.failed, result.diverged) == (0, 0)
    assert result.chosen == Setting(3e-3, 16, None, 40)


def test_regression_with_large_offset_is_learnt() -> None:
    result = finetune(handmade.task(handmade.grades))
    assert result.scores["handmade"] > 0.9
    assert result.baseline == {"handmade": 0.0}


def test_few_shot_learns_from_few_rows() -> None:
    few = FewShotConfig(examples=16, draws=2, steps=60)
    result = finetune(settings=dataclasses.replace(SETTINGS, few_shot=few), protocol="few_shot")
    assert [trial.draw for trial in result.trials] == [0, 1]
    assert result.scores["handmade"] > 0.8


def test_shuffled_labels_score_at_chance() -> None:
    task = handmade.task(reported=400)
    shuffled = np.random.default_rng(1).permutation(task.train.labels)
    train = dataclasses.replace(task.train, labels=shuffled)
    result = finetune(dataclasses.replace(task, train=train))
    # Six standard deviations of a guess, over 400 rows.
    assert abs(result.scores["handmade"] - 0.5) < 0.15


def test_result_follows_from_seed_and_model_dropout() -> None:
    task = handmade.task(handmade.grades)
    settings = dataclasses.replace(SETTINGS, steps=6, learning_rate=1e-3)

    def correlation(seed: int, dropout: float = 0.0) -> float:
        config = dataclasses.replace(handmade.MODEL, dropout=dropout)
        return finetune(task, settings, seed=seed, config=config).scores["handmade"]

    # The seed and the model's dropout each change the result, and nothing else does.
    plain = correlation(0)
    dropped = correlation(0, dropout=0.3)
    assert correlation(0) == plain
    assert len({plain, dropped, correlation(1)}) == 3


def test_params_stay_unchanged_and_mlm_head_is_ignored() -> None:
    before = jax.tree.map(np.array, MODEL.params)
    result = finetune(settings=FEW_STEPS)
    # The caller's parameters are not the ones trained.
    jax.tree.map(np.testing.assert_array_equal, MODEL.params, before)
    # A model that never had an MLM head gets the same result.
    headless = {name: part for name, part in MODEL.params.items() if name != "mlm"}
    assert finetune(settings=FEW_STEPS, params=headless) == result


def test_score_is_the_mean_over_all_seeds() -> None:
    task = handmade.task(handmade.grades)
    result = finetune(task, dataclasses.replace(FEW_STEPS, seeds=3))
    values = [trial.metrics["handmade"]["pearson"] for trial in result.trials]
    assert len(set(values)) == 3
    assert result.scores["handmade"] == pytest.approx(sum(values) / 3)


def test_grid_chooses_by_selection_rows() -> None:
    # One rate learns nothing, the other everything.
    settings = dataclasses.replace(
        SETTINGS, learning_rates=(1e-9, 3e-3), batch_sizes=(16,), epoch_counts=(3,), seeds=2
    )
    result = finetune(settings=settings, protocol="grid")
    assert result.chosen.learning_rate == 3e-3
    assert len(result.trials) == 4
    assert result.scores["handmade"] > 0.9
    # What is scored alone keeps the outcomes of its rows.
    assert [trial.rows is None for trial in result.trials] == [True, True, False, False]
    # Trials that failed and were not chosen are not counted.
    assert sum(trial.failed for trial in result.trials) > result.failed == 0


def test_trial_at_the_best_constant_counts_as_failed() -> None:
    result = finetune(settings=dataclasses.replace(SETTINGS, steps=1, learning_rate=1e-9, seeds=2))
    scored = [trial.failed for trial in result.trials]
    majority = max(np.bincount(TASK.selection.labels)) / len(TASK.selection)
    for trial in result.trials:
        assert trial.failed == (trial.selection <= majority)
    assert result.failed == sum(scored) > 0
    assert result.diverged == 0


def test_diverged_trial_counts_as_the_best_constant() -> None:
    # A token of one training row has an embedding that is not finite.
    params = dict(MODEL.params)
    word = np.array(params["embeddings"]["word"]["embedding"])
    word[19] = math.nan
    params["embeddings"] = {**params["embeddings"], "word": {"embedding": word}}
    result = finetune(params=params, settings=FEW_STEPS)
    (trial,) = result.trials
    assert (result.failed, result.diverged) == (1, 1)
    assert trial.diverged_step == 1
    assert result.scores == result.baseline


def test_outcomes_of_rows_add_up_to_the_score() -> None:
    result = finetune(settings=FEW_STEPS)
    (trial,) = result.trials
    right = right_rows(trial.rows["handmade"], 100)
    assert right.mean() == pytest.approx(result.scores["handmade"])


def test_errors_of_rows_are_in_the_labels_units() -> None:
    task = handmade.task(handmade.grades)
    (trial,) = finetune(task).trials
    errors = squared_errors(trial.rows["handmade"])
    labels = task.reported["handmade"].labels
    # It predicts better than the labels' mean, whose mean squared error is their variance.
    assert 0 < errors.mean() < labels.var()


def test_finetuned_encoder_predicts_what_was_scored() -> None:
    trained = finetune_one(SETUP, MODEL.params, TASK, FEW_STEPS, Setting(3e-3, 16, None, 3), seed=0)
    rows = TASK.reported["handmade"]
    # Hidden labels are not needed.
    predicted = predict(trained, dataclasses.replace(rows, labels=None))
    assert predicted.dtype == np.int32
    expected = finetune(settings=FEW_STEPS).scores["handmade"]
    assert np.mean(predicted == rows.labels) == expected


def test_start_from_an_intermediate_task_is_used_and_said() -> None:
    trained = finetune_one(SETUP, MODEL.params, TASK, SETTINGS, Setting(3e-3, 16, None, 40), seed=0)
    start = TunedEncoder("mnli", trained.encoder)
    settings = dataclasses.replace(SETTINGS, steps=4)
    result = finetune(settings=settings, start=start)
    assert result.intermediate == "mnli"
    assert result.scores["handmade"] > finetune(settings=settings).scores["handmade"]


def test_tuned_start_is_kept_and_read_again(tmp_path: Path) -> None:
    def start(seed: int = 0) -> TunedEncoder:
        return tuned_start(SETUP, MODEL.params, TASK, FEW_STEPS, seed=seed, directory=tmp_path)

    first = start()
    (path,) = (tmp_path / "intermediate").iterdir()
    assert path.name == "handmade.encoder.step3.safetensors"
    with compilations() as later:
        again = start()
    # Nothing was trained, and what was read is the same to the bit.
    assert later == []
    assert again.task == "handmade"
    jax.tree.map(np.testing.assert_array_equal, again.encoder, first.encoder)
    # Another seed's encoder is another one.
    other = start(seed=1)
    with pytest.raises(AssertionError):
        jax.tree.map(np.testing.assert_array_equal, other.encoder, first.encoder)


def test_damaged_start_is_said_and_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def start() -> TunedEncoder:
        return tuned_start(SETUP, MODEL.params, TASK, FEW_STEPS, seed=0, directory=tmp_path)

    first = start()
    (path,) = (tmp_path / "intermediate").iterdir()
    content = bytearray(path.read_bytes())
    # One bit of the last array; header and names stay whole.
    content[-1] ^= 1
    path.write_bytes(content)
    again = start()
    jax.tree.map(np.testing.assert_array_equal, again.encoder, first.encoder)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: its arrays do not have its checksum" in line
    # What was trained again is kept whole.
    check_state(path)


def test_cpu_trains_one_trial_at_a_time_unless_told() -> None:
    assert lanes_of(0, handmade.MODEL, handmade.alone()) == 1
    assert lanes_of(5, handmade.MODEL, handmade.alone()) == 5


def test_finished_trials_are_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(FEW_STEPS, seeds=2)
    result = finetune(settings=settings, directory=tmp_path)
    directory = tmp_path / "fixed" / "handmade"
    # One file a trial, and no state.
    assert {path.suffix for path in directory.iterdir()} == {".json"}
    assert len(list(directory.iterdir())) == 2

    def train(*args: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(by_protocol, "train_lanes", train)
    assert finetune(settings=settings, directory=tmp_path) == result


def test_missing_trial_alone_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(FEW_STEPS, seeds=3)
    result = finetune(settings=settings, directory=tmp_path)
    (missing,) = (tmp_path / "fixed" / "handmade").glob("*-seed0.json")
    missing.unlink()
    trained: list[int] = []
    train_lanes = by_protocol.train_lanes

    def train(*args: Any) -> Any:
        trained.extend(spec.seed for spec in args[4])
        return train_lanes(*args)

    monkeypatch.setattr(by_protocol, "train_lanes", train)
    assert finetune(settings=settings, directory=tmp_path) == result
    assert trained == [0]


@pytest.mark.parametrize("change", ["params", "labels", "settings"])
def test_trials_of_something_else_are_trained_anew(tmp_path: Path, change: str) -> None:
    finetune(settings=FEW_STEPS, directory=tmp_path)
    (path,) = (tmp_path / "fixed" / "handmade").iterdir()
    key = read_json(path)["key"]
    turned = dataclasses.replace(TASK.train, labels=1 - TASK.train.labels)
    changes: dict[str, dict[str, Any]] = {
        "params": {"params": init(handmade.MODEL, 1).params},
        "labels": {"task": dataclasses.replace(TASK, train=turned)},
        "settings": {"settings": dataclasses.replace(FEW_STEPS, weight_decay=0.3)},
    }
    finetune(**{"settings": FEW_STEPS, **changes[change]}, directory=tmp_path)
    assert read_json(path)["key"] != key


def test_many_models_and_rates_compile_once() -> None:
    finetune(settings=FEW_STEPS)
    # The first model compiled both programs; others of its shape need no new one.
    with compilations() as later:
        for seed in range(1, 3):
            settings = dataclasses.replace(FEW_STEPS, learning_rate=1e-3 * seed)
            finetune(settings=settings, params=init(handmade.MODEL, seed).params, seed=seed)
    assert later == []


def test_groups_have_like_trials_and_at_most_the_lanes() -> None:
    short = Setting(1e-3, 8, 1, 10)
    other_rate = Setting(2e-3, 8, 1, 10)
    longer = Setting(1e-3, 8, 2, 20)
    specs = [TrialSpec(s, seed) for s in (short, longer, other_rate) for seed in (0, 1)]
    made = groups(specs, 3)
    assert [len(group) for group in made] == [3, 1, 2]
    for group in made:
        assert len({spec.setting.steps for spec in group}) == 1
    assert sorted(map(str, specs)) == sorted(str(spec) for group in made for spec in group)


def test_draws_are_in_groups_of_their_own() -> None:
    setting = Setting(1e-3, 8, None, 10)
    specs = [TrialSpec(setting, seed, draw) for draw in (0, 1) for seed in (0, 1)]
    assert [{spec.draw for spec in group} for group in groups(specs, 4)] == [{0}, {1}]


def test_lanes_change_scores_by_no_more_than_rounding() -> None:
    task = handmade.task(handmade.grades)
    settings = dataclasses.replace(FEW_STEPS, seeds=3)
    alone = finetune(task, settings)
    together = finetune(task, dataclasses.replace(settings, lanes=3))

    def correlations(result: FinetunedTask) -> list[float]:
        return [trial.score("handmade") for trial in result.trials]

    np.testing.assert_allclose(correlations(together), correlations(alone), atol=1e-4)


def test_bfloat16_learns_the_task() -> None:
    assert finetune(dtype="bfloat16").scores["handmade"] > 0.95


def test_trial_knows_whether_it_diverged() -> None:
    trial = FinetuningTrial(
        Setting(1e-3, 8, 1, 10), 0, None, 0.5, {"a": {"accuracy": 0.5}}, True, 3
    )
    assert trial.diverged
    assert not dataclasses.replace(trial, diverged_step=None).diverged
