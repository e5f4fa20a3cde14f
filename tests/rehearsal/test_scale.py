"""A recipe scaled down does what the recipe does, with less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdjax import recipes
from kdjax.arms.recipe_arms import arms_of
from kdjax.config import (
    ArmConfig,
    CheckpointConfig,
    Config,
    MeshConfig,
    PretrainingConfig,
    RampConfig,
    StartConfig,
    TermConfig,
    TokenizerConfig,
    TrainConfig,
)
from kdjax.rehearsal.scale import Inputs, devices, scale_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(
    path for folder in ("paper", "studies", "tpu") for path in (CONFIGS / folder).glob("*.yaml")
)
INPUTS = Inputs(Path("text.jsonl"), teacher=Path("teacher"), suite=Path("glue"))


def inputs_of(config: Config) -> Inputs:
    """Return stand-ins for a recipe's inputs."""
    tasks = dict(config.evaluation.tasks)
    if config.teacher.train.budget:
        return replace(INPUTS, teacher=None, tasks=tasks)
    return replace(INPUTS, tasks=tasks)


def terms_of(config: Config) -> dict[str, Any]:
    """Return per arm and phase the names of its terms and where the phase ends."""
    terms = {}
    for name, arm in arms_of(config).items():
        phases = arm.config.phases
        terms[name] = [(phase.until, [term.name for term in phase.terms]) for phase in phases]
    return terms


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_recipe_of_the_project_scales_to_one_with_the_same_objectives(path: Path) -> None:
    config = recipes.load(path)
    smaller = scale_recipe(config, inputs_of(config))
    assert terms_of(smaller) == terms_of(config)
    assert smaller.data.regime == config.data.regime
    assert smaller.evaluation.protocols == config.evaluation.protocols
    assert smaller.evaluation.task_endpoints == config.evaluation.task_endpoints
    assert smaller.student.family == config.student.family
    assert smaller.student.positions == config.student.positions
    assert smaller.train.optimizer == config.train.optimizer
    assert smaller.train.compute == config.train.compute


def test_scaled_recipe_is_read_back_from_its_file(tmp_path: Path) -> None:
    config = recipes.load(CONFIGS / "paper" / "limited-6x768.yaml")
    smaller = scale_recipe(config, INPUTS)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipes.dump(smaller), encoding="utf-8")
    assert recipes.load(path) == smaller


def test_limited_text_is_two_batches_so_that_every_run_repeats_it() -> None:
    smaller = scale_recipe(recipes.load(CONFIGS / "paper" / "limited-6x768.yaml"), INPUTS)
    assert smaller.data.unique_tokens == 2 * smaller.train.batch_size * smaller.data.seq_len


@pytest.mark.parametrize(
    ("mesh", "turns", "expected"),
    [
        (MeshConfig(), 1, (1, 8)),
        (MeshConfig(fsdp=8), 1, (2, 8)),
        (MeshConfig(data=4, fsdp=8, tensor=2), 4, (8, 32)),
    ],
)
def test_batch_divides_over_the_devices_and_turns_also_within_a_ramp(
    mesh: MeshConfig, turns: int, expected: tuple[int, int]
) -> None:
    ramp = (RampConfig(0.1, 256), RampConfig(0.2, 2048))
    train = TrainConfig(batch_size=1024, batch_ramp=ramp, grad_accum_steps=turns, mesh=mesh)
    smaller = scale_recipe(Config(arms={"scratch": ArmConfig()}, train=train), INPUTS).train
    assert (devices(smaller.mesh), smaller.batch_size) == expected
    first, second = (stretch.batch_size for stretch in smaller.batch_ramp)
    assert first < smaller.batch_size < second
    for batch_size in (first, smaller.batch_size, second):
        assert batch_size % (devices(smaller.mesh) * smaller.grad_accum_steps) == 0


def test_layers_and_relation_heads_that_an_arm_names_are_there() -> None:
    own = ArmConfig(
        terms=(
            TermConfig("hidden_mse", options={"layers": [[3, 6], [6, 12]]}),
            TermConfig("relation", options={"relation_heads": 12, "teacher_layer": 11}),
        ),
    )
    shallow = ArmConfig(
        terms=(TermConfig("mlm"),),
        start=StartConfig("teacher", (4, 8, 12)),
        student={"size": "3x768", "dropout": 0.2},
    )
    arms = arms_of(scale_recipe(Config(arms={"own": own, "shallow": shallow}), INPUTS))
    hidden, relation = arms["own"].config.phases[0].terms
    assert hidden.options["layers"] == [[1, 2], [2, 4]]
    assert relation.options == {"relation_heads": 2, "teacher_layer": 4}
    student = arms["shallow"].phases[0].student_config
    assert (student.layers, student.dropout, student.width) == (1, 0.2, 32)
    assert arms["shallow"].start.layers == (4,)


def test_number_of_warm_up_steps_becomes_a_share() -> None:
    smaller = scale_recipe(Config(arms={"paper_as_run_scratch": ArmConfig()}), INPUTS)
    assert smaller.arms["paper_as_run_scratch"].finetune == {"warmup": 0.1}


def test_kind_of_tokenizer_and_teachers_of_ones_own_stay() -> None:
    config = Config(
        data=replace(Config().data, tokenizer=TokenizerConfig("bpe", 4096)),
        arms={"scratch": ArmConfig()},
    )
    training = PretrainingConfig(budget=1e12, seeds=(3, 1, 2), checkpoints=(0.5, 1.0))
    config = replace(config, teacher=replace(config.teacher, train=training, at=0.5))
    smaller = scale_recipe(config, replace(INPUTS, teacher=None))
    assert smaller.data.tokenizer == TokenizerConfig("bpe", 512)
    assert (smaller.student.vocab_size, smaller.teacher.architecture.vocab_size) == (512, 512)
    assert (smaller.teacher.train.seeds, smaller.teacher.at) == ((3, 1), 0.5)
    assert smaller.teacher.source == ""


def test_backup_stands_for_the_bucket_and_nothing_leaves_the_machine() -> None:
    checkpoint = CheckpointConfig(directory="gs://bucket/study")
    train = TrainConfig(checkpoint=checkpoint)
    train = replace(train, log=replace(train.log, wandb="project"))
    config = Config(arms={"scratch": ArmConfig()}, train=train)
    smaller = scale_recipe(config, replace(INPUTS, backup=Path("backup")))
    assert smaller.train.checkpoint.directory == "backup"
    assert smaller.train.log.wandb == ""
