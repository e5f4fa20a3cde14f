"""What published scaling laws, of decoder language models, say of a recipe's arms: a prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from kdjax import forecast
from kdjax.config import Config
from kdjax.models import abstract_params, count_params, zoo
from kdjax.plan.schema import Prior, PriorArm
from kdjax.plan.spending import Spending
from kdjax.training.arm import Arm

TEACHER_TOKENS_PER_PARAMETER = 20
"""Length of the teacher's assumed training: compute-optimal (Hoffmann et al., arXiv 2203.15556)."""


def published_losses(
    config: Config, spending: Mapping[str, Spending], budgets: Sequence[float], case: str
) -> Prior:
    """Compute the losses of published laws at the recipe's sizes and budgets.

    An arm without a teacher follows the supervised law, one with a term on the teacher's logits the
    distillation law, both of Busbridge et al. 2025 (arXiv 2502.08606), at the effective tokens of
    Muennighoff et al. 2023 (arXiv 2305.16264). There is no published law for other ways to distil.

    Args:
        config: recipe of the plan.
        spending: arm -> what budgets buy it.
        budgets: budgets in FLOPs.
        case: way to pay for the teacher.
    """
    # The distillation law takes the teacher's loss, which is taken from the supervised law.
    teacher_params = count_params(abstract_params(zoo.resolve(config.teacher.architecture))).others
    teacher_loss = float(
        forecast.supervised_loss(teacher_params, TEACHER_TOKENS_PER_PARAMETER * teacher_params)
    )

    # A loss for each arm and budget, and the tokens at which the laws are asked.
    arms: dict[str, PriorArm] = {}
    tokens: list[float] = []
    for name, arm in spending.items():
        law = _law(arm.arm)
        losses: list[float | None] = []
        for flops in budgets:
            bought = arm.bought(flops, case)
            if bought is None:
                losses.append(None)
                continue
            tokens.append(bought.effective_tokens)
            losses.append(_loss(law, arm.parameters, bought.effective_tokens, teacher_loss))
        arms[name] = PriorArm(law, tuple(losses))

    # The supervised law has the wider range: what lies outside it lies outside both.
    source = forecast.SUPERVISED.source
    return Prior(
        sources={
            "supervised": source,
            "distillation": forecast.DISTILLATION.source,
            "repeated data": forecast.REPEATED_DATA.source,
        },
        teacher_loss=teacher_loss,
        assumption=(
            f"a teacher of {teacher_params:,} parameters without embeddings, trained on "
            f"{TEACHER_TOKENS_PER_PARAMETER} tokens for each of them, by the supervised law"
        ),
        arms=arms,
        outside=(
            *_outside("student", [arm.parameters for arm in spending.values()], source.parameters),
            *_outside("token count", tokens, source.tokens),
        ),
    )


def _law(arm: Arm) -> Literal["supervised", "distillation"] | None:
    """Return the published law for an arm; None without one."""
    if not arm.uses_teacher:
        return "supervised"
    # The law is one of logits: other ways to distil have none.
    if any(phase.needs.teacher.head for phase in arm.phases):
        return "distillation"
    return None


def _loss(law: str | None, parameters: float, tokens: float, teacher_loss: float) -> float | None:
    """Compute the loss by a law, in nats a token; None without a law."""
    if law is None:
        return None
    if law == "supervised":
        return float(forecast.supervised_loss(parameters, tokens))
    return float(forecast.distilled_loss(parameters, tokens, teacher_loss))


def _outside(name: str, values: Sequence[float], fitted_on: tuple[float, float]) -> list[str]:
    """Return a phrase each on the smallest and the largest value outside the fitted range.

    Args:
        name: name of the quantity.
        values: values of the recipe.
        fitted_on: smallest and largest value that the law was fitted on.
    """
    low, high = fitted_on
    sentences = []
    if values and min(values) < low:
        sentences.append(
            f"the smallest {name}, {min(values):.3g}, is {low / min(values):,.0f} times below the "
            "fit's range"
        )
    if values and max(values) > high:
        sentences.append(
            f"the largest {name}, {max(values):.3g}, is {max(values) / high:,.0f} times above the "
            "fit's range"
        )
    return sentences
