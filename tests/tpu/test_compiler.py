"""The TPU compiler of today: slices and their memory, and texts that are read as those kept in
tests/golden/tpu."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdjax.dry_run.compiling import needed_bytes
from kdjax.hlo.chips import CHIPS, GIB, chip
from kdjax.hlo.estimate import estimate
from kdjax.hlo.execution import executed_instructions
from kdjax.hlo.program_text import parse
from tests.hlo.tpu_programs import TEXTS, read
from tests.tpu.conftest import run

pytestmark = [pytest.mark.tpu, pytest.mark.usefixtures("libtpu")]

UNKNOWN = ("until", "kernel_without_cost")
"""Programs of which the text says too little."""
FLAT = {"1x1": 1, "2x2": 4, "2x4": 8, "4x4": 16, "4x8": 32, "8x8": 64, "8x16": 128, "16x16": 256}
DEEP = {
    "2x2x1": 4,
    "2x2x2": 8,
    "2x2x4": 16,
    "2x4x4": 32,
    "4x4x4": 64,
    "4x4x8": 128,
    "4x4x12": 192,
    "4x4x16": 256,
}
SLICES: dict[str, int] = {}
for flat in ("v5e", "v6e"):
    SLICES |= {f"{flat}:{shape}": chips for shape, chips in FLAT.items()}
for deep in ("v4", "v5p"):
    SLICES |= {f"{deep}:{shape}": chips for shape, chips in (*DEEP.items(), ("4x8x8", 256))}
SLICES |= {f"tpu7x:{shape}": 2 * chips for shape, chips in DEEP.items()}
"""Devices of slices: a chip is one, but on TPU7x two."""
SMALL = {
    "data": {"seq_len": 128, "max_predictions": 4, "mlm_probability": 0.03},
    "student": {
        "layers": 1,
        "width": 128,
        "heads": 4,
        "ffn": 256,
        "vocab_size": 512,
        "max_positions": 128,
    },
    "teacher": {
        "architecture": {"layers": 1, "width": 128, "heads": 4, "ffn": 256, "vocab_size": 512}
    },
    "arms": {"logit": {}},
    "budget": {"flops": 1.0e15},
    "train": {"batch_size": 64, "compute": {"dtype": "bfloat16"}},
}
OFFLINE = "import json; from kdjax.hlo import aot; aot.forbid_accelerators()\n"
TOO_LARGE = """
import jax, jax.numpy as jnp
messages = {}
for name in %s:
    where = jax.sharding.SingleDeviceSharding(aot.slice_of(name).devices[0])
    x = jax.ShapeDtypeStruct((1024, 1024, 16384), jnp.float32, sharding=where)
    try:
        jax.jit(lambda x: jnp.sort(jnp.sort(x, 0), 1), out_shardings=where).lower(x).compile()
    except jax.errors.JaxRuntimeError as e:
        messages[name] = str(e)
print(json.dumps(messages))
"""


def printed(program: str) -> Any:
    """Return what a program prints, offline."""
    ended = run("-c", OFFLINE + program)
    assert ended.status == 0, ended.err
    return json.loads(ended.out)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every program of `tests.hlo.tpu_programs`, compiled now."""
    directory = tmp_path_factory.mktemp("texts")
    ended = run("-m", "tests.hlo.tpu_programs", directory)
    assert ended.status == 0, ended.err
    return directory


@pytest.mark.parametrize("name", sorted(path.stem for path in TEXTS.iterdir()))
def test_newly_compiled_program_is_read_as_its_stored_text_is(name: str, texts: Path) -> None:
    text = (texts / f"{name}.txt").read_text(encoding="utf-8")
    now = estimate(text, chip("v5e"))
    assert (now.seconds is None) == (name in UNKNOWN)
    assert {turns for _, turns in executed_instructions(parse(text))} == (
        {1, 6} if name == "loop" else {1}
    )


def test_estimates_of_newly_compiled_programs_keep_the_order_of_the_stored_ones(
    texts: Path,
) -> None:
    before = {}
    now = {}
    for path in TEXTS.iterdir():
        text = (texts / path.name).read_text(encoding="utf-8")
        before[path.stem] = sum(estimate(read(path.stem), chip("v5e")).by_source.values())
        now[path.stem] = sum(estimate(text, chip("v5e")).by_source.values())
    # Another compiler fuses otherwise, so programs of nearly the same time may change places.
    for short, long in itertools.permutations(before, 2):
        if 2 * before[short] < before[long]:
            assert now[short] < now[long], (short, long)


def test_topology_has_as_many_devices_as_its_slice() -> None:
    assert (
        printed(f"print(json.dumps({{n: len(aot.slice_of(n).devices) for n in {list(SLICES)}}}))")
        == SLICES
    )


def test_program_that_does_not_fit_is_refused_with_the_memory_there_is() -> None:
    slices = {name: f"{name}:{'2x2' if name in ('v5e', 'v6e') else '2x2x1'}" for name in CHIPS}
    message = printed(TOO_LARGE % list(slices.values()))
    for name, topology in slices.items():
        needed = needed_bytes(message[topology])
        limit = re.search(r"HBM \((\d+\.\d+)G\)", message[topology])
        assert needed is not None
        assert needed > chip(name).hbm
        assert limit is not None
        assert float(limit[1]) == pytest.approx(chip(name).hbm / GIB, abs=0.005)


@pytest.mark.parametrize(
    ("mesh", "kinds"),
    [
        ("data", {"all-reduce"}),
        ("fsdp", {"all-gather", "all-reduce"}),
        ("tensor", {"all-gather", "all-reduce"}),
    ],
)
def test_mesh_of_a_slice_has_its_collectives(mesh: str, kinds: set[str], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    sizes = {"data": 0, "fsdp": 1, "tensor": 1, mesh: 4}
    settings = []
    for axis, size in sizes.items():
        settings += [f"--train.mesh.{axis}", str(size)]
    ended = run("-m", "kdjax", "compile", recipe, "--topology", "v5e:2x2", "--json", *settings)
    assert ended.status == 0, ended.err
    (phase,) = json.loads(ended.out)["arms"]["logit"]
    assert kinds <= phase["collectives"].keys()
    assert phase["estimated"]["by_source"]["collectives"] > 0
    assert phase["estimated"]["by_source"]["compute"] > 0
