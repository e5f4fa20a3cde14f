"""What published scaling laws say of a recipe's arms: a prior, from decoder language models and far
from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kdjax import forecast
from kdjax.config import Config
from kdjax.models import abstract_params, count_params, zoo
from kdjax.plan.spending import Spending
from kdjax.training.arm import Arm

TEACHER_TOKENS_PER_PARAMETER = 20
"""How long the teacher is taken to be trained: compute-optimally (Hoffmann et al. 2022, arXiv
2203.15556)."""


def published(
    config: Config, spending: Mapping[str, Spending], budgets: Sequence[float], case: str
) -> dict[str, Any]:
    """Published laws at the recipe's sizes and budgets.

    An arm without a teacher follows the supervised law, one with a term on the teacher's logits the
    distillation law, both of Busbridge et al. 2025 (arXiv 2502.08606), at the effective tokens of
    Muennighoff et al. 2023 (arXiv 2305.16264). There is no published law for other ways to distil.

    Args:
        config: the recipe.
        spending: arm -> what it buys.
        budgets: in FLOPs.
        case: who pays for the teacher.

    Returns: `sources` (law -> citation and what it was fitted on), `teacher_loss` and the
        `assumption` behind it, `arms`: name -> `law` (supervised, distillation or None) and
        `losses`, nats per token, one a budget (None: less than a
        step), and `outside`: how far the recipe is from where the laws were fitted, as sentences.
    """
    teacher = count_params(abstract_params(zoo.resolve(config.teacher.architecture))).others
    teacher_loss = float(forecast.supervised_loss(teacher, TEACHER_TOKENS_PER_PARAMETER * teacher))
    arms: dict[str, Any] = {}
    tokens: list[float] = []
    for name, one in spending.items():
        law = _law(one.arm)
        bought = [one.bought(flops, case) for flops in budgets]
        worth = [None if row is None else row["effective_tokens"] for row in bought]
        tokens += [d for d in worth if d is not None]
        losses = [None if d is None else _loss(law, one.parameters, d, teacher_loss) for d in worth]
        arms[name] = {"law": law, "losses": losses}
    return {
        "sources": {
            "supervised": asdict(forecast.SUPERVISED.source),
            "distillation": asdict(forecast.DISTILLATION.source),
            "repeated data": asdict(forecast.REPEATED_DATA.source),
        },
        "teacher_loss": teacher_loss,
        "assumption": f"a teacher of {teacher:,} parameters without embeddings, trained on "
        f"{TEACHER_TOKENS_PER_PARAMETER} tokens for each of them, by the supervised law",
        "arms": arms,
        "outside": _outside([one.parameters for one in spending.values()], tokens),
    }


def _law(arm: Arm) -> str | None:
    """Which published law an arm falls under."""
    if not arm.uses_teacher:
        return "supervised"
    return "distillation" if any(phase.needs.teacher.head for phase in arm.phases) else None


def _loss(law: str | None, parameters: float, tokens: float, teacher_loss: float) -> float | None:
    if law is None:
        return None
    if law == "supervised":
        return float(forecast.supervised_loss(parameters, tokens))
    return float(forecast.distilled_loss(parameters, tokens, teacher_loss))


def _outside(parameters: Sequence[float], tokens: Sequence[float]) -> list[str]:
    """How far sizes and tokens are from those the supervised law was fitted on."""
    source = forecast.SUPERVISED.source
    made = []
    for what, found, (low, high) in (
        ("student", parameters, source.parameters),
        ("token count", tokens, source.tokens),
    ):
        if found and min(found) < low:
            made.append(
                f"the smallest {what}, {min(found):.3g}, is {low / min(found):,.0f} times below "
                "the fit's range"
            )
        if found and max(found) > high:
            made.append(
                f"the largest {what}, {max(found):.3g}, is {max(found) / high:,.0f} times above "
                "the fit's range"
            )
    return made
