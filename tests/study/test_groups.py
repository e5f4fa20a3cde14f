"""Which runs train side by side."""

from __future__ import annotations

from kdjax.study.groups import groups

ARMS = ("scratch", "minilm")
BY_SEED = [(arm, seed) for seed in (0, 1, 2) for arm in ARMS]


def test_runs_of_an_arm_go_together_each_group_when_its_first_run_would() -> None:
    assert list(groups(BY_SEED, 2)) == [
        ("scratch", (0, 1)),
        ("minilm", (0, 1)),
        ("scratch", (2,)),
        ("minilm", (2,)),
    ]
    assert list(groups(BY_SEED, 9)) == [("scratch", (0, 1, 2)), ("minilm", (0, 1, 2))]


def test_one_by_one_is_the_order_given() -> None:
    assert [(arm, seed) for arm, (seed,) in groups(BY_SEED, 1)] == BY_SEED


def test_runs_that_learn_from_different_teachers_go_apart() -> None:
    def teacher_number(arm: str, seed: int) -> int:
        return seed % 2 if arm == "minilm" else 0

    found = list(groups(BY_SEED, 9, teacher_number))
    assert found == [("scratch", (0, 1, 2)), ("minilm", (0, 2)), ("minilm", (1,))]
