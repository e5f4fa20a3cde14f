"""Every recipe for a slice compiles for it and fits, and is what its header says."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from kdjax import recipes
from tests.tpu.conftest import ROOT, run

RECIPES = sorted((ROOT / "configs" / "tpu").glob("*.yaml"))
CORES = ("v5p", "tpu7x")
"""What accelerator types count in cores, two a chip."""
DEVICES = {"tpu7x": 2}
"""JAX devices of a chip, where they are not one."""


def header_values(recipe: Path, pattern: str) -> tuple[str, ...]:
    """Find what a recipe's header says."""
    header = recipe.read_text(encoding="utf-8").partition("\n\n")[0].replace("\n#", "")
    match = re.search(pattern, header)
    assert match is not None, (recipe, pattern)
    return match.groups()


def topology(recipe: Path) -> str:
    """Find the slice that a recipe is for, as its header has it for `kdjax compile`."""
    (slice_shape,) = header_values(
        recipe, rf"kdjax compile configs/tpu/{recipe.name} --topology (\S+)"
    )
    return slice_shape


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_topology_is_that_of_the_slice(recipe: Path) -> None:
    chip, _, shape = topology(recipe).partition(":")
    generation, _, size = header_values(recipe, r"ACCELERATOR=(\S+) ")[0].partition("-")
    chips = math.prod(map(int, shape.split("x")))
    assert generation.replace("v5litepod", "v5e") == chip
    assert chips == int(size) // (2 if generation in CORES else 1)
    counts = header_values(recipe, r"(\d+) sequences of a batch on each of (\d+) devices")
    sequences = int(counts[0])
    devices = int(counts[1])
    assert devices == chips * DEVICES.get(chip, 1)
    assert sequences * devices == recipes.load(recipe).train.batch_size


@pytest.mark.tpu
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_compiles_and_fits_its_slice(recipe: Path) -> None:
    config = recipes.load(recipe)
    ended = run("-m", "kdjax", "compile", recipe, "--topology", topology(recipe), "--json")
    assert ended.status == 0, ended.err
    compiled = json.loads(ended.out)
    counts = header_values(recipe, r"(\d+) sequences of a batch on each of (\d+) devices")
    sequences = int(counts[0])
    devices = int(counts[1])
    assert compiled["devices"] == devices
    assert config.train.batch_size == sequences * devices
    assert compiled["arms"].keys() == config.arms.keys()
    for arm, (phase,) in compiled["arms"].items():
        assert phase["fits"]
        assert phase["hbm"] < compiled["hbm"]
        assert phase["collectives"].keys() == {"all-gather", "all-reduce", "reduce-scatter"}
        assert not phase["estimated"]["unknown"]
        (share,) = header_values(recipe, rf"(\d+)% \({arm}\)")
        assert phase["estimated"]["utilisation"] == pytest.approx(int(share) / 100, abs=0.015)
