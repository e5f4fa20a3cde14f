"""Which runs train side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


def groups(
    runs: Sequence[tuple[str, int]],
    at_once: int,
    teacher_number: Callable[[str, int], int] = lambda arm, seed: 0,
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Runs in groups of one arm each; a group comes when the first of its runs would.

    Args:
        runs: arm and seed of each.
        at_once: the most that are in a group.
        teacher_number: of an arm and a seed, the number of the teacher that the run learns from.
            All of a group share one teacher, which their program is given once.

    Returns:
        Arm and seeds of each group.
    """
    left = list(runs)
    while left:
        arm, seed = left[0]
        shared = teacher_number(arm, seed)
        together = [run for run in left if run[0] == arm and teacher_number(*run) == shared][
            :at_once
        ]
        left = [run for run in left if run not in together]
        yield arm, tuple(seed for _, seed in together)
