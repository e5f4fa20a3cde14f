"""Which runs train side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def groups(runs: Sequence[tuple[str, int]], at_once: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Runs in groups of one arm each; a group comes when the first of its runs would.

    Args:
        runs: arm and seed of each.
        at_once: the most that are in a group.

    Returns:
        Arm and seeds of each group.
    """
    left = list(runs)
    while left:
        arm, _ = left[0]
        together = [run for run in left if run[0] == arm][:at_once]
        left = [run for run in left if run not in together]
        yield arm, tuple(seed for _, seed in together)
