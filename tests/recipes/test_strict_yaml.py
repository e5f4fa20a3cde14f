"""YAML says one thing: a key stands once, and aliases do not grow a file beyond measure."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdjax import recipes
from kdjax.errors import InputError
from kdjax.recipes import strict_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e12", 1e12),
        ("-1E-4", -1e-4),
        (".5", 0.5),
        ("12", 12),
        (".inf", math.inf),
        ("2024-01-01", "2024-01-01"),
        ("'1e12'", "1e12"),
        ("1e", "1e"),
        ("", None),
        ("{a: &a {x: 1, y: 2}, b: {<<: *a, x: 3}}", {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}),
        ("[&a {x: 1}, &b {x: 2}, {<<: [*a, *b], x: 3}]", [{"x": 1}, {"x": 2}, {"x": 3}]),
    ],
)
def test_yaml_is_read_as_it_says(text: str, value: Any) -> None:
    assert strict_yaml.load(text) == value
    assert type(strict_yaml.load(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: [0]\ndata: {}\nseeds: [1]", r"line 1 and line 3 both set 'seeds'"),
        ("arms:\n  a: {}\n  b: {}\n  a: {}", r"line 2 and line 4 both set 'a'"),
        ("data:\n  seq_len: 8\n  'seq_len': 9", r"line 2 and line 3 both set 'seq_len'"),
        ("[{a: 1}, {b: [{c: 1, c: 1}]}]", r"both set 'c'"),
        ("{1: a, 0x1: b}", r"both set 1"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a", r"line 3 and line 4 both set '<<'"),
        ("a: &a {x: 1}\nb: &b {x: 2}\nc: {<<: [*a, *b]}", r"line 1 and line 2 both set 'x'"),
        ("a: &a [*a]", r"line 1 refers to what it stands in itself"),
        ("[" * 5000, r"nest too deeply"),
    ],
)
def test_yaml_that_says_two_things_is_refused_with_both_lines(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        strict_yaml.load(text)


def test_aliases_that_multiply_are_refused_before_they_do() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 12):
        aliases = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    with pytest.raises(InputError, match=r"its aliases make .* expected at most 100,000"):
        strict_yaml.load("\n".join(lines))


@pytest.mark.parametrize("text", ["a: b: c", "!!int x", "? [a]\n: 1", "--- 1\n--- 2", "*a"])
def test_malformed_yaml_is_an_error_of_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        strict_yaml.load(text)


def test_recipe_and_overrides_are_both_strict(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("arms: {a: {preset: mlm, preset: logit}}")
    with pytest.raises(InputError, match=r"recipe.yaml: line 1 and line 1 both set 'preset'"):
        recipes.load(path)
    path.write_text("{}")
    for words in (["--arms", "{a: {}, a: {}}"], ["--arms={a: {}, a: {}}"]):
        with pytest.raises(InputError, match=r"command line: --arms .*both set 'a'"):
            recipes.load(path, words)


@pytest.mark.parametrize(
    "setting",
    ["--arms.logit.optimizer", "--arms.logit.student", "--evaluation.mlm_probe", "--seeds"],
)
def test_override_that_empties_a_section_is_refused(tmp_path: Path, setting: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("arms: {scratch: {}, logit: {}}\n")
    message = f"command line: {setting} is null, expected values, or no such option"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        recipes.load(recipe, [setting, "null"])


def test_section_that_is_given_one_value_is_told_so(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("arms: {scratch: {}}\n")
    with pytest.raises(
        InputError, match=r"evaluation\.mlm_probe: Expected settings\. Got value: 3$"
    ):
        recipes.load(recipe, ["--evaluation.mlm_probe", "3"])
