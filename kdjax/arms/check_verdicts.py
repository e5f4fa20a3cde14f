"""The check of what verdicts are to be about, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping

from kdjax.arms.baseline import baseline_arm
from kdjax.config import Config, ContrastConfig, EvaluationConfig
from kdjax.config.evaluation import NO_ENDPOINT
from kdjax.errors import InputError, nearest
from kdjax.training.arm import Arm


def check_verdicts(config: Config, arms: Mapping[str, Arm]) -> None:
    """Check that the recipe's baseline arm, primary endpoint and contrasts can be compared.

    Raises:
        InputError: `evaluation.baseline` is no arm; `evaluation.primary` names none of the recipe's
            endpoints; or it is measured by the students' own MLM heads, and the baseline arm or
            every other arm trains none; or a contrast names an arm or an endpoint that the recipe
            does not have, or an endpoint that one of its arms does not have.
    """
    evaluation = config.evaluation
    if evaluation.baseline and evaluation.baseline not in arms:
        raise InputError(
            f"evaluation.baseline is {evaluation.baseline!r}, expected one of {', '.join(arms)}"
            f"{nearest(evaluation.baseline, arms)}"
        )
    endpoints = _endpoints(evaluation)
    if evaluation.primary and evaluation.primary not in (*endpoints, NO_ENDPOINT):
        raise InputError(
            f"evaluation.primary is {evaluation.primary!r}, expected one of {', '.join(endpoints)}"
            f"{nearest(evaluation.primary, endpoints)}"
        )
    if _needs_heads(evaluation.primary) and len(arms) > 1:
        _check_heads(evaluation, arms)
    for setting in ("hypotheses", "contrasts"):
        for name, contrast in getattr(evaluation, setting).items():
            where = f"evaluation.{setting}.{name}"
            _check_contrast(contrast, where, evaluation.primary_endpoint, endpoints, arms)


def _endpoints(evaluation: EvaluationConfig) -> list[str]:
    """Return the names of all endpoints, as evaluations give them."""
    losses = ["mlm_loss"]
    if evaluation.mlm_probe.tokens:
        losses.append("mlm_probe")
    endpoints = list(losses)
    for text in evaluation.texts:
        endpoints += [f"{loss}.{text}" for loss in losses]
    if evaluation.minimal_pairs.directory:
        endpoints += [f"minimal_pairs.{name}" for name in evaluation.minimal_pairs.sets]
    return [*endpoints, *evaluation.task_endpoints]


def _needs_heads(endpoint: str) -> bool:
    """Return whether an endpoint is measured by the students' own MLM heads."""
    return endpoint.partition(".")[0] in ("mlm_loss", "minimal_pairs")


def _check_contrast(
    contrast: ContrastConfig,
    where: str,
    primary: str,
    endpoints: list[str],
    arms: Mapping[str, Arm],
) -> None:
    """Check that a contrast is of arms that all have its endpoint.

    Raises:
        InputError: it is not.
    """
    endpoint = contrast.endpoint or primary
    if endpoint not in endpoints:
        raise InputError(
            f"{where}.endpoint is {endpoint!r}, expected one of {', '.join(endpoints)}"
            f"{nearest(endpoint, endpoints)}"
        )
    for arm in contrast.weights:
        if arm not in arms:
            raise InputError(
                f"{where}.weights names {arm!r}, expected arms out of {', '.join(arms)}"
                f"{nearest(arm, arms)}"
            )
        if _needs_heads(endpoint) and not arms[arm].trains_mlm_head:
            raise InputError(
                f"{where}.endpoint is {endpoint!r}, expected one that {arm} has, which trains no "
                "MLM head"
            )


def _check_heads(evaluation: EvaluationConfig, arms: Mapping[str, Arm]) -> None:
    """Check that the baseline arm and another one train the MLM heads that are compared.

    Raises:
        InputError: one of them does not.
    """
    with_head = [name for name, arm in arms.items() if arm.trains_mlm_head]
    needs_teacher = {name: arm.needs_teacher for name, arm in arms.items()}
    baseline = baseline_arm(evaluation.baseline, needs_teacher)
    if baseline in with_head and len(with_head) > 1:
        return
    names = ", ".join(with_head) or "no arm"
    raise InputError(
        f"evaluation.primary is {evaluation.primary!r}, expected an endpoint that {baseline} and "
        f"another arm have, for instance 'mlm_probe': of the arms, {names} trains an MLM head"
    )
