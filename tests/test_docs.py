"""The examples in the documentation run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kdjax import recipes

ROOT = Path(__file__).parents[1]


def test_the_librarys_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(encoding="utf-8"), re.DOTALL)
    exec("\n".join(blocks), {})
    cost, shapes, loss = capsys.readouterr().out.splitlines()
    assert "FLOPs" in cost
    assert shapes == "(1, 6, 128) (1, 2, 6, 6)"
    assert float(loss) > 0


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_survives_being_written(path: Path, tmp_path: Path) -> None:
    recipe = recipes.load(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipes.dump(recipe), encoding="utf-8")
    assert recipes.load(copy) == recipe
