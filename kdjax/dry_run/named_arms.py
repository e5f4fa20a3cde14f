"""The named arms in one list: what each does, what it asks of the teacher, and what a step of it
costs."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from kdjax.budget.accounting import Budget
from kdjax.config import ArmConfig, Config
from kdjax.dry_run.pricing import WIDTH, shape_of
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.objectives.presets import PRESETS
from kdjax.training.arm import Arm, resolve
from kdjax.training.phase import price


def listed(config: Config) -> dict[str, dict[str, Any]]:
    """Name -> `does`, `asks`, `source`, and between a recipe's models `flops`, of the mean step,
    and `relative`, to `scratch`; or `refused`, why the arm cannot be between these models.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, preset in PRESETS.items():
        row: dict[str, Any] = {"does": preset.summary, "asks": preset.asks, "source": preset.source}
        try:
            arm = resolve(
                name,
                ArmConfig(),
                config.student,
                zoo.resolve(config.teacher.architecture),
                config.train.optimizer,
            )
            row["flops"] = _mean_step(arm, config)
            row["relative"] = row["flops"] / rows["scratch"]["flops"] if rows else 1.0
        except InputError as e:
            row["refused"] = str(e).removeprefix(f"arms.{name}: ")
        rows[name] = row
    return rows


def _mean_step(arm: Arm, config: Config) -> float:
    """FLOPs of a step, over all phases of an arm as they lie in a large budget."""
    costs = [price(phase, phase.shape(shape_of(config))) for phase in arm.phases]
    large = Budget.flops(10**6 * max(cost.total for cost in costs))
    spans = arm.schedule_phases(large, costs, shape_of(config))
    return sum(s.steps * s.price.total for s in spans) / spans[-1].stop


def arms_table(config: Config) -> None:
    """Prints the list."""
    shape = shape_of(config)
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=f"Arms, priced for a {_size(config.student)} student and a "
        f"{_size(config.teacher.architecture)} teacher, "
        f"{shape.batch_size} x {shape.seq_len} tokens a step, {shape.max_predictions} masked "
        "slots a sequence",
    )
    table.add_column("arm", no_wrap=True)
    for head in ("does", "asks of the teacher", "source"):
        table.add_column(head)
    table.add_column("step / scratch", justify="right")
    for name, row in listed(config).items():
        cost = f"refused: {row['refused']}" if "refused" in row else f"{row['relative']:.3f}"
        table.add_row(
            name, row["does"], row["asks"], row["source"], cost, end_section=name == "minilm"
        )
    Console(width=max(WIDTH, Console().width)).print(table)


def _size(spec: Any) -> str:
    model = zoo.resolve(spec)
    return f"{model.layers} x {model.width}"
