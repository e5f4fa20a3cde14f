"""In what the arms of a study differ, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kdjax.config import Config
from kdjax.report import numbers
from kdjax.training.arm import Arm


def shared(config: Config, arms: Mapping[str, Arm]) -> list[str]:
    """What all arms of the study share; what an arm's own settings change is not among it."""
    found = list(arms.values())
    same = ["data order and masks, within a seed"]
    if all(arm.start == found[0].start and arm.student == found[0].student for arm in found):
        same.append("the student and its start, within a seed")
    if not any(arm.config.optimizer for arm in found):
        length = (
            "follows the clock"
            if config.budget.kind == "hours"
            else "in steps follows from the budget"
        )
        same.append(f"optimiser, peak learning rate and the schedule's shape (its length {length})")
    charged = config.budget.kind == "hours" and "evaluation" in config.budget.clock
    same.append(
        "held-out sequences and masks, and probes"
        + ("" if charged else ", none of it charged to the budget")
    )
    if config.evaluation.finetune.steps and not any(arm.config.finetune for arm in found):
        same.append("fine-tuning")
    return same


def rows(arms: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What arms of a study differ in: the objective, what their own settings change, what follows
    from the price."""

    def per_phase(show: Callable[[Mapping[str, Any]], str]) -> Callable[[Mapping[str, Any]], str]:
        return lambda arm: "; then ".join(show(phase) for phase in arm["phases"])

    def forward_passes(arm: Mapping[str, Any]) -> str:
        spent = arm["spent"]
        of_teacher = spent["teacher_forward"] + spent["teacher_cache"]
        return f"{of_teacher / (spent['total'] - spent['teacher_training']):.0%}"

    always: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "objective": per_phase(lambda phase: " + ".join(map(_term, phase["terms"]))),
        "FLOPs of a step": per_phase(lambda phase: numbers.flops(phase["price"]["total"])),
        "spent on the teacher's forward passes": forward_passes,
        "steps (and length of the schedule)": per_phase(lambda phase: f"{phase['steps']:,}"),
        "tokens seen, first seed": lambda arm: f"{arm['tokens']:,}",
        "epochs": lambda arm: f"{arm['epochs']:.3f}",
        "parameters without a gradient": lambda arm: ", ".join(arm["untrained"]) or "none",
    }
    sometimes: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "start": lambda arm: (
            "random"
            if arm["start"]["source"] == "random"
            else f"teacher layers: {arm['start']['layers']}"
        ),
        "teacher's outputs": lambda arm: {"cached": "stored", "online": "every step", None: "none"}[
            arm["teacher"]
        ],
        **{
            words: lambda arm, name=name: _settings(arm[name])  # type: ignore[misc]
            for name, words in (
                ("student", "student"),
                ("optimizer", "optimiser"),
                ("finetune", "fine-tuning"),
            )
        },
    }
    rows = [
        (name, {arm: show(row) for arm, row in arms.items()})
        for name, show in {**always, **sometimes}.items()
    ]
    kept = [(name, values) for name, values in rows if name in always or _worth_a_row(name, values)]
    return [{"setting": name, "values": values} for name, values in kept]


def _worth_a_row(name: str, values: Mapping[str, str]) -> bool:
    """Whether arms differ in it; that one has no teacher and another runs it in every step goes
    without saying."""
    found = set(values.values())
    return len(found) > 1 and not (name == "teacher's outputs" and "stored" not in found)


def _settings(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items()) or "as in the recipe"


def _term(term: Mapping[str, Any]) -> str:
    weight = term["weight"] if isinstance(term["weight"], dict) else f"{term['weight']:g}"
    return (
        f"{_number(weight)} {term['name']}"
        + (f" ({term['variant']})" if term["variant"] != "original" else "")
        + (
            f" [{', '.join(f'{k} {_number(v)}' for k, v in term['options'].items())}]"
            if term["options"]
            else ""
        )
    )


def _number(value: Any) -> str:
    """A setting as text: a schedule by its points."""
    if not isinstance(value, dict):
        return str(value)
    points = " → ".join(f"{number:g} at {at:.0%}" for at, number in value["points"])
    return f"({points}, {value['shape']})"
