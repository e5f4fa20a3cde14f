"""The prices of a recipe's steps as a table."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from kdjax.arms.recipe_arms import batch_shape_of
from kdjax.arms.teacher_cost import cost_by_recipe
from kdjax.budget.accounting import Budget
from kdjax.budget.price import PARTS
from kdjax.config import Config
from kdjax.dry_run.recipe_prices import PriceRows
from kdjax.errors import counted

WIDTH = 144
"""Columns that the table takes at least."""


def price_table(config: Config, rows: PriceRows) -> None:
    """Print prices as a table, an arm's phase per row, and what stands beside them as lines."""
    # Where a terminal is narrower, its own wrapping keeps every number whole.
    console = Console(width=max(WIDTH, Console().width))
    console.print(_table(config, rows))
    if config.budget.teacher != "inference" and config.budget.kind == "flops":
        console.print(_charged_line(config, rows), soft_wrap=True)
    # What is not of a step: the teacher's training, stored outputs, the probe.
    lines = []
    first, *_ = next(iter(rows.values()))
    if first["steps"] is not None and first["epochs"] is None:
        lines.append("epochs and words are not known (-) before the text is prepared")
    if config.teacher.train.budget:
        lines.append(_teacher_line(config))
    for name, phases in rows.items():
        if "cache" in phases[0]:
            lines.append(f"{name}: {_cache_line(phases[0]['cache'])}")
        if "calibration" in phases[0]:
            lines.append(f"{name}: {_calibration_line(phases[0]['calibration'])}")
    if config.evaluation.mlm_probe.tokens:
        lines.append(_probe_line(config, rows))
    if config.evaluation.minimal_pairs.directory:
        lines.append(_pairs_line(rows))
    if config.evaluation.task_results:
        lines += _task_lines(config, rows)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _table(config: Config, rows: PriceRows) -> Table:
    """Build the table: FLOPs of a step by part, and what the budget buys."""
    batch_shape = batch_shape_of(config)
    first_arm, first_phases = next(iter(rows.items()))
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=f"FLOPs of a step of {batch_shape.batch_size} x {batch_shape.seq_len} tokens, "
        f"{batch_shape.max_predictions} masked slots a sequence; what "
        f"{Budget.from_config(config.budget)} buy",
    )
    table.add_column("arm", no_wrap=True)
    parts = [part.replace("_", " ") for part in PARTS]
    for head in (*parts, "total", f"total / {first_arm}", "steps", "tokens", "epochs", "words"):
        table.add_column(head.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for name, phases in rows.items():
        for number, phase in enumerate(phases, start=1):
            # Phases are numbered where there are several, and say a batch of their own.
            label = name
            if len(phases) > 1:
                label += f", phase {number}"
                if phase["batch"] != batch_shape.batch_size:
                    label += f", batch {phase['batch']}"
            table.add_row(
                label,
                *[f"{phase[part]:.3g}" for part in PARTS],
                f"{phase['total']:.4g}",
                f"{phase['total'] / first_phases[0]['total']:.3f}",
                _known(phase["steps"], ",d"),
                _known(phase["tokens"], ".3g"),
                _known(phase["epochs"], ".2f"),
                _known(phase["words"], ".3g"),
            )
    return table


def _known(value: Any, form: str) -> str:
    """Return a number formatted; a dash where it is not known."""
    if value is None:
        return "-"
    return format(value, form)


def _charged_line(config: Config, rows: PriceRows) -> str:
    """Return the line on each arm's charge for a step."""
    charges = []
    for name, phases in rows.items():
        amounts = [format(phase["charged"], ".4g") for phase in phases]
        charges.append(f"{name} {', then '.join(amounts)}")
    return f"charged a step, of the teacher {config.budget.teacher}: {'; '.join(charges)}"


def _teacher_line(config: Config) -> str:
    """Return the line on the cost of teachers that are trained here."""
    training = config.teacher.train
    return (
        f"teacher: {counted(len(training.seeds), 'model')} trained here before the runs, each with "
        f"{training.budget:.4g} FLOPs{_until(config)}: {cost_by_recipe(config).training:.6g} FLOPs "
        "in whole steps"
    )


def _until(config: Config) -> str:
    """Return the clause on a teacher that is taken before its training ends; empty: at its end."""
    if config.teacher.at == 1:
        return ""
    return f", and taken when it has spent {config.teacher.at:.0%} of them"


def _cache_line(cache: dict[str, Any]) -> str:
    """Return the line on the cost of stored outputs, and when they pay off."""
    takes = f"{cache['bytes_a_sequence']:,} bytes a sequence"
    if cache["flops"] is not None:
        takes = f"{cache['flops']:.4g} FLOPs and {cache['bytes']:.4g} bytes, {takes}"
    pays_off = "never pay off"
    if cache["pays_off_after_epochs"] is not None:
        pays_off = f"pay off after {cache['pays_off_after_epochs']:.2f} epochs"
    return (
        f"stored teacher outputs take {takes}; shared by {cache['shared_by']} runs they {pays_off}"
    )


def _calibration_line(calibration: dict[str, int]) -> str:
    """Return the line on each run's cost of calibrating a pruned start."""
    return (
        f"calibration on {calibration['sequences']:,} sequences takes {calibration['flops']:.4g} "
        "FLOPs of each run"
    )


def _probe_line(config: Config, rows: PriceRows) -> str:
    """Return the line on an MLM probe's cost for a run of each arm, and whether it is charged."""
    flops = [f"{name} {phases[0]['mlm_probe']['flops']:.4g}" for name, phases in rows.items()]
    charged = "charged" if config.evaluation.mlm_probe.charged else "not charged"
    return f"FLOPs of a run's MLM probe, {charged} to its budget: {', '.join(flops)}"


def _pairs_line(rows: PriceRows) -> str:
    """Return the line on the cost of minimal pairs."""
    costs = {name: phases[0]["minimal_pairs"]["flops"] for name, phases in rows.items()}
    if None in costs.values():
        return "minimal pairs take FLOPs that are not known without the tokenizer, not charged"
    # An arm that trains no MLM head is not measured by them.
    flops = [f"{name} {cost:.4g}" for name, cost in costs.items() if cost]
    return f"minimal pairs of a run take FLOPs, not charged: {'; '.join(flops) or 'of no arm'}"


def _task_lines(config: Config, rows: PriceRows) -> list[str]:
    """Return the lines on the cost of tasks, for a run by protocol and for the study."""
    costs = {name: phases[0]["tasks"] for name, phases in rows.items()}
    lines = []
    # Arms whose students and settings are alike cost the same, and share a line.
    alike: dict[str, list[str]] = {}
    for name, cost in costs.items():
        alike.setdefault(_protocols_text(cost["protocols"]), []).append(name)
    for text, names in alike.items():
        lines.append(f"FLOPs of measuring a run on tasks, not charged: {', '.join(names)}: {text}")
    total = len(config.seeds) * sum(cost["flops"] for cost in costs.values())
    runs = len(config.seeds) * len(rows)
    basis = "by the rows of their files"
    some = next(iter(costs.values()))
    if some["rows"] == "official":
        basis = "an estimate by GLUE's official numbers of rows and mean lengths"
    of_runs = counted(runs, "run")
    if some["unknown"] and not total:
        # Nothing is known of any task: a 0 would pass for a figure.
        return [f"FLOPs of measuring on tasks are not known: {some['unknown']}"]
    lines.append(f"tasks of {of_runs}: {total:.4g} FLOPs, {basis}; references come on top")
    if some["unknown"]:
        lines.append(f"of some tasks the FLOPs are not known and not in these: {some['unknown']}")
    return lines


def _protocols_text(protocols: dict[str, dict[str, int]]) -> str:
    """Return the cost of each protocol as text."""
    parts = []
    for name, cost in protocols.items():
        text = f"{name} {cost['flops']:.4g}"
        if cost["trials"]:
            trials = counted(cost["trials"], "training")
            text += f" ({trials}, {counted(cost['steps'], 'step')})"
        parts.append(text)
    return ", ".join(parts)
