"""What measuring on tasks costs, before it is done: steps, batches, FLOPs, how they are told."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import yaml

from kdjax import recipes
from kdjax.budget.price import count_program_flops
from kdjax.config import EvaluationConfig, FewShotConfig, FinetuneConfig, ModelConfig
from kdjax.config.suites import GLUE, suite_tasks
from kdjax.data.tasks.official_sizes import SIZES, stand_in_tasks, tokens_of
from kdjax.dry_run.task_costs import task_costs
from kdjax.evaluation.finetuning import EncoderSetup, finetune, trial
from kdjax.evaluation.finetuning.flops import REFERENCE_DROPOUT, probe_flops, task_flops
from kdjax.evaluation.finetuning.step import StepKey, abstract_batch, abstract_state, make_step
from kdjax.evaluation.finetuning.work import (
    BatchLimits,
    TaskBatchShape,
    work_of,
    work_of_probe,
    work_of_start,
)
from kdjax.evaluation.length_buckets import compute_over_rows, tokens_per_batch
from kdjax.models import init
from kdjax.parallel.unsharded import UNSHARDED
from tests.evaluation import handmade
from tests.study.conftest import kdjax
from tests.support import glue, small_study
from tests.support.corpora import make_tokenizer

MODEL = ModelConfig(layers=2, width=16, heads=2, ffn=32, vocab_size=53, max_positions=64)
MACHINE = BatchLimits(longest=80, lanes=1, batch_parts=1, tokens=64)
SETTINGS = FinetuneConfig(
    steps=7,
    batch_size=16,
    learning_rates=(1e-3, 3e-3),
    batch_sizes=(16, 32),
    epoch_counts=(1, 2),
    seeds=2,
    few_shot=FewShotConfig(examples=8, draws=3, steps=5),
    lanes=1,
)


def recipe(directory: Path, **evaluation: Any) -> Path:
    """Write a recipe that is measured on GLUE."""
    settings = {
        "data": {
            "tokenizer": str(make_tokenizer(directory / "tokenizer.json")),
            "seq_len": 16,
            "max_predictions": 3,
        },
        "student": small_study.STUDENT,
        "arms": {"scratch": {}},
        "budget": {"flops": 1e9},
        "seeds": [0, 1, 2],
        "evaluation": {"suite": "glue", "glue": str(directory / "glue"), **evaluation},
    }
    path = directory / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.mark.parametrize("protocol", ["fixed", "grid", "few_shot"])
def test_steps_are_those_that_fine_tuning_does(
    protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = handmade.task()
    done: Counter[TaskBatchShape] = Counter()
    make_batch = trial.make_batch

    def count_batch(*arguments: Any) -> Any:
        batch = make_batch(*arguments)
        done[TaskBatchShape(*batch["tokens"].shape)] += 1
        return batch

    # Steps are counted, and change nothing.
    monkeypatch.setattr(trial, "make_batch", count_batch)
    monkeypatch.setattr(
        trial, "compiled_step", lambda *_: lambda state, batch, rate: (state, jnp.float32(0))
    )
    result = finetune(
        EncoderSetup(handmade.MODEL, handmade.alone()),
        init(handmade.MODEL, 0).params,
        task,
        SETTINGS,
        protocol=protocol,
        seed=0,
    )
    work = work_of(task, SETTINGS, protocol, MACHINE)
    assert work.trials == len(result.trials)
    assert work.steps == done


def test_scoring_batches_are_those_that_scoring_reads() -> None:
    task = handmade.task(train=40, selection=900, reported=700)
    machine = dataclasses.replace(MACHINE, tokens=tokens_per_batch(), batch_parts=2)
    read: Counter[TaskBatchShape] = Counter()

    def count_batch(batch: Any) -> jax.Array:
        read[TaskBatchShape(*batch["tokens"].shape)] += 1
        return jnp.zeros(len(batch["tokens"]))

    for split in (task.selection, task.reported["handmade"]):
        compute_over_rows(count_batch, split, machine.longest, batch_parts=2)
    settings = dataclasses.replace(SETTINGS, seeds=1)
    assert work_of(task, settings, "fixed", machine).passes == read
    # A probe reads training rows besides, at most so many.
    probe = work_of_probe(task, 10, machine)
    assert probe.passes.total() == read.total() + 1
    assert not probe.steps


def test_lanes_share_steps_and_not_flops() -> None:
    task = handmade.task()
    together = work_of(task, SETTINGS, "grid", dataclasses.replace(MACHINE, lanes=4))
    alone = work_of(task, SETTINGS, "grid", MACHINE)
    assert together.steps.total() * 4 == alone.steps.total()
    flops = task_flops(MODEL, SETTINGS).step
    assert flops.total(together.steps) == flops.total(alone.steps)


def test_start_is_one_training_without_scoring() -> None:
    work = work_of_start(handmade.task(), SETTINGS, MACHINE)
    assert (work.trials, work.steps.total(), work.passes.total()) == (1, SETTINGS.steps, 0)


@pytest.mark.parametrize(("rows", "length"), [(3, 8), (5, 40), (32, 64)])
def test_flops_of_a_step_are_those_counted_at_its_shape(rows: int, length: int) -> None:
    step_key = StepKey(
        model=MODEL,
        outputs=2,
        regression=False,
        pool="first",
        weight_decay=0.01,
        eps=1e-6,
        clip=0.0,
        dtype="float32",
        layout=handmade.alone(),
    )
    step = make_step(step_key, REFERENCE_DROPOUT, UNSHARDED)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    counted = count_program_flops(
        step, abstract_state(step_key), abstract_batch(step_key, rows, length), rate
    )
    assert task_flops(MODEL, SETTINGS).step.at(rows, length) == pytest.approx(
        counted.flops, rel=1e-3
    )


def test_forward_flops_are_at_least_those_of_the_matmuls() -> None:
    # Of a token in a layer: four matrices of attention and two of the feed-forward part, and of a
    # pair of tokens scores and values.
    width = MODEL.width
    per_token = 2 * (4 * width**2 + 2 * width * MODEL.ffn)
    per_pair = 4 * width
    forward = probe_flops(MODEL)
    assert MODEL.layers * per_token < float(forward.token) < 1.5 * MODEL.layers * per_token
    assert MODEL.layers * per_pair < float(forward.pair) < 2 * MODEL.layers * per_pair


def test_official_sizes_are_glues() -> None:
    evaluation = EvaluationConfig(suite="glue", glue="x", report_on="dev")
    tasks = {task.name: task for task in stand_in_tasks(evaluation, 128)}
    assert list(tasks) == [task.name for task in GLUE]
    assert {name: len(task.train) for name, task in tasks.items()} == {
        name: size.train for name, size in SIZES.items()
    }
    mnli = tasks["mnli"]
    assert {name: len(split) for name, split in mnli.reported.items()} == {
        "mnli": 9_815,
        "mnli-mm": 9_832,
    }
    assert len(mnli.selection) == 9_815


def test_rows_are_split_and_cut_as_the_recipe_says() -> None:
    evaluation = EvaluationConfig(suite="glue", glue="x", suite_tasks=("rte",), selection=0.2)
    (rte,) = stand_in_tasks(evaluation, 48)
    assert (len(rte.train), len(rte.selection)) == (1_992, 498)
    assert set(rte.train.lengths) == {48}
    # 321 bytes at 4.5 a token, [CLS] and two [SEP]
    (task,) = suite_tasks("glue", ("rte",))
    assert tokens_of(task, 128) == 74


def test_grid_on_official_mrpc_has_the_steps_counted_by_hand(tmp_path: Path) -> None:
    path = recipe(tmp_path, suite_tasks=["mrpc"], protocols=["grid"])
    cost = task_costs(recipes.load(path))["scratch"]
    # 3,301 of 3,668 rows, in batches of 16 and 32, 5 epochs, 4 learning rates
    steps = 5 * 4 * (207 + 104)
    grid = cost["protocols"]["grid"]
    assert (grid["trials"], grid["steps"]) == (8, steps)
    assert grid["tokens"] == 5 * 4 * (207 * 16 + 104 * 32) * 16
    assert (cost["rows"], cost["unknown"]) == ("official", None)
    assert cost["flops"] == grid["flops"] > 0


def test_rows_of_files_are_counted_where_they_are(tmp_path: Path) -> None:
    glue.write_official(tmp_path / "glue", suite_tasks("glue", ("mrpc", "stsb")))
    settings = {"intermediate": "stsb", "intermediate_tasks": ["mrpc"], "epochs": 2}
    path = recipe(
        tmp_path, suite_tasks=["mrpc", "stsb"], protocols=["probe", "fixed"], finetune=settings
    )
    cost = task_costs(recipes.load(path))["scratch"]
    assert cost["rows"] == "files"
    protocols = cost["protocols"]
    assert list(protocols) == ["probe", "fixed", "intermediate"]
    assert {name: of_one["trials"] for name, of_one in protocols.items()} == {
        "probe": 0,
        "fixed": 2,
        "intermediate": 1,
    }
    assert cost["flops"] == sum(of_one["flops"] for of_one in protocols.values())


def test_tasks_that_cannot_be_read_are_said_and_left_out(tmp_path: Path) -> None:
    own = {"mine": {"file": str(tmp_path / "mine.csv")}}
    path = recipe(tmp_path, suite="", glue="", tasks=own, protocols=["fixed"])
    cost = task_costs(recipes.load(path))["scratch"]
    assert "mine.csv" in cost["unknown"]
    assert cost["flops"] == 0


def test_recipe_without_tasks_has_no_cost(tmp_path: Path) -> None:
    assert task_costs(recipes.load(recipe(tmp_path, suite="", glue=""))) == {}


def test_price_tells_protocols_and_study(tmp_path: Path) -> None:
    path = recipe(tmp_path, suite_tasks=["mrpc"], protocols=["grid"])
    (row,) = json.loads(kdjax("price", path, "--json").out)["scratch"]
    flops = row["tasks"]["flops"]
    out = kdjax("price", path).out
    assert (
        f"FLOPs of measuring a run on tasks, not charged: scratch: grid {flops:.4g} (8 trainings, "
        "6,220 steps)"
    ) in out
    assert f"tasks of 3 runs: {3 * flops:.4g} FLOPs, an estimate by GLUE's official" in out
