"""Recipes whose values are plainly of their settings' types are read as jsonargparse reads them."""

from __future__ import annotations

import dataclasses
import random
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdjax import recipes
from kdjax.config import Config, plain, to_dict
from kdjax.errors import InputError
from kdjax.recipes import keys, reading, settings, strict_yaml
from tests.fuzz.mutations import changed_recipe
from tests.support import small_study

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(CONFIGS.rglob("*.yaml"))
MUTATIONS = 20


def converted(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Config | None:
    """Read values by jsonargparse alone; None where it refuses them."""
    with monkeypatch.context() as patch:
        patch.setattr(reading, "take_plain_values", lambda values: None)
        try:
            return recipes.from_dict(values)
        except InputError:
            return None
        except Exception as e:  # jsonargparse's own, which `load` puts into words
            assert type(e).__module__.startswith(("jsonargparse", "argparse", "builtins"))
            return None


def assert_same(config: Config | None, expected: Config | None) -> None:
    """Assert that two configs are equal, and each value of the same type."""
    assert config is not None
    assert config == expected
    assert repr(config) == repr(expected)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipe_is_read_as_by_jsonargparse(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = strict_yaml.load(path.read_text(encoding="utf-8"))
    assert_same(reading.take_plain_values(values), converted(values, monkeypatch))


def test_setting_of_every_kind_is_read_as_by_jsonargparse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {
        "scratch": {},
        "own": {
            "terms": [
                {"name": "mlm", "weight": 2, "options": {"a": [1, "b"], "c": {"d": None}}},
                {"name": "logit", "weight": {"points": [[0, 1], [1, 0.5]], "shape": "step"}},
            ],
            "optimizer": {"learning_rate": 1e-3},
            "teacher": "cached",
            "start": {"source": "teacher", "layers": [0]},
        },
    }
    changes = {
        "arms": arms,
        "sweep": {"budget.flops": [1e7, 2e7], "trunk": "shared"},
        "tune": {"trials": 2, "space": {"optimizer.learning_rate": {"low": 1, "high": 2.0}}},
        "teacher": {"architecture": {"size": "2x64"}, "head": {"optimizer": {"b1": 0.5}}},
    }
    values = small_study.settings(tmp_path, **changes)
    config = reading.take_plain_values(values)
    assert_same(config, converted(values, monkeypatch))
    # What is written down of it is read back.
    assert_same(reading.take_plain_values(plain(to_dict(config))), config)


@pytest.mark.parametrize(
    "overrides",
    [
        ["--data.files", "my/*.txt"],
        ["--data.files", "7"],
        ["--budget.flops=2e12"],
        ["--budget.flops", "3"],
        ["--seeds", "[4, 5]"],
        ["--student.norm", "pre", "--student.heads=4", "--student.ffn", "null"],
        ["--teacher.architecture.dropout", "0"],
        ["--teacher.head.optimizer.b1", "0.5"],
        ["--data.seq_len", "8", "--data.workers", "2", "--data.seq_len", "12"],
        ["--teacher.note", "null"],
        ["--data.tokenizer", "words.json"],
        ["--train.mesh.data", "1"],
        ["--arms.minilm.preset", "logit"],
    ],
)
def test_overrides_are_read_as_by_jsonargparse(
    tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_study.write(tmp_path)
    config = recipes.load(recipe, overrides)
    monkeypatch.setattr(reading, "take_plain_values", lambda values: None)
    assert_same(config, recipes.load(recipe, overrides))


@pytest.mark.parametrize(
    "overrides", [["--arms.minilm.preset", "logit"], ["--data", "{seq_len: 64}"], ["--seeds+", "7"]]
)
def test_override_that_adds_is_left_to_jsonargparse(overrides: list[str]) -> None:
    values = {"arms": {"minilm": {"preset": "minilm"}}, "seeds": [1]}
    assert keys.with_overrides(values, overrides) is None


@pytest.mark.parametrize(
    "values",
    [
        {"data": {"seq_len": "64"}},
        {"data": {"seq_len": 64.0}},
        {"data": {"seq_len": True}},
        {"data": {"drop_cached": 1}},
        {"data": None},
        {"data": {"seq_len": 4}},  # out of range
        {"seeds": "[1, 2]"},
        {"arms": {3: {}}},
        {"arms": {"a": {"optimizer": {"learning_rate": "1e-3"}}}},
        {"budget": {"flops": 10**400}},
    ],
)
def test_value_of_another_type_or_out_of_range_is_left_to_jsonargparse(
    values: dict[str, Any],
) -> None:
    assert reading.take_plain_values(values) is None


def test_changed_recipe_is_read_as_by_jsonargparse_or_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_study.settings(tmp_path)
    names = [setting.name for setting in settings.settings()]
    names = [name.replace(".NAME", ".scratch").replace(".N", ".0") for name in names]
    read = 0
    for number in range(MUTATIONS):
        changed = changed_recipe(recipe, names, random.Random(f"values {number}"))
        values = strict_yaml.load(yaml.safe_dump(changed, allow_unicode=True))
        try:
            reading.check_keys(values, Config, "recipe", ())
        except InputError:
            continue
        config = reading.take_plain_values(values)
        if config is not None:
            read += 1
            assert_same(config, converted(values, monkeypatch))
    assert 0 < read < MUTATIONS


def test_sections_with_other_defaults_are_those_of_the_settings() -> None:
    assert set(sections_with_other_defaults(Config)) == set(reading.SECTIONS_WITH_OTHER_DEFAULTS)


def sections_with_other_defaults(cls: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every section whose default is not what its class makes of nothing."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        below = (*path, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if dataclasses.is_dataclass(default) and default != type(default)():
            yield below
        for alternative in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(alternative):
                yield from sections_with_other_defaults(alternative, below)
