"""Which runs train side by side."""

from __future__ import annotations

from itertools import product

from kdjax.study.runs.groups import groups

ARMS = ("scratch", "minilm")
BY_SEED = [(arm, seed) for seed, arm in product((0, 1, 2), ARMS)]


def test_groups_hold_runs_of_one_arm_in_order_of_their_first() -> None:
    assert list(groups(BY_SEED, 2)) == [
        ("scratch", (0, 1)),
        ("minilm", (0, 1)),
        ("scratch", (2,)),
        ("minilm", (2,)),
    ]
    assert list(groups(BY_SEED, 9)) == [("scratch", (0, 1, 2)), ("minilm", (0, 1, 2))]


def test_groups_of_one_keep_the_order() -> None:
    assert [(arm, seed) for arm, (seed,) in groups(BY_SEED, 1)] == BY_SEED


def test_groups_split_by_teacher() -> None:
    def teacher_number(arm: str, seed: int) -> int:
        return seed % 2 if arm == "minilm" else 0

    split = list(groups(BY_SEED, 9, teacher_number))
    assert split == [("scratch", (0, 1, 2)), ("minilm", (0, 2)), ("minilm", (1,))]
