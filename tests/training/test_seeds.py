"""Seeds side by side as one program: the results, accounts and files of runs alone, however they
are interrupted."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.budget import journal
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.config import CheckpointConfig, LogConfig, ModelConfig
from kdjax.errors import InputError
from kdjax.parallel.layout import Layout
from kdjax.progress import Progress
from kdjax.training.checksum import sha256
from kdjax.training.outcome import Outcome
from kdjax.training.phase import Phase
from kdjax.training.phase_price import price
from kdjax.training.program import Program, program_of
from kdjax.training.snapshots import Snapshots
from kdjax.training.train import train
from tests.support import metrics, tiny, trainers
from tests.support.tolerance import assert_metrics_equal, assert_updates_equal

SEEDS = (0, 1, 2)
STEPS = 6
EXACT = ("spent", "steps_by_phase", "padded_tokens", "tokens", "unique_tokens", "masked_tokens")
STUDENT = tiny.SHALLOW_STUDENT
LEARNING_RATE = 1e-2
SUMMANDS = tiny.SHAPE.batch_size * tiny.SHAPE.seq_len
"""Tokens of a batch."""
STAGES = 20 * STEPS
"""Matmuls and sums one after another, 20 a step."""
# Distributions over the vocabulary
PARTS = {
    **dict.fromkeys(("logit", "loss/logit"), math.log(tiny.VOCABULARY)),
    "mlm_loss": tiny.VOCABULARY
    * STEPS
    * LEARNING_RATE,  # of biases; Adam moves each by the learning rate at most
}
"""Sizes of what these figures are differences of."""


def beginning(student: ModelConfig, seed: int) -> Any:
    """Make the student as it is before its first step."""
    return tiny.spread(tiny.params(student, seed))


def teacher_params() -> Any:
    return tiny.spread(tiny.params(tiny.SHALLOW_TEACHER, 9))


@functools.cache
def phase() -> Phase:
    """Make a phase that distils, with dropout."""
    return tiny.phase("logit", dataclasses.replace(STUDENT, dropout=0.1), tiny.SHALLOW_TEACHER)


def compiled(
    seeds: int, of: Phase | None = None, devices: int = 1, grad_accum_steps: int = 1
) -> Program:
    layout = Layout.from_config(devices=jax.devices()[:devices])
    return program_of(of or phase(), tiny.SHAPE, layout, grad_accum_steps, lanes=seeds)


def go(
    directory: Path,
    seeds: Sequence[int],
    *,
    watch: Callable[[int, Progress], None] = lambda seed, progress: None,
    starts: Callable[[int], Any] = lambda seed: beginning(phase().student_config, seed),
    budget: Budget | None = None,
    log: LogConfig = LogConfig(every=1, tensorboard=False),
    saves: float = tiny.AT_THE_END,
    snapshots: Callable[[int], Snapshots | None] = lambda seed: None,
) -> dict[int, Outcome]:
    """Train runs of these seeds side by side, each in a directory of its name."""
    program = compiled(len(seeds))
    teacher = program.place_teacher(teacher_params())
    # Each seed has its own stream, start and directory, and they share program and teacher.
    specs = []
    for seed in seeds:
        stream = tiny.Batches(seed)
        spec = trainers.run_spec(
            directory / str(seed),
            [tiny.compiled_phase(phase(), program, stream, teacher)],
            budget or Budget.flops(STEPS * price(phase(), tiny.SHAPE).total),
            start=starts(seed),
            seed=seed,
            checkpoint=CheckpointConfig(seconds=saves),
            log=log,
            evaluate=trainers.bias_sum,
            watch=functools.partial(watch, seed),
            snapshots=snapshots(seed),
        )
        specs.append(spec)
    return dict(zip(seeds, train(*specs), strict=True))


def stop(directory: Path, seeds: Sequence[int], seed: int, step: int) -> None:
    """Train runs side by side, and end all when a seed has done a step; by then all have begun the
    next one."""

    def watch(of: int, progress: Progress) -> None:
        if (of, progress.ledger.steps) == (seed, step):
            raise trainers.Interrupted

    with trainers.saving_last_before(step), pytest.raises(trainers.Interrupted):
        go(directory, seeds, watch=watch)


def check_figures(actual: Mapping[str, float], expected: Mapping[str, float]) -> None:
    assert_metrics_equal(actual, expected, summands=SUMMANDS, stages=STAGES, parts=PARTS)


def check_params(actual: Any, expected: Any, start: Any) -> None:
    assert_updates_equal(actual, expected, start, summands=SUMMANDS, stages=STAGES)


def check_same(
    actual: Outcome, expected: Outcome, directory: Path, expected_directory: Path, seed: int
) -> None:
    """Assert the same account to the token, and within rounding the same figures of every step,
    curve and parameters."""
    # Accounts are integers, and equal.
    for name in EXACT:
        assert getattr(actual.ledger, name) == getattr(expected.ledger, name), name
    # Figures line by line, within what another order of sums may change.
    lines = metrics.same_each_time(directory)
    wanted = metrics.same_each_time(expected_directory)
    assert [line.keys() for line in lines] == [line.keys() for line in wanted]
    for line, other in zip(lines, wanted, strict=True):
        check_figures(line, other)
    # Evaluations fall on the same steps.
    assert [point["step"] for point in actual.curve] == [point["step"] for point in expected.curve]
    check_params(actual.params, expected.params, beginning(phase().student_config, seed))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seeds")


@pytest.fixture(scope="module")
def alone(here: Path) -> dict[int, Outcome]:
    return {seed: go(here / "alone", [seed])[seed] for seed in SEEDS}


@pytest.fixture(scope="module")
def together(here: Path) -> dict[int, Outcome]:
    return go(here / "together", SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_vmapped_run_equals_run_alone(
    here: Path, alone: dict[int, Outcome], together: dict[int, Outcome], seed: int
) -> None:
    check_same(
        together[seed], alone[seed], here / "together" / str(seed), here / "alone" / str(seed), seed
    )
    assert (alone[seed].side_by_side, together[seed].side_by_side) == (1, len(SEEDS))
    # The journal notes how many ran together, and ends like that of a run alone.
    entries = journal.read(here / "together" / str(seed) / journal.NAME)
    assert entries[0]["side_by_side"] == len(SEEDS)
    assert entries[-1]["sha256"] == together[seed].journal_sha256
    assert together[seed].params_sha256 == sha256(together[seed].params)


def test_vmapped_seeds_end_with_params_and_tokens_of_their_own(
    together: dict[int, Outcome],
) -> None:
    # Else lanes were given each other's batches or starts.
    assert len({outcome.params_sha256 for outcome in together.values()}) == len(SEEDS)
    assert len({outcome.ledger.tokens for outcome in together.values()}) == len(SEEDS)


def test_vmapped_snapshot_is_of_the_seeds_own_step_and_lane(
    together: dict[int, Outcome], tmp_path: Path
) -> None:
    kept: dict[tuple[int, int], tuple[int, str]] = {}

    def snapshots(seed: int) -> Snapshots:
        def keep(words: int, params: Any, ledger: Ledger) -> None:
            kept[seed, words] = (ledger.steps, sha256(params))

        # The end of the run, and of its third step by its own tokens
        third = sum(int(tiny.batch(1000 * seed + step)["valid"].sum()) for step in range(3))
        return Snapshots((third, together[seed].ledger.tokens), lambda tokens: tokens, keep)

    go(tmp_path, SEEDS, snapshots=snapshots)
    assert len(kept) == 2 * len(SEEDS)
    assert [step for step, _ in kept.values()].count(3) == len(SEEDS)
    for seed in SEEDS:
        last = kept[seed, together[seed].ledger.tokens]
        assert last == (STEPS, together[seed].params_sha256)


def test_vmapped_runs_share_time_evenly(together: dict[int, Outcome]) -> None:
    # The program is compiled once for all: each is charged its share.
    spent = [outcome.ledger.seconds for outcome in together.values()]
    assert sum(seconds["compile"] for seconds in spent) == pytest.approx(
        compiled(len(SEEDS)).compile_seconds
    )
    for kind in ("input", "compute"):
        assert [seconds[kind] for seconds in spent] == pytest.approx(
            [spent[0][kind]] * len(SEEDS), rel=0.1
        )


@pytest.mark.parametrize(
    ("seed", "step"), [(0, 2), pytest.param(2, STEPS, marks=pytest.mark.exhaustive)]
)
def test_vmapped_resume_keeps_params_bitwise(
    here: Path, together: dict[int, Outcome], tmp_path: Path, seed: int, step: int
) -> None:
    stop(tmp_path, SEEDS, seed, step)
    # The second call finds checkpoints of all three and goes on from them.
    again = go(tmp_path, SEEDS)
    for each in SEEDS:
        assert again[each].params_sha256 == together[each].params_sha256
        assert again[each].ledger.spent == together[each].ledger.spent
        assert again[each].curve == together[each].curve
        lines = metrics.same_each_time(tmp_path / str(each))
        assert lines == metrics.same_each_time(here / "together" / str(each))


def test_vmapped_resume_at_different_steps_keeps_params_bitwise(
    together: dict[int, Outcome], tmp_path: Path
) -> None:
    """The process was killed, as it were, while the checkpoints were being written: one of three
    was not."""
    stop(tmp_path, SEEDS, 0, 4)
    # One seed falls back to its checkpoint before, and trains by itself until it has caught up.
    newest = max((tmp_path / "1" / "checkpoints").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(newest)
    again = go(tmp_path, SEEDS)
    assert [again[seed].side_by_side for seed in SEEDS] == [2, 1, 2]
    for seed in SEEDS:
        assert again[seed].params_sha256 == together[seed].params_sha256
        assert again[seed].ledger.spent == together[seed].ledger.spent


def test_vmapped_resume_beside_finished_runs_keeps_params_bitwise(
    together: dict[int, Outcome], here: Path, tmp_path: Path
) -> None:
    """The process was killed, as it were, while the last checkpoints were being written: one of
    three was not."""
    stop(tmp_path, SEEDS, 0, STEPS)
    # Two have finished; only the third lost its last checkpoint.
    for seed in (0, 2):
        shutil.rmtree(tmp_path / str(seed))
        shutil.copytree(here / "together" / str(seed), tmp_path / str(seed))
    again = go(tmp_path, SEEDS)
    assert [again[seed].side_by_side for seed in SEEDS] == [2, 1, 2]
    for seed in SEEDS:
        assert again[seed].params_sha256 == together[seed].params_sha256


def test_vmapped_resume_with_other_lanes_equals_run_alone(
    here: Path, alone: dict[int, Outcome], tmp_path: Path
) -> None:
    """One runs alone from the start; then all together; then one of them alone and the others
    together."""
    stop(tmp_path, [0], 0, 3)
    stop(tmp_path, SEEDS, 2, 2)  # 1 and 2 are behind
    # Each goes on from a step of its own.
    ended = go(tmp_path, [1]) | go(tmp_path, [0]) | go(tmp_path, [2])
    for seed in SEEDS:
        check_same(ended[seed], alone[seed], tmp_path / str(seed), here / "alone" / str(seed), seed)
    # The journal of the third seed has both ways it was run.
    entries = journal.read(tmp_path / "2" / journal.NAME)
    assert [entry["side_by_side"] for entry in entries if "side_by_side" in entry] == [2, 1]


def starts_of_nan_for(*diverging: int) -> Callable[[int], Any]:
    """Return the starts of seeds; that of some is NaN."""

    def start(seed: int) -> Any:
        params = beginning(phase().student_config, seed)
        if seed in diverging:
            return jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), params)
        return params

    return start


def test_vmapped_divergence_is_outcome_of_its_run_and_others_go_on(
    together: dict[int, Outcome], tmp_path: Path
) -> None:
    outcomes = go(tmp_path, SEEDS, starts=starts_of_nan_for(1))
    # What is in one lane never reaches another.
    for seed in (0, 2):
        assert outcomes[seed].diverged is None
        assert outcomes[seed].params_sha256 == together[seed].params_sha256
    diverged = outcomes[1]
    assert re.search(
        r"/1: the loss is nan at step 1, expected a finite one", diverged.diverged or ""
    )
    assert diverged.ledger.steps == 1
    assert diverged.params is None
    assert diverged.params_sha256 is None
    entries = journal.read(tmp_path / "1" / journal.NAME)
    assert [entry["event"] for entry in entries] == ["open", "diverged"]
    assert entries[-1]["sha256"] == diverged.journal_sha256


def test_vmapped_runs_that_all_diverge_end_with_their_outcomes(tmp_path: Path) -> None:
    outcomes = go(tmp_path, SEEDS, starts=starts_of_nan_for(*SEEDS))
    assert [outcomes[seed].ledger.steps for seed in SEEDS] == [1] * len(SEEDS)
    assert all(outcome.diverged for outcome in outcomes.values())


def test_vmapped_budget_of_hours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="3 runs side by side under a budget of hours, expected one"
    ):
        go(tmp_path, SEEDS, budget=Budget("hours", 1.0, clock=("compute",)))


def test_vmapped_profile_lies_with_first_run(tmp_path: Path) -> None:
    go(tmp_path, SEEDS, log=LogConfig(tensorboard=False, profile=(2, 3)))
    # One trace holds the program of all lanes.
    assert [(tmp_path / str(seed) / "profile").exists() for seed in SEEDS] == [True, False, False]


@functools.cache
def stepped(
    name: str, seeds: int, first: int, devices: int, grad_accum_steps: int
) -> tuple[list[Any], list[Any]]:
    """Return parameters and metrics of seeds after two steps."""
    of = tiny.phase(name, STUDENT, tiny.SHALLOW_TEACHER)
    program = compiled(seeds, of, devices, grad_accum_steps)
    # The seeds from `first` on, one a lane.
    chosen = range(first, first + seeds)
    teacher = program.place_teacher(teacher_params() if of.teacher_config else None)
    states = program.stack([program.start(beginning(STUDENT, seed), seed) for seed in chosen])
    for step in range(2):
        batches = program.place(
            program.stack_batches([tiny.batch(10 * seed + step) for seed in chosen])
        )
        states, figures = program.step(states, teacher, batches, tiny.schedule_inputs(of, step, 5))
    params = [jax.device_get(program.unstack(states, number).params) for number in range(seeds)]
    # Figures of a step are arrays over lanes.
    by_lane = []
    for lane in range(seeds):
        by_lane.append({name: float(np.ravel(each)[lane]) for name, each in figures.items()})
    return params, by_lane


@pytest.mark.parametrize(
    ("name", "devices", "grad_accum_steps"),
    [("logit", 2, 2), pytest.param("scratch", 1, 1, marks=pytest.mark.exhaustive)],
)
def test_vmapped_step_equals_step_alone(name: str, devices: int, grad_accum_steps: int) -> None:
    params, figures = stepped(name, 2, 0, devices, grad_accum_steps)
    for seed in range(2):
        expected, wanted = stepped(name, 1, seed, devices, grad_accum_steps)
        check_figures(figures[seed], wanted[0])
        check_params(params[seed]["model"], expected[0]["model"], beginning(STUDENT, seed))


def test_tolerance_tells_a_seed_from_another_and_a_wrong_scale_from_rounding() -> None:
    """Wrong lanes are given each other's batches, or share one normaliser."""
    # The tolerance must refuse what a real fault would do: lanes exchanged, or a figure halved.
    params, figures = stepped("logit", 2, 0, 2, 2)
    with pytest.raises(AssertionError, match="logit"):
        check_figures(figures[0], figures[1])
    with pytest.raises(AssertionError, match="of their norm"):
        check_params(params[0]["model"], params[1]["model"], beginning(STUDENT, 0))
    for name, value in figures[0].items():
        with pytest.raises(AssertionError, match=name):
            check_figures({**figures[0], name: value / 2}, figures[0])


def test_vmapped_program_holds_teacher_once() -> None:
    single = compiled(1)
    three = compiled(3)
    assert single.memory is not None
    assert three.memory is not None
    # Three runs have three states and batches, and one teacher between them.
    held = sum(
        math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(phase().abstract_teacher())
    )
    assert three.memory["arguments"] == pytest.approx(
        3 * single.memory["arguments"] - 2 * held, rel=0.01
    )


def test_vmapped_hardware_flops_are_of_one_run() -> None:
    single = compiled(1, tiny.phase("scratch", STUDENT)).hardware_flops
    # Hardware FLOPs are counted a run, as prices are.
    two = compiled(2, tiny.phase("scratch", STUDENT)).hardware_flops
    assert two == pytest.approx(single, rel=0.15)  # of models so narrow, elementwise work is half
