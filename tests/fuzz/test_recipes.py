"""Recipes that are nearly right end with status 0, or with 2 and one line; nothing is written."""

from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdjax.cli.main import main
from kdjax.recipes.settings import settings as all_settings
from tests.fuzz.mutations import changed_recipe, changed_text, numbered
from tests.support import small_study

pytestmark = pytest.mark.system
SECONDS = 12.0
"""Time for each kind of change in the suite; `make test-all` takes ten times as long."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a recipe that is right, with a setting of nearly every kind."""
    here = tmp_path_factory.mktemp("recipe")
    return small_study.settings(
        here,
        arms={
            "scratch": {},
            "tiny.bert": {"preset": "tinybert"},
            "own": {
                "terms": [{"name": "mlm", "weight": 0.5}, {"name": "logit", "weight": 1.0}],
                "optimizer": {"learning_rate": 1e-3},
            },
        },
    )


@pytest.fixture(scope="module")
def settings() -> list[str]:
    """Return the dotted names of all settings, with an arm and a number where one is needed."""
    names = [setting.name for setting in all_settings()]
    assert len(names) > 100
    return [name.replace(".NAME", ".scratch").replace(".N", ".0") for name in names]


def check(path: Path, where: str) -> int:
    """Price a recipe as the command line does; return its exit status.

    Args:
        path: file of the recipe, alone in the working directory.
        where: description of the input, for a failure.
    """
    out = io.StringIO()
    err = io.StringIO()
    status: object = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(["price", str(path), "--json"])
    except SystemExit as e:
        status = e.code
    except BaseException as e:
        raise AssertionError(f"{where}: {type(e).__name__}: {e}\n{path.read_bytes()!r}") from e
    said = f"{where}: status {status}\n{err.getvalue()}\n{path.read_bytes()!r}"
    assert status in (0, 2), said
    if status == 2:
        lines = err.getvalue().strip().split("\n")
        assert len(lines) == 1, said
        assert lines[0].startswith("kdjax: "), said
        assert out.getvalue() == "", said
    assert list(path.parent.iterdir()) == [path], said
    return int(status == 2)


@pytest.mark.parametrize(
    "seconds", [SECONDS, pytest.param(10 * SECONDS, marks=pytest.mark.exhaustive)]
)
def test_recipe_with_changed_settings_ends_with_0_or_one_line(
    recipe: dict[str, Any],
    settings: list[str],
    seconds: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    refused = 0
    number = 0
    for number in numbered(seconds):
        changed = changed_recipe(recipe, settings, random.Random(f"recipe {number}"))
        path.write_text(yaml.safe_dump(changed, sort_keys=False, allow_unicode=True))
        refused += check(path, f"recipe {number}")
    # Neither is everything refused, nor nothing: the changes are of both kinds.
    print(f"{number + 1} recipes, {refused} refused")
    assert 0 < refused <= number


@pytest.mark.parametrize(
    "seconds", [SECONDS, pytest.param(10 * SECONDS, marks=pytest.mark.exhaustive)]
)
def test_recipe_with_changed_text_ends_with_0_or_one_line(
    recipe: dict[str, Any], seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    refused = 0
    number = 0
    for number in numbered(seconds):
        changed = changed_text(text, random.Random(f"text {number}"))
        path.write_bytes(changed.encode("utf-8"))
        refused += check(path, f"text {number}")
    print(f"{number + 1} recipes, {refused} refused")
    assert 0 < refused <= number
