"""Groups of runs that train as the lanes of one vmapped program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


def groups(
    runs: Sequence[tuple[str, int]],
    max_size: int,
    teacher_number: Callable[[str, int], int] = lambda arm, seed: 0,
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield groups of runs of one arm and teacher, ordered by the first run of each.

    Args:
        runs: arm and seed of each run, in the order of training.
        max_size: the most runs of a group.
        teacher_number: (arm, seed) -> the number of the teacher that the run learns from.
            All of a group share one teacher, which their program is given once.

    Yields:
        Arm and seeds of each group.
    """
    waiting = list(runs)
    while waiting:
        arm, seed = waiting[0]
        teacher = teacher_number(arm, seed)
        # They wait in the order in which they would train alone.
        alike = [run for run in waiting if run[0] == arm and teacher_number(*run) == teacher]
        group = alike[:max_size]
        waiting = [run for run in waiting if run not in group]
        yield arm, tuple(seed for _, seed in group)
