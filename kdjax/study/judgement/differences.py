"""Differences between the arms of a study, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kdjax.config import Config, Schedule, TermConfig
from kdjax.report import numbers
from kdjax.report.phrases import listed_settings
from kdjax.results.arm_results import ArmPhase, ArmResult, SettingRow
from kdjax.storage.typed_json import to_plain
from kdjax.training.arm import Arm

OUTPUTS = {"cached": "stored", "online": "every step", None: "none"}
"""Where the teacher's features come from -> what the table calls it."""


def shared(config: Config, arms: Mapping[str, Arm]) -> list[str]:
    """Return the settings that all arms of the study share.

    Args:
        config: resolved recipe, with training, budget and evaluation settings.
        arms: name -> arm.
    """
    # The order of text follows from the seed alone; all else is shared until an arm changes it.
    is_timed = config.budget.kind == "hours"
    shared_parts = ["data order and masks, within a seed"]
    starts = [(arm.start, arm.student_config) for arm in arms.values()]
    if all(start == starts[0] for start in starts):
        shared_parts.append("the student and its start, within a seed")
    if not any(arm.config.optimizer for arm in arms.values()):
        length = "follows the clock" if is_timed else "in steps follows from the budget"
        shared_parts.append(
            f"optimiser, peak learning rate and the schedule's shape (its length {length})"
        )
    evaluation = "held-out sequences and masks, and probes"
    if not (is_timed and "evaluation" in config.budget.clock):
        evaluation += ", none of it charged to the budget"
    shared_parts.append(evaluation)
    has_own = any(arm.config.finetune for arm in arms.values())
    if "fixed" in config.evaluation.protocols and not has_own:
        shared_parts.append("fine-tuning")
    return shared_parts


def rows(arms: Mapping[str, ArmResult]) -> tuple[SettingRow, ...]:
    """Return the rows of the table of differences: objective, price, and arms' own settings.

    Args:
        arms: name -> arm.
    """
    # What every table has, and what it has where arms differ in it.
    always: dict[str, Callable[[ArmResult], str]] = {
        "objective": lambda arm: _by_phase(arm, _objective),
        "FLOPs of a step": lambda arm: _by_phase(arm, _step_flops),
        "spent on the teacher's forward passes": _share_of_teacher_forward,
        "steps (and length of the schedule)": lambda arm: _by_phase(
            arm, lambda phase: f"{phase.steps:,}"
        ),
        "tokens seen, first seed": lambda arm: f"{arm.tokens:,}",
        "epochs": lambda arm: f"{arm.epochs:.3f}",
        "parameters without a gradient": lambda arm: ", ".join(arm.untrained) or "none",
    }
    where_arms_differ: dict[str, Callable[[ArmResult], str]] = {
        "start": _start,
        "teacher's outputs": lambda arm: OUTPUTS[arm.teacher],
        "student": lambda arm: _settings(arm.student),
        "optimiser": lambda arm: _settings(arm.optimizer),
        "fine-tuning": lambda arm: _settings(arm.finetune),
    }
    # Corpora of earlier versions have no count of words.
    if all(arm.words is not None for arm in arms.values()):
        always["words seen, first seed"] = lambda arm: f"{arm.words:,}"
    table = []
    for setting, show in {**always, **where_arms_differ}.items():
        values = {name: show(arm) for name, arm in arms.items()}
        if setting in always or _differ(setting, values):
            table.append(SettingRow(setting, values))
    return tuple(table)


def _differ(setting: str, values: Mapping[str, str]) -> bool:
    """Return whether arms differ in a setting, so that the table needs a row on it."""
    # The objective tells already which arms have a teacher; that one's outputs are stored, it
    # does not.
    distinct = set(values.values())
    return len(distinct) > 1 and (setting != "teacher's outputs" or "stored" in distinct)


def _by_phase(arm: ArmResult, show: Callable[[ArmPhase], str]) -> str:
    """Return a text on each of an arm's phases, in their order."""
    return "; then ".join(show(phase) for phase in arm.phases)


def _objective(phase: ArmPhase) -> str:
    """Return the terms of a phase with their weights."""
    return " + ".join(_term(term) for term in phase.terms)


def _step_flops(phase: ArmPhase) -> str:
    """Return the price of a step."""
    return numbers.flops(phase.price.total)


def _share_of_teacher_forward(arm: ArmResult) -> str:
    """Return the share of a run's FLOPs spent on the teacher's forward passes."""
    # Stored outputs are forward passes as well; the teacher's training is none of the run's work.
    spent = arm.spent
    forward = spent["teacher_forward"] + spent["teacher_cache"] + spent.get("calibration", 0)
    return f"{forward / (spent['total'] - spent['teacher_training']):.0%}"


def _start(arm: ArmResult) -> str:
    """Return the start of an arm's student in words."""
    if arm.start.source == "random":
        return "random"
    layers = f"teacher layers: {to_plain(arm.start.layers)}"
    if arm.start.prunes:
        return f"{layers}, pruned by use on {arm.start.calibration_sequences:,} sequences"
    return layers


def _settings(changes: Mapping[str, Any]) -> str:
    """Return an arm's own settings."""
    return listed_settings(changes) or "as in the recipe"


def _term(term: TermConfig) -> str:
    """Return a term with its weight, variant and options."""
    text = f"{_weight(term.weight)} {term.name}"
    if term.variant != "original":
        text += f" ({term.variant})"
    options = listed_settings(term.options, _option)
    if options:
        text += f" [{options}]"
    return text


def _weight(weight: float | Schedule) -> str:
    """Return a term's weight: a number, or a schedule by its points."""
    if isinstance(weight, Schedule):
        return _schedule(weight.shape, weight.points)
    return f"{weight:g}"


def _option(value: Any) -> str:
    """Return a term's option, which may be a schedule as plain values."""
    if isinstance(value, dict):
        return _schedule(value["shape"], value["points"])
    return str(value)


def _schedule(shape: str, points: Any) -> str:
    """Return a schedule by its points."""
    path = " → ".join(f"{number:g} at {share:.0%}" for share, number in points)
    return f"({path}, {shape})"
