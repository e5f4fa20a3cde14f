"""What a recipe's steps would do on a TPU slice, as a table."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from kdjax.dry_run.compiling import gib
from kdjax.dry_run.price_report import WIDTH
from kdjax.hlo.estimate import SOURCES

_MEANING = (
    "Estimates, not measured on a TPU. compute: the compiler's own cycles; custom calls (Pallas): "
    "their FLOPs at",
    "half the peak, or their bytes at HBM's rate; collectives: a ring over one link each way "
    "round; moves: bytes",
    "at HBM's rate. A step is their sum, as if none overlapped; asynchronous copies are taken to "
    "hide behind it.",
    "L x L: scores, probabilities, relations that go through HBM.",
)
"""What the table's figures mean."""


def compile_table(rows: dict[str, Any], seeds: int) -> None:
    """Print compiled steps, a row for each phase, and what the estimates rest on.

    Args:
        rows: rows from `kdjax.dry_run.compiling.compile_recipe`.
        seeds: number of runs of each arm.
    """
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=f"One step on {rows['topology']}: {rows['chips']} chips, {rows['devices']} devices "
        f"of {rows['peak_flops'] / 1e12:,.0f} TFLOP/s, as the TPU compiler makes it; times are "
        "estimates",
    )
    # Heads are two lines, so that the table is as narrow as its numbers.
    table.add_column("arm", no_wrap=True)
    for head in (
        f"HBM, GiB\nof {gib(rows['hbm'])}",
        "sent\nMB",
        "L x L in\nHBM, MB",
        "estimate\nms",
        "of it compute, custom\ncalls, collectives, moves",
        "utilisation\nestimate",
        "hours a run\nestimate",
        "compiled\nin s",
    ):
        table.add_column(head, justify="right", no_wrap=True)
    for name, phases in rows["arms"].items():
        for number, phase in enumerate(phases, start=1):
            label = f"{name}, phase {number}" if len(phases) > 1 else name
            table.add_row(label, *_cells(phase))
    # Where a terminal is narrower, its own wrapping keeps every number whole.
    console = Console(width=max(WIDTH, Console().width), highlight=False)
    console.print(table)
    for line in (*_MEANING, *_phase_notes(rows), *_hours_note(rows, seeds), *_operations(rows)):
        console.print(line, soft_wrap=True, markup=False)


def _cells(phase: dict[str, Any]) -> list[str]:
    """Return a phase's cells of the table."""
    estimated = phase["estimated"]
    if estimated is None:  # the compiler gave up
        return [f"> {gib(phase['hbm'])} too much", *["-"] * 7]
    memory = gib(phase["hbm"])
    if not phase["fits"]:
        memory += " too much"
    # What the compiler made.
    sent_bytes = sum(kind["bytes"] for kind in phase["collectives"].values())
    attention = [f"{dtype} {kind['bytes'] / 1e6:.0f}" for dtype, kind in phase["attention"].items()]
    # What is estimated.
    by_source = [f"{1e3 * estimated['by_source'][source]:.2f}" for source in SOURCES]
    step = "unknown"
    utilisation = "-"
    if estimated["step_seconds"] is not None:
        step = f"{1e3 * estimated['step_seconds']:.2f}"
        utilisation = f"{estimated['utilisation']:.1%}"
    return [
        memory,
        f"{sent_bytes / 1e6:.1f}",
        ", ".join(attention) or "none",
        step,
        "  ".join(by_source),
        utilisation,
        "-" if estimated["hours"] is None else f"{estimated['hours']:.3g}",
        f"{phase['compile_seconds']:.0f}",
    ]


def _estimated_phases(rows: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the phases that the compiler did not give up on, each with its arm."""
    estimated = []
    for name, phases in rows["arms"].items():
        estimated += [(name, phase) for phase in phases if phase["estimated"]]
    return estimated


def _phase_notes(rows: dict[str, Any]) -> list[str]:
    """Return the collectives of each phase, and what of it has no estimate, a line each."""
    lines = []
    for name, phase in _estimated_phases(rows):
        collectives = []
        for kind, count in phase["collectives"].items():
            collectives.append(f"{kind} {count['arrays']} arrays, {count['bytes'] / 1e6:.1f} MB")
        if collectives:
            lines.append(f"{name}: collectives: {', '.join(collectives)}")
        if unknown := phase["estimated"]["unknown"]:
            lines.append(f"{name}: no estimate: {'; '.join(unknown)}")
    return lines


def _hours_note(rows: dict[str, Any], seeds: int) -> list[str]:
    """Return the hours of all runs in a line; none where those of a phase are not known."""
    phases = sum(len(phases) for phases in rows["arms"].values())
    hours = [phase["estimated"]["hours"] for _, phase in _estimated_phases(rows)]
    if not hours or None in hours or len(hours) < phases:
        return []
    # Every seed of an arm takes as long.
    runs = seeds * len(rows["arms"])
    return [
        f"Estimate for all {runs} runs, {seeds} a row: {seeds * sum(hours):.3g} hours of training."
    ]


def _operations(rows: dict[str, Any]) -> list[str]:
    """Return the longest operations of every phase, where they were asked for."""
    lines = []
    for name, phase in _estimated_phases(rows):
        for operation in phase["estimated"].get("top", ()):
            label = operation["name"]
            if operation["turns"] > 1:
                label += f" x {operation['turns']}"
            origin = " ".join(filter(None, (operation["op_name"], operation["place"])))
            lines.append(
                f"{name}: {1e3 * operation['seconds']:8.3f} ms {operation['source']:12} {label}  "
                f"{origin}"
            )
    return lines
