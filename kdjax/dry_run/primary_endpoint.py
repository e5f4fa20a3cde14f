"""Check the primary endpoint that a recipe names, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping

from kdjax.config import Config
from kdjax.errors import InputError, nearest
from kdjax.training.arm import Arm


def check_primary(config: Config, arms: Mapping[str, Arm]) -> None:
    """Check that the recipe measures the endpoint it names as primary, on arms that can be
    compared.

    Raises:
        InputError: `evaluation.primary` names none of the recipe's endpoints; or it is the loss of
            the students' own MLM heads, and the baseline arm or every other arm trains none.
    """
    evaluation = config.evaluation
    losses = ["mlm_loss", "mlm_probe"] if evaluation.mlm_probe.tokens else ["mlm_loss"]
    known = list(losses)
    for text in evaluation.texts:
        known += [f"{loss}.{text}" for loss in losses]
    known += [f"probe.{task}" for task in evaluation.tasks]
    if evaluation.finetune.steps:
        known += [f"finetune.{task}" for task in evaluation.tasks]
    if evaluation.primary and evaluation.primary not in known:
        raise InputError(
            f"evaluation.primary is {evaluation.primary!r}, expected one of {', '.join(known)}"
            f"{nearest(evaluation.primary, known)}"
        )
    if evaluation.primary.partition(".")[0] == "mlm_loss" and len(arms) > 1:
        _check_heads(evaluation.primary, arms)


def _check_heads(primary: str, arms: Mapping[str, Arm]) -> None:
    """Raise InputError unless the baseline arm and another one train MLM heads, whose loss is to be
    compared."""
    with_head = [name for name, arm in arms.items() if arm.trains_mlm_head]
    without_teacher = [name for name, arm in arms.items() if not arm.needs_teacher]
    baseline = next(iter(without_teacher or arms))
    if baseline in with_head and len(with_head) > 1:
        return
    listed = ", ".join(with_head) or "no arm"
    raise InputError(
        f"evaluation.primary is {primary!r}, expected an endpoint that {baseline} and another arm "
        "have, for instance "
        f"'mlm_probe': of the arms, {listed} trains an MLM head"
    )
