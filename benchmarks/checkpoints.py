"""What a checkpoint costs: seconds the loop is held up by it, and seconds until it is on the disk.

    python benchmarks/checkpoints.py [--saves N] [--directory DIR] [SIZE ...]

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
from kdjax.training.checkpoint_storage import CheckpointStorage
from kdjax.training.checksum import checksums, sha256
from kdjax.training.step import init_state


def measured(size: str, saves: int, directory: Path) -> list[str]:
    """A row of the table."""
    student = zoo.get(size)
    (phase,) = resolve("scratch", ArmConfig(), student, student, OptimizerConfig()).phases
    params = {"model": models.init(student, 0).params, "objective": phase.init_objective(0)}
    layout = Layout.of()
    state = jax.device_put(init_state(params, phase.transformation, 0), layout.replicated)
    jax.block_until_ready(state)
    held = []
    whole = []
    sums = []
    with CheckpointStorage(directory) as checkpoints:
        for step in range(saves + 1):
            started = time.perf_counter()
            checksums(state)
            sums.append(time.perf_counter() - started)
            ledger = Ledger(Budget.flops(1), phases=(step,))
            started = time.perf_counter()
            checkpoints.save(state, ledger)
            held.append(time.perf_counter() - started)
            checkpoints.wait()
            whole.append(time.perf_counter() - started)
    started = time.perf_counter()
    sha256(state)
    digest = time.perf_counter() - started
    size_in_mb = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6
    medians = [statistics.median(times[1:]) for times in (sums, held, whole)]
    return [
        size,
        f"{size_in_mb:,.0f} MB",
        *(f"{value:.3f}" for value in (sums[0] + held[0], *medians, digest)),
    ]


HEADER = (
    "student",
    "state",
    "first held up",
    "checksums",
    "held up",
    "on the disk",
    "SHA-256 on the host",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument(
        "--directory", type=Path, help="where to save; a temporary one unless given"
    )
    parser.add_argument("sizes", nargs="*", default=["3x192", "6x768"], metavar="SIZE")
    options = parser.parse_args()
    print(
        f"{jax.device_count()} x {jax.devices()[0].device_kind}; median of {options.saves} saves, "
        "in seconds\n"
    )
    print(tables.head(HEADER))
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            print(tables.row(measured(size, options.saves, Path(directory))))


if __name__ == "__main__":
    main()
