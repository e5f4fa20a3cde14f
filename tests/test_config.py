"""Settings: what may be said, what is said back, and what a misspelling gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_type_hints

import pytest

from kdjax import recipes
from kdjax.arms.recipe_arms import arms_of
from kdjax.config import (
    ArmConfig,
    Config,
    EvaluationConfig,
    ModelConfig,
    ModelSpec,
    StartConfig,
    TermConfig,
    plain,
    to_dict,
)
from kdjax.errors import InputError
from kdjax.recipes.settings import look_up, settings

RECIPE = """
data: {files: [a/*.txt, b.jsonl], seq_len: 64, max_predictions: 10}
student: {size: 3x192, dropout: 0}
arms:
  scratch: {}
  mine: {terms: [{name: relation, weight: 2, options: {relation_heads: 12}}]}
budget: {flops: 1e13}
evaluation:
  tasks:
    topic: {file: "package:x/y.json", text: extract, drop_labels: [Other]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_recipe_loads_into_dataclasses(recipe: Path) -> None:
    read = recipes.load(recipe)
    # Numbers, lists and mappings have the types of the settings.
    assert read.data.files == ("a/*.txt", "b.jsonl")
    assert read.budget.flops == 1e13
    assert read.student.dropout == 0.0
    assert read.arms["scratch"] == ArmConfig()
    assert read.arms["mine"].terms == (
        TermConfig("relation", weight=2.0, options={"relation_heads": 12}),
    )
    assert read.evaluation.tasks["topic"].drop_labels == ("Other",)
    # What the recipe leaves out has its default.
    assert read.train == Config().train


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--data.files", "my/*.txt"], lambda c: c.data.files == "my/*.txt"),
        (["--budget.flops=2e12"], lambda c: c.budget.flops == 2e12),
        (["--arms.mine.preset", "logit"], lambda c: c.arms["mine"].preset == "logit"),
        (["--seeds", "[4, 5]"], lambda c: c.seeds == (4, 5)),
        (["--arms", "{minilm: {}}"], lambda c: list(c.arms) == ["minilm"]),
        (["--arms.mine", "null"], lambda c: list(c.arms) == ["scratch"]),
        (["--arms.mine=null"], lambda c: list(c.arms) == ["scratch"]),
        (
            ["--evaluation.tasks.topic.text", "body"],
            lambda c: c.evaluation.tasks["topic"].text == "body",
        ),
    ],
)
def test_dotted_overrides_change_the_recipe(recipe: Path, words: list[str], value: object) -> None:
    assert callable(value)
    assert value(recipes.load(recipe, words))


@pytest.mark.parametrize(
    ("yaml", "words", "message"),
    [
        (
            "data: {seq_lenn: 3}",
            [],
            r"unknown setting 'data.seq_lenn' \(did you mean 'seq_len'\?\)",
        ),
        (
            "arms: {a: {presett: x}}",
            [],
            r"unknown setting 'arms.a.presett' \(did you mean 'preset'\?\)",
        ),
        ("bugdet: {flops: 3}", [], r"unknown setting 'bugdet' \(did you mean 'budget'\?\)"),
        (
            "{}",
            ["--data.seq_lenn", "3"],
            r"unknown setting '--data.seq_lenn' \(did you mean '--data.seq_len'\?\)",
        ),
        ("data: {seq_len: many}", [], r"data.seq_len: Expected a int. Got value: many"),
        ("{}", ["--student.norm", "middle"], r"student.norm.*Expected.*'post', 'pre'.*middle"),
        (
            "student: {positions: 64}",
            [],
            r"student.positions: .*'rotary'.* 64 \(the longest sequence is now max_posit",
        ),
        (
            "{}",
            ["--student.positions", "64"],
            r"Got value: 64 \(the longest sequence is now max_positions\)$",
        ),
        (
            "arms: {a: {terms: [{name: mlm, variant: bui}]}}",
            [],
            r"arms.terms.variant: Expected a Literal.*bui$",
        ),
        (
            "arms: {a: {terms: [{name: mlm, weight: big}]}}",
            [],
            r"arms.terms.weight: expected one of float, Schedule.*big",
        ),
        (
            "arms: {a: {terms: [{name: mlm, weight: {points: [[0.5, 1], [0, 2]]}}]}}",
            [],
            r"schedule: points are at \[0.5, 0.0\], expected ascending shares of the budget from "
            r"0 to 1$",
        ),
        (
            "arms: {a: {terms: [{name: mlm, weight: {shap: step}}]}}",
            [],
            r"weight.shap' .did you mean 'shape'",
        ),
        ("cache: {logits: top}", [], r"cache.logits: Expected a Literal"),
        ("cache: {k: 0}", [], r"cache.k is 0, expected at least 1"),
        ("data: {mask_copies: -1}", [], r"data.mask_copies is -1, expected at least 0"),
        ("data: {seq_len: 4}", [], r"data.seq_len is 4, expected at least 8"),
        ("{}", ["--data.mlm_probability", "1.5"], r"data.mlm_probability is 1.5, expected a share"),
        ("data: {length: 64}", [], r"unknown setting 'data.length': it is now 'data.seq_len'$"),
        ("train: {batch: 8}", [], r"'train.batch': it is now 'train.batch_size'$"),
        ("student: {types: 1}", [], r"'student.types': it is now 'student.type_vocab_size'$"),
        (
            "{}",
            ["--train.seeds_at_once", "2"],
            r"'--train.seeds_at_once': it is now '--train.vmapped_seeds'$",
        ),
        ("seeds: [-1]", [], r"seeds has -1, expected whole numbers from 0 to 2\^32 - 1"),
        ("seeds: [4294967296]", [], r"seeds has 4294967296, expected whole numbers"),
        ("evaluation: {texts: {1: a.txt}}", [], r"evaluation.texts has 1, expected names"),
        ("a: b: c", [], r"not a readable YAML recipe"),
        ("student:", [], r"'student' is None, expected a mapping of settings"),
        ("arms: {a: }", [], r"'arms.a' is None, expected a mapping of settings"),
        ("arms:", [], r"'arms' is null, expected values"),
        ("arms: {a: {optimizer: }}", [], r"'arms.a.optimizer' is null, expected values"),
        ("arms: {a: {preset: no}}", [], r"preset: Expected a str. Got value: False"),
        (
            "arms: {minilm: {}, scratch: {}}",
            ["--arms.minlm", "null"],
            r"--arms.minlm null drops an arm, expected one .* \(did you mean 'minilm'\?\)$",
        ),
        (
            "arms: {scratch: {}}",
            ["--arms.scratch", "null"],
            r"--arms.scratch null drops the last arm, expected one to be left$",
        ),
        (
            "arms: {a: {}, b: {}}",
            ["--arms.a", "null", "--arms.a.preset", "logit"],
            r"--arms.a null drops the arm and another override changes it",
        ),
        ("{}", ["--arms", "null"], r"arms.*(expected|Expected)"),
        ("[1, 2]", [], r"expected a mapping of settings, found list"),
    ],
)
def test_unknown_or_wrong_setting_is_refused_by_name(
    tmp_path: Path, yaml: str, words: list[str], message: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml, encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        recipes.load(path, words)
    # A user reads one line, without a traceback.
    assert "\n" not in str(error.value)


def test_yaml_object_tags_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("data: !!python/object/apply:os.system ['true']", encoding="utf-8")
    with pytest.raises(InputError, match="not a readable YAML recipe"):
        recipes.load(path)


def test_config_round_trips_through_json_and_yaml(recipe: Path, tmp_path: Path) -> None:
    read = recipes.load(recipe)
    assert recipes.from_dict(json.loads(json.dumps(to_dict(read)))) == read
    # And as the file that a study writes of its recipe.
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipes.dump(read), encoding="utf-8")
    assert recipes.load(copy) == read


def test_each_setting_has_a_type_and_a_meaning() -> None:
    by_name = {setting.name: setting for setting in settings()}
    for name in (
        "data.seq_len",
        "teacher.head.optimizer.eps",
        "arms.NAME.terms.N.options",
        "evaluation.tasks.NAME.test",
    ):
        assert name in by_name
    for name, setting in by_name.items():
        assert setting.kind and setting.summary, f"{name} has no meaning written down"
    # Types and defaults as a recipe has them.
    assert by_name["data.documents"].head() == (
        'data.documents: paragraphs | lines | files = "paragraphs"'
    )
    assert by_name["student.layers"].head() == "student.layers: int | null = null"
    assert by_name["train.log.tensorboard"].head() == "train.log.tensorboard: bool = true"


def test_settings_are_found_by_beginning_by_part_and_below_names_of_a_recipe() -> None:
    def names(words: str) -> list[str]:
        return [setting.name for setting in look_up(words)]

    assert names("--train.log.every") == ["train.log.every"]
    assert names("train.log") == [name for name in names("train") if ".log." in name]
    assert "teacher.train.optimizer.learning_rate" in names("learning_rate")
    assert names("arms.minilm.start.source") == ["arms.NAME.start.source"]
    with pytest.raises(InputError, match=r"no setting has 'learning_rat_e'.*'learning_rate'"):
        names("learning_rat_e")


@pytest.mark.parametrize(
    "settings",
    [{"confidence": 1.0}, {"confidence": -1.0}, {"margin": -5.0}, {"margin": float("inf")}],
)
def test_confidence_or_margin_out_of_range_is_refused(settings: dict[str, float]) -> None:
    name, value = next(iter(settings.items()))
    with pytest.raises(InputError, match=rf"evaluation.{name} is {value}"):
        EvaluationConfig(**settings)


def test_later_settings_at_their_defaults_identify_nothing() -> None:
    config = Config(arms={"mine": ArmConfig(preset="scratch", start=StartConfig("teacher"))})
    values = to_dict(config)
    optimizer = values["train"]["optimizer"]
    # A study from before there was a choice has these settings alone.
    assert set(optimizer) == {
        "learning_rate",
        "warmup",
        "weight_decay",
        "b1",
        "b2",
        "eps",
        "clip",
    }
    assert "mlm_probability_start" not in values["data"]
    assert values["arms"]["mine"]["start"] == {"source": "teacher", "layers": "uniform"}
    # What is chosen is named, and both are read back.
    chosen = recipes.changed(
        config, {"train.optimizer.name": "muon", "data.mlm_probability_start": 0.3}
    )
    named = to_dict(chosen)
    assert named["train"]["optimizer"]["name"] == "muon"
    assert named["data"]["mlm_probability_start"] == 0.3
    for one in (config, chosen):
        assert recipes.from_dict(plain(to_dict(one))) == one
    # The recipe that is printed has every setting.
    assert "schedule: linear" in recipes.dump(config)


def test_spec_of_a_model_has_each_of_its_settings_or_leaves_it_open() -> None:
    of_spec = get_type_hints(ModelSpec)
    for name, kind in get_type_hints(ModelConfig).items():
        assert of_spec[name] in (kind, kind | None), name


def test_models_of_a_recipe_leave_nothing_open_and_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("student: {family: distilbert, size: 2x64, dropout: 0.2}\n", encoding="utf-8")
    config = recipes.load(path, ["--teacher.architecture.family", "roberta"])
    assert (config.student.type_vocab_size, config.student.dropout) == (0, 0.2)
    assert config.teacher.architecture.vocab_size == 50265
    # Written out, a recipe says all of it.
    path.write_text(recipes.dump(config), encoding="utf-8")
    assert "type_vocab_size: 0" in path.read_text(encoding="utf-8")
    assert recipes.load(path) == config


def test_arm_of_another_family_keeps_size_and_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    text = "student: {size: 2x64, dropout: 0.3}\narms: {scratch: {student: {family: modernbert}}}\n"
    path.write_text(text, encoding="utf-8")
    student = arms_of(recipes.load(path))["scratch"].student_config
    assert (student.layers, student.vocab_size, student.ffn) == (2, 30522, 96)
    assert (student.family, student.dropout) == ("modernbert", 0.0)


def test_family_that_a_recipe_contradicts_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    text = "student: {family: modernbert, type_vocab_size: 2}\narms: {scratch: {}}\n"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="type_vocab_size is 2, expected 0, as every modernbert"):
        arms_of(recipes.load(path))
