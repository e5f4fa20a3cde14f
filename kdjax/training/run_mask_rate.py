"""The masking rate of a run's steps, where a recipe has it change over the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger, PhaseSpan
from kdjax.config import DataConfig
from kdjax.data.mask_rate import EqualSteps, MaskRate
from kdjax.errors import InputError


def run_mask_rate(
    config: DataConfig,
    budget: Budget,
    spans: Sequence[PhaseSpan],
    upfront: Mapping[str, int] | None = None,
) -> MaskRate | None:
    """Build the masking rate over a run's budget; None where it is the same throughout.

    It goes by the shares of the budget that learning rate and schedules go by.

    Args:
        config: `data` settings of the recipe.
        budget: budget of the run.
        spans: phases of the run as they lie in the budget.
        upfront: FLOPs spent before the first step, by account.

    Raises:
        InputError: the rate changes, and the budget is of hours.
    """
    if not config.mlm_probability_start:
        return None
    check_mask_rate(config, budget.kind)
    ledger = Ledger.open(budget, max(1, len(spans)), upfront)
    equal_steps = []
    first = 0
    begin = ledger.training_share
    for span in spans:
        batch_size = span.tokens_per_step // config.seq_len
        step = budget.step_cost(span.price, span.tokens_per_step) / ledger.training_amount
        equal_steps.append(EqualSteps(first, batch_size, begin, step))
        first += span.steps * batch_size
        begin += span.steps * step
    return MaskRate(config.mlm_probability_start, config.mlm_probability, tuple(equal_steps))


def check_mask_rate(config: DataConfig, kind: str) -> None:
    """Check that a budget of a kind allows the recipe's masking rate.

    Raises:
        InputError: the rate changes, and the budget is of hours: batches are read ahead of the
            clock.
    """
    if config.mlm_probability_start and kind == "hours":
        raise InputError(
            f"data.mlm_probability_start is {config.mlm_probability_start:g} under budget.hours, "
            "expected budget.flops or budget.tokens: batches are read before the clock says when"
        )
