"""The check of the primary endpoint that a recipe names, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping

from kdjax.arms.baseline import first_without_teacher
from kdjax.config import Config
from kdjax.errors import InputError, nearest
from kdjax.training.arm import Arm


def check_primary(config: Config, arms: Mapping[str, Arm]) -> None:
    """Check that the recipe measures its primary endpoint, on arms that can be compared.

    Raises:
        InputError: `evaluation.primary` names none of the recipe's endpoints; or it is measured by
            the students' own MLM heads, and the baseline arm or every other arm trains none.
    """
    evaluation = config.evaluation
    # The names of all endpoints, as evaluations give them.
    losses = ["mlm_loss"]
    if evaluation.mlm_probe.tokens:
        losses.append("mlm_probe")
    endpoints = list(losses)
    for text in evaluation.texts:
        endpoints += [f"{loss}.{text}" for loss in losses]
    if evaluation.minimal_pairs.directory:
        endpoints += [f"minimal_pairs.{name}" for name in evaluation.minimal_pairs.sets]
    endpoints += evaluation.task_endpoints
    if evaluation.primary and evaluation.primary not in endpoints:
        raise InputError(
            f"evaluation.primary is {evaluation.primary!r}, expected one of {', '.join(endpoints)}"
            f"{nearest(evaluation.primary, endpoints)}"
        )
    needs_heads = evaluation.primary.partition(".")[0] in ("mlm_loss", "minimal_pairs")
    if needs_heads and len(arms) > 1:
        _check_heads(evaluation.primary, arms)


def _check_heads(primary: str, arms: Mapping[str, Arm]) -> None:
    """Check that the baseline arm and another one train the MLM heads that are compared.

    Raises:
        InputError: one of them does not.
    """
    with_head = [name for name, arm in arms.items() if arm.trains_mlm_head]
    baseline_arm = first_without_teacher({name: arm.needs_teacher for name, arm in arms.items()})
    if baseline_arm in with_head and len(with_head) > 1:
        return
    names = ", ".join(with_head) or "no arm"
    raise InputError(
        f"evaluation.primary is {primary!r}, expected an endpoint that {baseline_arm} and another "
        f"arm have, for instance 'mlm_probe': of the arms, {names} trains an MLM head"
    )
