"""Arms whose pilot still sits near the unigram line, beyond which a law has seen nothing."""

from __future__ import annotations

from statistics import fmean

from kdjax.plan.schema import Pilot
from kdjax.report import ngram_losses

NEAR = 0.1
"""Share of the way from the unigram loss to that of both neighbours; an arm that has come less far
is near the unigram line."""


def arms_near_unigram(pilot: Pilot) -> tuple[str, ...]:
    """Return the arms whose mean at the pilot's largest budget is near the text's unigram loss.

    A small masked language model stays there for a while and then leaves at once. A law fitted to
    what comes before says nothing of what comes after.

    Args:
        pilot: the sweep whose runs are fitted.
    """
    losses = pilot.ngram_losses
    endpoint = pilot.endpoint
    if losses is None or not ngram_losses.endpoint_losses(losses, endpoint.name, endpoint.unit):
        return ()
    limit = losses.unigram - NEAR * (losses.unigram - losses.both_neighbors)
    largest: dict[str, float] = {}
    for run in pilot.runs:
        largest[run.arm] = max(largest.get(run.arm, 0.0), run.flops)
    near = []
    for arm, flops in largest.items():
        values = [run.value for run in pilot.runs if (run.arm, run.flops) == (arm, flops)]
        if fmean(values) > limit:
            near.append(arm)
    return tuple(near)
