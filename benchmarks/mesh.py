"""Show what a layout does: the result, what a device stores, computes and sends to others.

    python -m benchmarks.mesh

One step of the arm `logit` on every mesh of eight emulated devices, against one device.
"""

from __future__ import annotations

import os

# JAX reads these when it is imported.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
)
os.environ["JAX_PLATFORMS"] = "cpu"

import itertools
import math
from collections import Counter
from typing import Any

import jax
import numpy as np

from benchmarks import tables
from benchmarks.cases import batch
from kdjax import models
from kdjax.config import ArmConfig, MeshConfig, ModelConfig, OptimizerConfig
from kdjax.hlo.collectives import KINDS, collectives
from kdjax.parallel.layout import Layout
from kdjax.training.arm import resolve
from kdjax.training.phase import BatchShape
from kdjax.training.program import Program
from kdjax.training.step import ScheduleInputs

DEVICES = 8
SIZES = {
    "heads": 8,
    "vocab_size": 30528,
    "max_positions": 128,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
STUDENT = ModelConfig(layers=3, width=192, ffn=768, **SIZES)
TEACHER = ModelConfig(layers=6, width=384, ffn=1536, **SIZES)
SHAPE = BatchShape(batch_size=16, seq_len=64, max_predictions=10)


def measure(mesh: tuple[int, int, int]) -> tuple[Program, Any, float]:
    """Return the program, the parameters after one step, and the loss."""
    (phase,) = resolve("logit", ArmConfig(), STUDENT, TEACHER, OptimizerConfig()).phases
    program = Program(
        phase, SHAPE, Layout.from_config(MeshConfig(*mesh), jax.devices()[: math.prod(mesh)])
    )
    teacher = program.place_teacher(models.init(TEACHER, 1).params)
    state = program.start(models.init(STUDENT, 0).params, seed=0)
    # Neither dropout nor the batch differs between layouts, and so the result may not either.
    step_batch = batch(SHAPE, STUDENT.vocab_size, 0)
    state, metrics = program.step(
        state, teacher, program.place(step_batch), ScheduleInputs(0.0, 1e-3)
    )
    return program, jax.device_get(state.params), float(metrics["loss"])


def messages(text: str) -> list[str]:
    """Return how many arrays and bytes each kind of collective in a program sends."""
    counts: Counter[str] = Counter()
    megabytes: Counter[str] = Counter()
    for collective in collectives(text):
        counts[collective.kind] += collective.arrays
        megabytes[collective.kind] += collective.bytes / 1e6
    return [f"{counts[kind]}: {megabytes[kind]:.1f} MB" if counts[kind] else "-" for kind in KINDS]


def layouts() -> list[tuple[int, int, int]]:
    """Return every mesh of all devices: sizes of the axes `data`, `fsdp` and `tensor`."""
    meshes = []
    for fsdp, tensor in itertools.product(range(1, DEVICES + 1), repeat=2):
        data, rest = divmod(DEVICES, fsdp * tensor)
        if not rest:
            meshes.append((data, fsdp, tensor))
    return meshes


def main() -> None:
    """Print the table: one device, then every mesh of them all."""
    one_device, expected, loss = measure((1, 1, 1))
    header = ["data x fsdp x tensor", "loss", "largest difference", "arguments MB", "FLOPs"]
    print(tables.head([*header, *KINDS]))
    arguments = f"{one_device.memory['arguments'] / 1e6:.1f}"
    print(tables.row(["one device", f"{loss:.6f}", "0", arguments, "1", *["-"] * len(KINDS)]))
    # Every other row is held against the one device: the result may not differ.
    for mesh in layouts():
        program, params, loss = measure(mesh)
        differences = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), params, expected)
        share = DEVICES / (program.hardware_flops / one_device.hardware_flops)
        cells = [
            " x ".join(map(str, mesh)),
            f"{loss:.6f}",
            f"{max(jax.tree.leaves(differences)):.1e}",
            f"{program.memory['arguments'] / 1e6:.1f}",
            f"1/{share:.2f}",
            *messages(program.text),
        ]
        print(tables.row(cells), flush=True)


if __name__ == "__main__":
    main()
