"""The recipes of configs/tpu: the paper's study on every kind of slice and one of ModernBERTs, and
what they say of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from kdjax import recipes
from kdjax.config import ComputeConfig, Config, MeshConfig
from kdjax.dry_run.recipe_prices import prices
from tests.tpu_scripts.conftest import Cloud

pytestmark = pytest.mark.system

CONFIGS = Path(__file__).parents[2] / "configs"
PEAK = {"v5litepod": 197, "v6e": 918, "v5p": 459, "tpu7x": 2307}
"""Teraflops a second of a chip, bfloat16 (Google Cloud's TPU documentation)."""
CORES = ("v5p", "tpu7x")
"""What counts cores, two a chip."""
HEADERS = {
    path.stem: path.read_text(encoding="utf-8").partition("\n\n")[0]
    for path in (CONFIGS / "tpu").glob("*.yaml")
}
MODERNBERT = "modernbert-v5e-8"
PAPERS = sorted(HEADERS.keys() - {MODERNBERT})
"""The recipes of the paper's study."""


def header_values(name: str, pattern: str) -> tuple[str, ...]:
    """Find what a recipe's header says, line breaks aside."""
    match = re.search(pattern, HEADERS[name].replace("\n#", ""))
    assert match is not None, (name, pattern)
    return match.groups()


def header_counts(name: str) -> dict[str, str]:
    """Find the steps of a run of each arm that a recipe's header says."""
    (listed,) = header_values(name, r"Steps of a run: ([^.]*)\.")
    return dict(count.split(" ") for count in listed.split(", "))


def recipe(name: str) -> Config:
    return recipes.load(CONFIGS / f"{name}.yaml")


@pytest.mark.parametrize("name", PAPERS)
def test_every_slice_has_the_papers_study_in_bfloat16(name: str) -> None:
    paper = recipe("paper/limited-6x768")
    config = recipe(f"tpu/{name}")
    expected = replace(
        paper,
        teacher=replace(paper.teacher, source="teacher"),
        train=replace(paper.train, compute=ComputeConfig(dtype="bfloat16"), mesh=config.train.mesh),
    )
    assert config == expected
    counts = header_values(name, r"(\d+) sequences of a batch on each of (\d+) devices")
    sequences = int(counts[0])
    devices = int(counts[1])
    assert config.train.mesh == MeshConfig(fsdp=min(devices, 8), teacher="whole")
    assert sequences * devices == config.train.batch_size


@pytest.mark.parametrize(
    "arms",
    [
        pytest.param(["scratch"], id="scratch"),
        pytest.param(
            ["scratch", "logit", "tinybert", "minilm"], id="all", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_steps_are_what_the_budget_buys(arms: list[str]) -> None:
    """The recipes are tested all at once, because they are one study."""
    config = recipe("tpu/v5e-8")
    assert config.arms.keys() == {"scratch", "logit", "tinybert", "minilm"}
    priced = prices(replace(config, arms={arm: config.arms[arm] for arm in arms}))
    steps = {arm: phase["steps"] for arm, (phase,) in priced.items()}
    # Every header lists all arms, with the same counts.
    headers = [header_counts(name) for name in PAPERS]
    counts = headers[0]
    assert all(header == counts for header in headers)
    assert counts.keys() == config.arms.keys()
    assert {arm: counts[arm] for arm in arms} == {arm: f"{n:,}" for arm, n in steps.items()}


def test_steps_of_modernbert_are_what_the_budget_buys() -> None:
    config = recipe(f"tpu/{MODERNBERT}")
    priced = prices(replace(config, arms={"scratch": config.arms["scratch"]}))
    (phase,) = priced["scratch"]
    counts = header_counts(MODERNBERT)
    assert counts.keys() == config.arms.keys()
    assert counts["scratch"] == f"{phase['steps']:,}"


@pytest.mark.parametrize("name", HEADERS)
def test_what_a_recipe_expects_follows_from_its_slice(name: str, cloud: Cloud) -> None:
    config = recipe(f"tpu/{name}")
    (accelerator,) = header_values(
        name, r"watch\.sh slice\.env ACCELERATOR=(\S+) CONFIG=configs/tpu/" + name
    )
    generation, _, size = accelerator.partition("-")
    chips = int(size) // (2 if generation in CORES else 1)
    runs, flops = header_values(name, r"(\d+) runs of (\S+) FLOPs")
    assert (int(runs), float(flops)) == (len(config.arms) * len(config.seeds), config.budget.flops)
    shares = header_values(
        name, "at " + ", ".join(rf"(\d+)% \({arm}\)" for arm in config.arms) + " of the chips"
    )
    run_flops = [len(config.seeds) * float(flops) / (int(share) / 100) for share in shares]
    hours = sum(run_flops) / (chips * PEAK[generation] * 1e12) / 3600
    assert header_values(name, r"([\d.]+) hours of training for all runs, at ") == (f"{hours:.1f}",)
    assert header_values(name, r"peak \((\d+) x (\d+) TFLOP/s\)") == (
        str(chips),
        str(PEAK[generation]),
    )
    (devices,) = header_values(name, r"sequences of a batch on each of (\d+) devices")
    assert int(devices) == chips * (2 if generation == "tpu7x" else 1)
    assert cloud.run("create.sh", "--dry-run", ACCELERATOR=accelerator).status == 0
