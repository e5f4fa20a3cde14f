"""`kdjax compile` on a recipe with tasks: fine-tuning's programs, memory and hours. Devices of this
machine stand for a slice's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import pytest
import yaml

from kdjax import recipes
from kdjax.dry_run import task_compiling
from kdjax.dry_run.task_compiling import CompiledShape, compile_tasks
from kdjax.evaluation.finetuning.work import TaskBatchShape
from kdjax.hlo import aot
from kdjax.hlo.aot import Slice
from kdjax.hlo.chips import Chip, chip
from tests.study.conftest import kdjax
from tests.support import small_study

pytestmark = pytest.mark.system

V5E = chip("v5e")


def a_slice(of: Chip = V5E) -> Slice:
    return Slice("v5e:2x4", of, 8, tuple(jax.devices()[:8]))


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that fine-tunes on MRPC without its files; this machine stands for a slice."""
    monkeypatch.setattr(aot, "forbid_accelerators", lambda: None)
    monkeypatch.setattr(aot, "slice_of", lambda topology: a_slice())
    settings = {
        "data": {"seq_len": 16, "max_predictions": 3},
        "student": small_study.STUDENT,
        "arms": {"scratch": {}},
        "budget": {"flops": 1e8},
        "train": {"batch_size": 16},
        "seeds": [0, 1, 2],
        "evaluation": {
            "suite": "glue",
            "glue": "not/there",
            "suite_tasks": ["mrpc"],
            "protocols": ["probe", "fixed"],
            "finetune": {"lanes": 1},
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def test_hours_are_those_of_all_steps_and_scoring_batches(recipe: Path) -> None:
    tasks = compile_tasks(recipes.load(recipe), a_slice())["scratch"]
    # 3,301 rows in batches of 32, 3 epochs; 408 and 367 rows in one scoring batch each
    assert (tasks["trials"], tasks["steps"], tasks["passes"]) == (1, 3 * 104, 2)
    step, scoring = tasks["programs"]
    assert (step["part"], step["rows"], step["length"], step["lanes"]) == ("step", 32, 16, 1)
    assert (scoring["part"], scoring["rows"]) == ("scoring", 8 * 32_768 // 16)
    seconds = 3 * 104 * step["seconds"] + 2 * scoring["seconds"]
    assert tasks["hours"] == pytest.approx(seconds / 3600)
    assert tasks["hbm"] == max(step["hbm"], scoring["hbm"]) > 0
    assert tasks["fits"]


def test_fine_tuning_that_does_not_fit_is_printed_and_refused(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(recipe: object, target: Slice, part: str, shape: TaskBatchShape) -> CompiledShape:
        return CompiledShape(shape, None, 2 * target.chip.hbm, fits=False)

    monkeypatch.setattr(task_compiling, "_compiled", too_large)
    ended = kdjax("compile", recipe, "--topology", "v5e:2x4")
    assert ended.status == 2
    assert "scratch: fine-tuning: 1 training, 312 steps, 2 scoring batches by GLUE's" in ended.out
    assert "GiB of HBM too much; hours unknown, by estimate" in ended.out
    assert "scratch's fine-tuning: do not fit in the" in ended.err


def test_times_between_compiled_lengths_lie_on_a_line() -> None:
    compiled_lengths: list[int] = []

    def compile_shape(shape: TaskBatchShape) -> CompiledShape:
        compiled_lengths.append(shape.length)
        return CompiledShape(shape, 0.5 + 0.01 * shape.length, 1, fits=True)

    lengths = (8, 24, 40, 56, 80)
    batches = Counter({TaskBatchShape(32, length): 10 + length for length in lengths})
    programs, seconds = task_compiling.compile_and_time(
        batches, compile_shape, lambda shape: shape.rows
    )
    assert compiled_lengths == [8, 40, 80]
    assert len(programs) == 3
    assert seconds == pytest.approx(
        sum((10 + length) * (0.5 + 0.01 * length) for length in lengths)
    )


def test_slice_of_several_hosts_fine_tunes_on_one_device(recipe: Path) -> None:
    config = recipes.load(recipe)
    assert task_compiling.devices_of(config, a_slice()).device_count == 8
    larger = replace(a_slice(), name="v5e:4x4", chips=16)
    assert task_compiling.devices_of(config, larger).device_count == 1


@pytest.mark.parametrize(
    ("name", "chips", "is_one"),
    [
        ("v5e:2x4", 8, True),
        ("v6e:2x4", 8, True),
        ("v5e:4x4", 16, False),
        ("v5p:2x2x1", 4, True),
        ("v5p:2x2x2", 8, False),
    ],
)
def test_hosts_have_as_many_chips_as_google_clouds(name: str, chips: int, is_one: bool) -> None:
    assert Slice(name, V5E, chips, ()).is_one_host == is_one
