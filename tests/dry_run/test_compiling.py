"""`kdjax compile`: what it finds, prints and refuses. Devices of this machine stand for a
slice's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest
import yaml

from kdjax import recipes
from kdjax.dry_run import compiling
from kdjax.dry_run.compiling import compile_recipe
from kdjax.dry_run.recipe_prices import prices
from kdjax.hlo import aot
from kdjax.hlo.aot import Slice
from kdjax.hlo.chips import Chip, chip
from kdjax.hlo.estimate import SOURCES, TimeEstimate
from tests.study.conftest import kdjax
from tests.support import small_study

pytestmark = pytest.mark.system

RECIPE = {
    "data": {"seq_len": 16, "max_predictions": 3},
    "student": {**small_study.STUDENT, "width": 32, "ffn": 64},
    "teacher": {"architecture": {**small_study.TEACHER, "width": 32, "ffn": 64, "layers": 2}},
    "arms": {"scratch": {}, "two_stage": {}},
    "budget": {"flops": 1.0e8},
    "train": {"batch_size": 16},
    "seeds": [0, 1, 2],
}
V5E = chip("v5e")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    return path


def a_slice(of: Chip = V5E) -> Slice:
    return Slice("v5e:2x4", of, 8, tuple(jax.devices()[:8]))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the command compile for devices of this machine, and leave this process as it is."""
    monkeypatch.setattr(aot, "forbid_accelerators", lambda: None)
    monkeypatch.setattr(aot, "slice_of", lambda topology: a_slice())


def command(recipe: Path, *words: str) -> Any:
    return kdjax("compile", recipe, "--topology", "v5e:2x4", *words)


def test_compile_json_is_consistent_with_prices(recipe: Path, here: None) -> None:
    ended = command(recipe, "--json", "--top", "2")
    compiled_arms = json.loads(ended.out)
    costs = prices(recipes.load(recipe))
    assert ended.status == 0
    assert (
        compiled_arms["topology"],
        compiled_arms["chips"],
        compiled_arms["devices"],
        compiled_arms["hbm"],
    ) == (
        "v5e:2x4",
        8,
        8,
        V5E.hbm,
    )
    assert {name: len(phases) for name, phases in compiled_arms["arms"].items()} == {
        "scratch": 1,
        "two_stage": 2,
    }
    # Times add up, and what follows from them does.
    for name, phases in compiled_arms["arms"].items():
        for phase, cost in zip(phases, costs[name], strict=True):
            estimate = phase["estimated"]
            assert (phase["price"], phase["steps"]) == (cost["total"], cost["steps"])
            assert phase["fits"]
            assert 0 < phase["hbm"] < 1e7
            assert set(estimate["by_source"]) == set(SOURCES)
            assert estimate["step_seconds"] == pytest.approx(sum(estimate["by_source"].values()))
            assert estimate["utilisation"] == pytest.approx(
                cost["total"] / (estimate["step_seconds"] * 8 * 197e12)
            )
            assert estimate["hours"] == pytest.approx(
                cost["steps"] * estimate["step_seconds"] / 3600
            )
            assert len(estimate["top"]) == 2
            assert phase["collectives"]["all-reduce"]["bytes"] > 0


def test_compile_table_marks_estimates(recipe: Path, here: None) -> None:
    ended = command(recipe, "--arm", "two_stage")
    assert ended.status == 0
    assert "v5e:2x4: 8 chips, 8 devices of 197 TFLOP/s" in ended.out
    assert "two_stage, phase 1" in ended.out
    assert "two_stage, phase 2" in ended.out
    assert "scratch" not in ended.out
    assert "Estimates, not measured on a TPU" in ended.out
    assert "Estimate for all 3 runs" in ended.out
    lines = [
        line
        for line in ended.err.splitlines()
        if re.fullmatch(r"two_stage: .* GiB, a step of .* ms by estimate.*", line)
    ]
    assert len(lines) == 2  # one as each is compiled


def test_step_that_does_not_fit_is_printed_and_refused(
    recipe: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aot, "slice_of", lambda topology: a_slice(replace(V5E, hbm=1000)))
    ended = command(recipe, "--arm", "scratch")
    assert ended.status == 2
    assert "too much" in ended.out
    lines = [line for line in ended.err.splitlines() if line.startswith("kdjax: ")]
    (line,) = lines
    assert "scratch: do not fit" in line
    assert "of HBM of a device of v5e:2x4, expected a larger slice" in line


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "the total memory required for HLO temporaries (78.77G) exceeds available HBM "
            "(15.75G).",
            78.77,
        ),
        ("Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.", 20.5),
    ],
)
def test_compiler_out_of_memory_gives_the_bytes_needed(
    message: str, needed: float, recipe: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {message}")

    monkeypatch.setattr(compiling, "program_of", fails)
    ended = command(recipe, "--arm", "scratch", "--json")
    (phase,) = json.loads(ended.out)["arms"]["scratch"]
    assert ended.status == 2
    assert phase["hbm"] == pytest.approx(needed * 2**30)
    assert (phase["fits"], phase["estimated"]) == (False, None)
    # The table says at least how much.
    assert f"> {needed:.2f} too much" in command(recipe, "--arm", "scratch").out


def test_other_compiler_errors_are_raised(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(compiling, "program_of", fails)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        compile_recipe(recipes.load(recipe), a_slice(), ["scratch"])


def test_unknown_operation_leaves_no_estimate(
    recipe: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        compiling, "estimate", lambda *_: TimeEstimate((), ("mine.1: a kernel of unknown FLOPs",))
    )
    (phase,) = json.loads(command(recipe, "--arm", "scratch", "--json").out)["arms"]["scratch"]
    assert [phase["estimated"][name] for name in ("step_seconds", "utilisation", "hours")] == [
        None
    ] * 3
    out = command(recipe, "--arm", "scratch").out
    assert "scratch: no estimate: mine.1: a kernel of unknown FLOPs" in out
    assert "Estimate for all" not in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--arm", "scrtch"],
            "--arm is 'scrtch', expected an arm of the recipe (did you mean 'scratch'?)",
        ),
        (
            ["--train.batch_size", "12"],
            "a batch has 12 sequences, expected a multiple of the 8 parts",
        ),
        (["--train.mesh.fsdp", "3"], "on 8 devices, expected sizes whose product is that"),
        (["--top", "-1"], "--top is -1, expected at least 0"),
    ],
)
def test_impossible_arguments_of_compile_are_refused(
    words: list[str], line: str, recipe: Path, here: None
) -> None:
    ended = command(recipe, *words)
    assert ended.status == 2
    assert ended.out == ""
    assert [line in printed for printed in ended.err.splitlines()] == [True]


def test_unknown_topology_is_refused(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aot, "forbid_accelerators", lambda: None)
    ended = kdjax("compile", recipe, "--topology", "v5e:3x3")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("kdjax: --topology is 'v5e:3x3', expected of v5e 1x1")
    assert (
        kdjax("compile", recipe).err
        == "kdjax: command line, compile: the following arguments are required: --topology\n"
    )


def test_offline_compiling_ignores_local_accelerators() -> None:
    """JAX_PLATFORMS may have named others before."""
    program = (
        "from kdjax.hlo import aot; aot.forbid_accelerators(); "
        "import jax; print(jax.devices()[0].platform)"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cuda"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "cpu\n"
