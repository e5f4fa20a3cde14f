"""Measure how long a checkpoint holds up the training loop, and when it is on the disk.

    python -m benchmarks.checkpoints [--saves N] [--directory DIR] [SIZE ...]

SIZE is layers x width of a student with BERT's vocabulary, saved with AdamW's moments. Nothing else
runs meanwhile. Prints a Markdown table of medians; the first save, which compiles the checksums
too, is apart.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import jax

from benchmarks import tables
from kdjax import models
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.config import ArmConfig, OptimizerConfig
from kdjax.models import zoo
from kdjax.parallel.layout import Layout
from kdjax.training.arm import resolve
from kdjax.training.checkpoints.storage import CheckpointStorage
from kdjax.training.checksum import checksums, sha256
from kdjax.training.step import init_state

HEADER = (
    "student",
    "state",
    "first held up",
    "checksums",
    "held up",
    "on the disk",
    "SHA-256 on the host",
)


def row(size: str, saves: int, directory: Path) -> list[str]:
    """Measure the saves of one student's training state."""
    student = zoo.get(size)
    (phase,) = resolve("scratch", ArmConfig(), student, student, OptimizerConfig()).phases
    params = {"model": models.init(student, 0).params, "objective": phase.init_objective(0)}
    state = jax.device_put(
        init_state(params, phase.transformation, 0), Layout.from_config().replicated
    )
    # Nothing may be left to do for the device when the clock starts.
    jax.block_until_ready(state)

    # Of each save: seconds of the checksums, until the loop goes on, and until all is written.
    checking = []
    held_up = []
    written = []
    with CheckpointStorage(directory) as storage:
        for step in range(saves + 1):
            started = time.perf_counter()
            checksums(state)
            checking.append(time.perf_counter() - started)
            ledger = Ledger(Budget.flops(1), steps_by_phase=(step,))
            started = time.perf_counter()
            storage.save(state, ledger)
            held_up.append(time.perf_counter() - started)
            storage.wait()
            written.append(time.perf_counter() - started)
    started = time.perf_counter()
    sha256(state)
    hashing = time.perf_counter() - started

    megabytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6
    medians = [statistics.median(seconds[1:]) for seconds in (checking, held_up, written)]
    figures = [checking[0] + held_up[0], *medians, hashing]
    return [size, f"{megabytes:,.0f} MB", *(f"{seconds:.3f}" for seconds in figures)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="where to save; default: a temporary one")
    parser.add_argument("sizes", nargs="*", default=["3x192", "6x768"], metavar="SIZE")
    options = parser.parse_args()
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(f"{devices}; median of {options.saves} saves, in seconds\n")
    print(tables.head(HEADER))
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            print(tables.row(row(size, options.saves, Path(directory))))


if __name__ == "__main__":
    main()
