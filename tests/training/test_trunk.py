"""One trunk for several budgets: a run that goes on from a smaller budget's ends as it would alone,
bit for bit."""

from __future__ import annotations

import functools
import itertools
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest

from kdjax.budget import journal
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.config import OptimizerConfig
from kdjax.parallel.layout import Layout
from kdjax.training.learning_rate import has_left_peak, learning_rate
from kdjax.training.outcome import Outcome
from kdjax.training.phase import Phase
from kdjax.training.phase_price import price
from kdjax.training.program import Program, program_of
from kdjax.training.train import train
from kdjax.training.trunk import Trunk, TrunkSource, trunk_steps
from tests.support import metrics, tiny, trainers

STEPS = (5, 8, 14)
"""Steps that the budgets buy; half a step is left over."""
TRUNKS = (4, 6, 9)
"""Steps that begin before 0.6 of 5.5, 8.5 and 14.5 steps are spent: by hand."""
DECAY = 0.4
SAME = ("spent", "steps_by_phase", "padded_tokens", "tokens", "unique_tokens", "masked_tokens")


@functools.cache
def phase() -> Phase:
    """Make a phase with dropout, whose warm-up is a share of the smallest budget."""
    student = replace(tiny.SHALLOW_STUDENT, dropout=0.1)
    optimizer = {"schedule": "wsd", "decay": DECAY, "warmup": 0.45}
    warmup_budget = float(budgets(tiny.phase("scratch", student, tiny.SHALLOW_TEACHER))[0].amount)
    return tiny.phase(
        "scratch", student, tiny.SHALLOW_TEACHER, warmup_budget=warmup_budget, **optimizer
    )


@functools.cache
def budgets(of: Phase) -> list[Budget]:
    cost = price(of, tiny.SHAPE).total
    return [Budget.flops(steps * cost + cost // 2) for steps in STEPS]


def compiled(lanes: int) -> Program:
    return program_of(
        phase(), tiny.SHAPE, Layout.from_config(devices=jax.devices()[:1]), lanes=lanes
    )


def trunk_of(directory: Path, number: int, seed: int) -> Trunk:
    """Return a run's trunk, with those of all smaller budgets to go on from."""
    sources = []
    for smaller in reversed(range(number)):
        path = directory / str(smaller) / str(seed) / "trunk"
        sources.append(TrunkSource(f"study {smaller}", path, lambda ledger: None))
    own = directory / str(number) / str(seed) / "trunk"
    return Trunk(own, sources, budgets(phase())[number + 1 :])


def run(
    directory: Path,
    number: int,
    seeds: Sequence[int] = (0,),
    *,
    shared: bool = True,
    stop_at: int | None = None,
    **settings: Any,
) -> list[Outcome]:
    """Train runs of a budget, a directory each: sharing a trunk with smaller budgets, or alone."""
    program = compiled(len(seeds))
    specs = []
    for seed in seeds:
        spec = trainers.run_spec(
            directory / str(number) / str(seed),
            [tiny.compiled_phase(phase(), program, tiny.Batches(seed))],
            budgets(phase())[number],
            stop_at=stop_at,
            seed=seed,
            start=tiny.params(phase().student_config, seed),
            evaluate=trainers.bias_sum,
            trunk=trunk_of(directory, number, seed) if shared else None,
            **settings,
        )
        specs.append(spec)
    if stop_at is None:
        return train(*specs)
    with trainers.saving_last_before(stop_at), pytest.raises(trainers.Interrupted):
        train(*specs)
    return []


def check_same(actual: Outcome, alone: Outcome) -> None:
    assert actual.params_sha256 == alone.params_sha256
    for name in SAME:
        assert getattr(actual.ledger, name) == getattr(alone.ledger, name), name
    assert actual.curve == alone.curve


def steps_logged(directory: Path) -> list[dict[str, Any]]:
    """Return the figures of each step that no clock changes, without points of any curve."""
    return [line for line in metrics.same_each_time(directory) if "loss" in line]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    directory = tmp_path_factory.mktemp("alone")
    return directory, [run(directory, number, shared=False)[0] for number in range(len(STEPS))]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    directory = tmp_path_factory.mktemp("chain")
    return directory, [run(directory, number)[0] for number in range(len(STEPS))]


def test_branches_equal_the_same_runs_made_alone_bitwise(
    alone: tuple[Path, list[Outcome]], chain: tuple[Path, list[Outcome]]
) -> None:
    for number, (actual, expected) in enumerate(zip(chain[1], alone[1], strict=True)):
        check_same(actual, expected)
        assert actual.ledger.steps == STEPS[number]
        assert len(actual.curve) == 3
        lines = steps_logged(chain[0] / str(number) / "0")
        assert lines == steps_logged(alone[0] / str(number) / "0")


def test_branch_says_what_it_shares_and_its_journal_names_the_other(
    chain: tuple[Path, list[Outcome]],
) -> None:
    directory, outcomes = chain
    cost = price(phase(), tiny.SHAPE).total
    assert outcomes[0].shared is None
    for number in (1, 2):
        shared = outcomes[number].shared
        assert shared is not None
        assert (shared.study, shared.steps) == (f"study {number - 1}", TRUNKS[number - 1])
        assert shared.flops == shared.charged == TRUNKS[number - 1] * cost
        entries = journal.read(directory / str(number) / "0" / journal.NAME)
        assert [entry["event"] for entry in entries[:2]] == ["open", "branch"]
        assert entries[0]["ledger"]["phases"] == [0]
        others = journal.read(directory / str(number - 1) / "0" / journal.NAME)
        (end,) = [entry for entry in others if entry["event"] == "trunk"]
        assert end["sha256"] == shared.trunk_sha256
        assert end["ledger"]["spent"] == entries[1]["ledger"]["spent"]
    # Five, eight and fourteen steps for the price of five, four and eight.
    paid = sum(outcome.ledger.steps for outcome in outcomes) - sum(TRUNKS[:2])
    assert paid == 5 + 4 + 8


@pytest.mark.parametrize("stop_at", [7, 13])
def test_branch_resumed_after_kill_equals_the_run_alone(
    alone: tuple[Path, list[Outcome]],
    chain: tuple[Path, list[Outcome]],
    tmp_path: Path,
    stop_at: int,
) -> None:
    for number in (0, 1):
        shutil.copytree(chain[0] / str(number), tmp_path / str(number))
    run(tmp_path, 2, stop_at=stop_at)
    check_same(run(tmp_path, 2)[0], alone[1][2])


def test_trunk_of_a_run_that_was_killed_behind_it_is_whole(
    alone: tuple[Path, list[Outcome]], tmp_path: Path
) -> None:
    """The run is killed right behind its trunk's end, and does it a second time."""
    run(tmp_path, 0, stop_at=TRUNKS[0] + 1)
    for checkpoint in (tmp_path / "0" / "0" / "checkpoints").iterdir():
        if checkpoint.name.isdecimal() and int(checkpoint.name) >= TRUNKS[0]:
            shutil.rmtree(checkpoint)
    check_same(run(tmp_path, 0)[0], alone[1][0])
    events = [entry["event"] for entry in journal.read(tmp_path / "0" / "0" / journal.NAME)]
    assert events.count("trunk") == 2
    check_same(run(tmp_path, 1)[0], alone[1][1])


def test_damaged_trunk_is_said_and_the_next_smaller_is_taken(
    alone: tuple[Path, list[Outcome]], chain: tuple[Path, list[Outcome]], tmp_path: Path
) -> None:
    for number in (0, 1):
        shutil.copytree(chain[0] / str(number), tmp_path / str(number))
    (kept,) = (tmp_path / "1" / "0" / "trunk").iterdir()
    shutil.rmtree(kept / "state")
    warnings: list[str] = []
    (outcome,) = run(tmp_path, 2, warn=warnings.append)
    assert outcome.params_sha256 == alone[1][2].params_sha256
    assert outcome.shared is not None
    assert outcome.shared.steps == TRUNKS[0]
    (line,) = warnings
    assert "expected a whole checkpoint, found damaged ones alone" in line
    assert line.endswith("this run pays for the steps itself")


def test_vmapped_branches_equal_vmapped_runs_alone(tmp_path: Path) -> None:
    seeds = (0, 1)
    expected = run(tmp_path / "alone", 1, seeds, shared=False)
    run(tmp_path / "chain", 0, seeds)
    actual = run(tmp_path / "chain", 1, seeds)
    for branch, whole in zip(actual, expected, strict=True):
        check_same(branch, whole)
        assert branch.shared is not None
        assert branch.shared.steps == TRUNKS[0]


def test_trunk_steps_are_those_before_the_decay() -> None:
    opening = Ledger.open(Budget.flops(1000), upfront={"teacher_cache": 130, "mlm_probe": 100})
    for decay, cost in itertools.product((0.05, 0.3, 1.0), (7, 100, 400)):
        optimizer = OptimizerConfig(schedule="wsd", decay=decay, warmup=0.0)
        steps = (1000 - 230) // cost
        # A step that begins behind 1 - decay of the 900 that training may spend decays.
        expected = sum((130 + step * cost) / 900 <= 1 - decay for step in range(steps))
        assert trunk_steps(optimizer, opening, cost, steps) == expected


def test_warm_up_of_its_own_budget_is_the_same_under_every_budget() -> None:
    optimizer = OptimizerConfig(schedule="wsd", decay=0.2, warmup=0.3, warmup_budget=1000.0)
    for used, budget in itertools.product((7, 100, 299, 300, 301, 700), (1000, 3000, 77777)):
        before = (used - 7) / budget
        rate = learning_rate(optimizer, before, used / budget, used)
        assert rate == optimizer.learning_rate * min(used / (0.3 * 1000.0), 1.0)
        assert not has_left_peak(optimizer, before)
    # Where the decay is lower, it counts. Without the setting the share is of the run's budget.
    assert math.isclose(
        learning_rate(optimizer, 0.9, 0.95, 95.0), optimizer.learning_rate * min(95 / 300, 0.5)
    )
    own = replace(optimizer, warmup_budget=0.0)
    assert learning_rate(own, 0.1, 0.15, 1.0) == optimizer.learning_rate * 0.15 / 0.3
