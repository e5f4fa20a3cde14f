"""Arms whose pilot ends near the unigram line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdjax.forecast import PilotRun
from kdjax.plan.plateau import arms_near_unigram
from kdjax.plan.schema import Pilot
from kdjax.results.text import CountedLosses
from kdjax.results.verdicts import Endpoint

LOSSES = CountedLosses(7.0, 6.0, 5.0, 100, 90, 10, {})
ENDPOINT = Endpoint("mlm_loss", "Held-out MLM loss", "nats", "lower", "mlm", ("scratch", "kd"))


def pilot(final: dict[str, tuple[float, ...]], endpoint: Endpoint = ENDPOINT) -> Pilot:
    """Return a pilot whose arms end at these losses, and began above them."""
    runs = []
    for arm, values in final.items():
        for seed, value in enumerate(values):
            runs.append(PilotRun(arm, seed, 1e12, 1e5, 1e6, 1e6, 7.2))
            runs.append(PilotRun(arm, seed, 1e13, 1e5, 1e7, 1e7, value))
    return Pilot("pilot", "", (1e12, 1e13), tuple(runs), endpoint, LOSSES)


@pytest.mark.parametrize(
    ("scratch", "near"),
    # A tenth of the way from 7 to 5 is 6.8; the mean over seeds counts.
    [((6.9, 6.9), True), ((6.7, 6.85), False), ((6.7, 7.0), True), ((5.5, 5.5), False)],
)
def test_arm_is_near_the_line_less_than_a_tenth_of_the_way_down(
    scratch: tuple[float, ...], near: bool
) -> None:
    arms = arms_near_unigram(pilot({"scratch": scratch, "kd": (5.5, 5.6)}))
    assert arms == (("scratch",) if near else ())


def test_endpoint_that_is_no_loss_on_the_text_has_no_line() -> None:
    accuracy = replace(ENDPOINT, name="probe.topic", unit="accuracy", better="higher")
    assert arms_near_unigram(pilot({"scratch": (6.9,)}, accuracy)) == ()
    without = replace(pilot({"scratch": (6.9,)}), ngram_losses=None)
    assert arms_near_unigram(without) == ()
