"""The words of verdicts, and the rule that gives them."""

from __future__ import annotations

from typing import Literal

from kdjax.errors import InputError

Verdict = Literal["BEATS", "TIES", "INCONCLUSIVE", "NOT LEARNT"]
ArmVerdict = Literal["BEATS", "LOSES", "TIES", "INCONCLUSIVE", "NOT LEARNT"]
"""A verdict on a pair, read from the side of one of its arms."""
OTHER_SIDE: dict[ArmVerdict, ArmVerdict] = {
    "BEATS": "LOSES",
    "LOSES": "BEATS",
    "TIES": "TIES",
    "INCONCLUSIVE": "INCONCLUSIVE",
    "NOT LEARNT": "NOT LEARNT",
}
"""Verdict from the side of one arm of a pair -> from that of the other."""
Better = Literal["higher", "lower"]


def decide_verdict(
    mean: float, *, is_tie: bool, is_significant: bool, better: Better
) -> ArmVerdict:
    """Decide what two arms' paired differences say of the first arm.

    | shown to lie within the margin | significant | the first is better | verdict |
    |---|---|---|---|
    | yes | yes or no | yes or no | TIES |
    | no | yes | yes | BEATS |
    | no | yes | no | LOSES |
    | no | no | yes or no | INCONCLUSIVE |

    Arms tie also where they differ significantly: the margin is the largest difference that does
    not matter to the user, however sure its sign is.

    Args:
        mean: mean difference, first arm - second arm.
        is_tie: whether two one-sided tests show that the mean lies within the margin.
        is_significant: whether a test, adjusted for its family, says that the mean is not 0.
        better: whether higher or lower values are better.
    """
    if is_tie:
        return "TIES"
    if not is_significant:
        return "INCONCLUSIVE"
    if (mean > 0) == (better == "higher"):
        return "BEATS"
    return "LOSES"


def check_settings(confidence: float, margin: float) -> None:
    """Check a confidence and a margin.

    Args:
        confidence: nominal coverage of intervals.
        margin: the largest difference that does not matter.

    Raises:
        InputError: a confidence outside (0, 1), or a margin that is negative or not finite.
    """
    if not 0 < confidence < 1:
        raise InputError(
            f"evaluation.confidence is {confidence}, expected a number between 0 and 1, both "
            "excluded"
        )
    if not 0 <= margin < float("inf"):
        raise InputError(f"evaluation.margin is {margin}, expected a finite number of at least 0")
