"""What a layout does: the result, what a device stores and computes, and what devices send one
another.

One step of the arm `logit` on every mesh of eight emulated devices, against one device. `python
benchmarks/mesh.py`
"""

from __future__ import annotations

import os

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
)
os.environ["JAX_PLATFORMS"] = "cpu"

import argparse
import math
from typing import Any

import jax
import numpy as np

from kdjax import models
from kdjax.config import ArmConfig, MeshConfig, ModelConfig, OptimizerConfig
from kdjax.hlo.collectives import KINDS, collectives
from kdjax.parallel.layout import Layout
from kdjax.training.arm import resolve
from kdjax.training.phase import BatchShape
from kdjax.training.program import Program
from kdjax.training.step import ScheduleInputs

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


def batch() -> dict[str, np.ndarray]:
    """Random tokens, one segment a sequence."""
    rng = np.random.default_rng(0)
    tokens = (SHAPE.batch_size, SHAPE.seq_len)
    slots = (SHAPE.batch_size, SHAPE.max_predictions)
    return {
        "tokens": rng.integers(0, STUDENT.vocab_size, tokens).astype(np.int32),
        "segments": np.ones(tokens, np.int32),
        "positions": np.broadcast_to(np.arange(SHAPE.seq_len, dtype=np.int32), tokens).copy(),
        "valid": np.ones(tokens, bool),
        "slots": np.stack(
            [
                rng.permutation(SHAPE.seq_len)[: SHAPE.max_predictions]
                for _ in range(SHAPE.batch_size)
            ]
        ).astype(np.int32),
        "labels": rng.integers(0, STUDENT.vocab_size, slots).astype(np.int32),
        "label_weights": np.ones(slots, np.float32),
    }


def measure(mesh: tuple[int, int, int]) -> tuple[Program, Any, float]:
    """The program, the parameters after one step, and the loss."""
    (phase,) = resolve("logit", ArmConfig(), STUDENT, TEACHER, OptimizerConfig()).phases
    program = Program(phase, SHAPE, Layout.of(MeshConfig(*mesh), jax.devices()[: math.prod(mesh)]))
    teacher = program.place_teacher(models.init(TEACHER, 1).params)
    state = program.start(models.init(STUDENT, 0).params, seed=0)
    state, metrics = program(state, teacher, batch(), ScheduleInputs(0.0, 1e-3))
    return program, jax.device_get(state.params), float(metrics["loss"])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=8)
    devices = parser.parse_args().devices
    sizes = [n for n in range(1, devices + 1) if devices % n == 0]
    meshes = [(devices // (f * t), f, t) for f in sizes for t in sizes if devices % (f * t) == 0]
    alone, expected, loss = measure((1, 1, 1))
    assert alone.memory is not None
    assert alone.hardware_flops is not None
    print(
        "| data x fsdp x tensor | loss | largest difference | arguments MB | FLOPs | "
        + " | ".join(KINDS)
        + " |"
    )
    print("|---|---|---|---|---|" + "---|" * len(KINDS))
    none = " | ".join("-" for _ in KINDS)
    print(f"| one device | {loss:.6f} | 0 | {alone.memory['arguments'] / 1e6:.1f} | 1 | {none} |")
    for mesh in meshes:
        program, params, found = measure(mesh)
        assert program.memory is not None
        assert program.hardware_flops is not None
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True)
        off = max(float(np.max(np.abs(a - b))) for a, b in pairs)
        sent = collectives(program.text)
        cells = []
        for kind in KINDS:
            own = [one for one in sent if one.kind == kind]
            cells.append(
                f"{sum(one.arrays for one in own)}: {sum(one.bytes for one in own) / 1e6:.1f} MB"
                if own
                else "-"
            )
        print(
            f"| {' x '.join(map(str, mesh))} | {found:.6f} | {off:.1e} | "
            f"{program.memory['arguments'] / 1e6:.1f} "
            f"| 1/{devices / (program.hardware_flops / alone.hardware_flops):.2f} | "
            f"{' | '.join(cells)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
