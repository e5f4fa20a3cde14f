"""What a recipe costs before anything is spent: the price of each arm's step and how far the budget reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kdjax.budget.ledger import affordable_steps
from kdjax.budget.price import PARTS
from kdjax.config import Config
from kdjax.data.prepare import Manifest
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.train.arm import Arm, Shape, price, resolve


def shape_of(config: Config) -> Shape:
    """The shape of a recipe's batch."""
    return Shape(config.train.batch, config.data.length, config.data.slots)


def arms_of(config: Config) -> dict[str, Arm]:
    """The recipe's arms, made ready from settings alone.

    Raises:
        InputError: no arms, an unknown arm, an objective these models do not allow, or sequences longer than
            the models' positions.
    """
    if not config.arms:
        raise InputError("arms is empty, expected at least one arm, for instance {scratch: {}}")
    student, teacher = zoo.resolve(config.student), zoo.resolve(config.teacher.architecture)
    arms = {name: resolve(name, arm, student, teacher, config.train.optimizer) for name, arm in config.arms.items()}
    for role, model in (("student", student), ("teacher.architecture", teacher)):
        if role != "student" and not any(arm.teacher for arm in arms.values()):
            continue
        if config.data.length > model.positions:
            raise InputError(
                f"data.length is {config.data.length}, expected at most {role}.positions, {model.positions} tokens"
            )
    return arms


def prices(config: Config) -> dict[str, list[dict[str, Any]]]:
    """Per arm and phase: FLOPs of one step by part, and the steps, tokens and epochs the budget buys.

    Tokens are positions of the sequences, padding included, when no prepared corpus tells how full they are; epochs are
    None then.
    """
    shape, corpus = shape_of(config), _prepared(config)
    rows = {}
    for name, arm in arms_of(config).items():
        cost = price(arm, shape)
        steps = affordable_steps(int(config.budget.flops), cost, f"arms.{name}: budget.flops")
        sequences = steps * shape.batch
        tokens, epochs = sequences * shape.length, None
        if corpus is not None:
            epochs = sequences / corpus.sequences["train"]
            tokens = round(epochs * corpus.tokens["train"])
        rows[name] = [{**cost.to_json(), "steps": steps, "tokens": tokens, "epochs": epochs}]
    return rows


def _prepared(config: Config) -> Manifest | None:
    return Manifest.read(Path(config.data.prepared)) if config.data.prepared else None


def price_table(config: Config, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Prints the prices as a table: an arm's phase per column."""
    shape = shape_of(config)
    phases = [(name, phase) for name, found in rows.items() for phase in found]
    first = phases[0][1]["total"]
    table = Table(title=f"One step: {shape.batch} x {shape.length} tokens, {shape.slots} masked slots a sequence")
    table.add_column("FLOPs of a step", no_wrap=True)
    for name, _ in phases:
        table.add_column(name, justify="right", no_wrap=True)
    for part in PARTS:
        table.add_row(part.replace("_", " "), *(f"{phase[part]:.4g}" for _, phase in phases))
    table.add_row("total", *(f"{phase['total']:.4g}" for _, phase in phases), style="bold")
    table.add_row("matmuls (witness)", *(f"{phase['witness_matmul']:.4g}" for _, phase in phases))
    table.add_row(
        f"total / {phases[0][0]}", *(f"{phase['total'] / first:.3f}" for _, phase in phases), end_section=True
    )
    table.add_row(f"{config.budget.flops:.4g} FLOPs:", *("" for _ in phases), style="bold")
    table.add_row("steps", *(f"{phase['steps']:,}" for _, phase in phases))
    table.add_row("tokens", *(f"{phase['tokens']:.4g}" for _, phase in phases))
    table.add_row("epochs", *("-" if phase["epochs"] is None else f"{phase['epochs']:.2f}" for _, phase in phases))
    Console().print(table)
