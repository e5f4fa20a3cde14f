"""The named arms: what each does, what it asks of the teacher, and what a step of it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from kdjax.arms.recipe_arms import batch_shape_of
from kdjax.budget.accounting import Budget
from kdjax.config import ArmConfig, Config, ModelSpec
from kdjax.dry_run.price_report import WIDTH
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.objectives.presets import PRESETS
from kdjax.training.arm import Arm, resolve
from kdjax.training.phase_price import price


def named_arms(
    config: Config, status: Callable[[str], None] = lambda text: None
) -> dict[str, dict[str, Any]]:
    """Price every named arm between a recipe's models.

    Args:
        config: resolved recipe, with student, teacher and optimiser; its own arms are not read.
        status: shows which arm is being priced.

    Returns:
        Name -> `does`, `asks`, `source`, and `flops`, of the mean step, and `relative`, to
        `scratch`; or `refused`, why the arm cannot be between these models.
    """
    teacher_config = zoo.resolve(config.teacher.architecture)
    rows: dict[str, dict[str, Any]] = {}
    for number, (name, preset) in enumerate(PRESETS.items(), start=1):
        status(f"{name}: counting what a step costs, arm {number} of {len(PRESETS)}")
        row: dict[str, Any] = {"does": preset.summary, "asks": preset.asks, "source": preset.source}
        # An arm that these models do not allow is listed with the reason.
        try:
            arm = resolve(name, ArmConfig(), config.student, teacher_config, config.train.optimizer)
            row["flops"] = _mean_step(arm, config)
            row["relative"] = row["flops"] / rows.get("scratch", row)["flops"]
        except InputError as e:
            row["refused"] = str(e).removeprefix(f"arms.{name}: ")
        rows[name] = row
    return rows


def _mean_step(arm: Arm, config: Config) -> float:
    """Return the FLOPs of a step, over all phases of an arm as they lie in a large budget."""
    batch_shape = batch_shape_of(config)
    # So large that rounding to whole steps does not show.
    prices = [price(phase, phase.batch_shape(batch_shape)) for phase in arm.phases]
    large = Budget.flops(10**6 * max(step_price.total for step_price in prices))
    spans = arm.schedule_phases(large, prices, batch_shape)
    return sum(span.steps * span.price.total for span in spans) / spans[-1].stop


def arms_table(config: Config, rows: dict[str, dict[str, Any]]) -> None:
    """Print the named arms as a table.

    Args:
        config: the recipe between whose models they are priced.
        rows: rows from `named_arms`.
    """
    batch_shape = batch_shape_of(config)
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=f"Arms, priced for a {_size(config.student)} student and a "
        f"{_size(config.teacher.architecture)} teacher, {batch_shape.batch_size} x "
        f"{batch_shape.seq_len} tokens a step, {batch_shape.max_predictions} masked slots a "
        "sequence",
    )
    # What may be long wraps; names and numbers do not.
    table.add_column("arm", no_wrap=True)
    for head in ("does", "asks of the teacher", "source"):
        table.add_column(head)
    table.add_column("step / scratch", justify="right")
    for name, row in rows.items():
        cost = f"refused: {row['refused']}" if "refused" in row else f"{row['relative']:.3f}"
        is_last_of_paper = name == "minilm"
        table.add_row(
            name, row["does"], row["asks"], row["source"], cost, end_section=is_last_of_paper
        )
    Console(width=max(WIDTH, Console().width)).print(table)


def _size(spec: ModelSpec) -> str:
    """Return a model's size as layers x width."""
    model = zoo.resolve(spec)
    return f"{model.layers} x {model.width}"
