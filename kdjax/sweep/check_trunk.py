"""Whether runs of several budgets may share a trunk: nothing before the decay may depend on the
budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kdjax.config import KINDS, Config
from kdjax.errors import InputError
from kdjax.training.arm import Arm

_SHARED = "under sweep.trunk shared"


def check_trunk(config: Config, arms: Mapping[str, Arm], swept: Collection[str]) -> None:
    """Check that the runs of a study may share a trunk with those of other budgets.

    Args:
        config: recipe of the study.
        arms: its arms.
        swept: dotted names of the settings that are swept over.

    Raises:
        InputError: no budget is swept over, it is of hours, or something of an arm depends on the
            budget before its decay.
    """
    names = {f"budget.{kind}" for kind in KINDS}
    budgets = [name for name in swept if name in names]
    if not budgets:
        raise InputError(
            "sweep.trunk is 'shared' and no budget is swept over, expected budget.flops or "
            "budget.tokens with several values"
        )
    if config.budget.kind == "hours":
        raise InputError(
            f"sweep has budget.hours {_SHARED}, expected budget.flops or budget.tokens: a clock "
            "decides where a decay begins"
        )
    if config.data.mlm_probability_start:
        raise InputError(
            f"data.mlm_probability_start is {config.data.mlm_probability_start:g} {_SHARED}, "
            "expected 0: masks would depend on the budget from the first step on"
        )
    for arm in arms.values():
        _check_arm(arm)


def _check_arm(arm: Arm) -> None:
    """Check that nothing of an arm depends on the budget before its decay.

    Raises:
        InputError: another schedule than wsd, several phases, or a term that is scheduled.
    """
    schedule = arm.phases[0].optimizer.schedule
    if schedule != "wsd":
        raise InputError(
            f"arms.{arm.name}: optimizer.schedule is {schedule!r} {_SHARED}, expected 'wsd': with "
            "others the learning rate depends on the budget throughout"
        )
    if len(arm.phases) > 1:
        raise InputError(
            f"arms.{arm.name}: {len(arm.phases)} phases or stretches of a batch ramp {_SHARED}, "
            "expected one: each ends at a share of the budget"
        )
    if arm.phases[0].objective.scheduled:
        raise InputError(
            f"arms.{arm.name}: a term's weight or option changes over the budget {_SHARED}, "
            "expected constants"
        )
