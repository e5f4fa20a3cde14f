"""One run: it spends to the budget, and an interruption changes nothing."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest

from kdjax.budget.accounting import Budget
from kdjax.budget.journal import read
from kdjax.budget.ledger import Ledger
from kdjax.errors import Diverged, InputError
from kdjax.parallel.layout import Layout
from kdjax.storage.typed_json import to_plain
from kdjax.training import stopwatch
from kdjax.training.checksum import sha256
from kdjax.training.outcome import Outcome
from kdjax.training.phase import Phase
from kdjax.training.phase_price import price
from kdjax.training.program import Program
from kdjax.training.snapshots import Snapshots
from tests.support import metrics, tiny, trainers

STEPS = 6
LEARNING_RATE = 1e-2


@functools.cache
def phase(learning_rate: float = LEARNING_RATE) -> Phase:
    """Make the logit arm's phase, with dropout."""
    student = dataclasses.replace(tiny.SHALLOW_STUDENT, dropout=0.1)
    return tiny.phase("logit", student, tiny.SHALLOW_TEACHER, learning_rate=learning_rate)


@functools.cache
def compiled() -> Program:
    """Compile the phase; one program serves every learning rate."""
    return Program(phase(), tiny.SHAPE, Layout.from_config(devices=jax.devices()[:1]))


def run(
    directory: Path,
    stop_at: int | None = None,
    learning_rate: float = LEARNING_RATE,
    budget: Budget | None = None,
    stream: tiny.Batches | None = None,
    repeats: bool = True,
    **settings: Any,
) -> Outcome:
    """Train a run, which may be interrupted after a step."""
    program = compiled()
    # The budget ends half a step after the last whole one, which must not be taken.
    cost = price(phase(), tiny.SHAPE).total
    teacher = program.place_teacher(tiny.params(tiny.SHALLOW_TEACHER, 9))
    stream = stream or tiny.Batches()
    return trainers.train_one(
        directory,
        [tiny.compiled_phase(phase(learning_rate), program, stream, teacher)],
        budget or Budget.flops(STEPS * cost + cost // 2),
        stop_at=stop_at,
        repeats=repeats,
        evaluate=trainers.bias_sum,
        **settings,
    )


class Straight(NamedTuple):
    """A run that nothing interrupted."""

    outcome: Outcome
    directory: Path


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Straight:
    here = tmp_path_factory.mktemp("straight")
    return Straight(run(here), here)


def test_run_spends_to_budget_and_logs_curve(straight: Straight) -> None:
    outcome = straight.outcome
    assert outcome.ledger.steps == STEPS
    # What remains does not buy another step.
    assert 0 <= outcome.ledger.remaining < outcome.ledger.charged_flops / STEPS
    # The first step beyond a third, and so on; the last
    assert [point["step"] for point in outcome.curve] == [
        3,
        5,
        6,
    ]
    # The curve ends where the run does, at all that was spent.
    assert outcome.curve[-1]["flops"] == outcome.ledger.charged_flops
    lines = metrics.lines(straight.directory)
    # Each step is logged once.
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    assert {"loss/mlm", "loss/logit", "grad_norm"} <= lines[0].keys()


@pytest.mark.parametrize("stop_at", [1, 3, 4, STEPS])
def test_resume_after_kill_keeps_params_bitwise(
    straight: Straight, tmp_path: Path, stop_at: int
) -> None:
    expected = straight.outcome
    with pytest.raises(trainers.Interrupted):
        run(tmp_path, stop_at)
    resumed = run(tmp_path)
    assert resumed.params_sha256 == expected.params_sha256
    # Every account, figure and logged line is as if nothing had happened.
    assert resumed.ledger.spent == expected.ledger.spent
    assert (resumed.ledger.tokens, resumed.ledger.unique_tokens) == (
        expected.ledger.tokens,
        expected.ledger.unique_tokens,
    )
    assert resumed.curve == expected.curve
    assert metrics.same_each_time(tmp_path) == metrics.same_each_time(straight.directory)


def test_finished_run_takes_no_step_again(straight: Straight, tmp_path: Path) -> None:
    shutil.copytree(straight.directory, tmp_path / "run")
    again = run(tmp_path / "run", stop_at=1)  # would raise if any step were taken
    assert again.params_sha256 == straight.outcome.params_sha256


def test_run_in_relative_directory_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(trainers.Interrupted):
        run(Path("run"), stop_at=5)
    assert run(Path("run")).ledger.steps == STEPS


def test_unique_tokens_stop_growing_when_corpus_repeats(straight: Straight) -> None:
    outcome = straight.outcome  # 6 steps of 8 sequences; the corpus has 40
    # The sixth batch begins the corpus again.
    counts = [tiny.batch(step)["valid"].sum() for step in range(STEPS)]
    assert outcome.ledger.tokens == sum(counts)
    assert outcome.ledger.unique_tokens == sum(counts[:5])


def test_checkpoint_holds_no_teacher(straight: Straight) -> None:
    # Shapes tell the models apart: the student's and the teacher's widths differ.
    checkpoint = max((straight.directory / "checkpoints").iterdir(), key=lambda p: int(p.name))
    shapes = json.loads((checkpoint / "state" / "_METADATA").read_text())["tree_metadata"]
    stored = {tuple(leaf["value_metadata"].get("write_shape", ())) for leaf in shapes.values()}
    assert (tiny.VOCABULARY, tiny.STUDENT.width) in stored
    assert (tiny.VOCABULARY, tiny.TEACHER.width) not in stored


def test_run_whose_loss_is_not_finite_ends_as_diverged_at_that_step(tmp_path: Path) -> None:
    outcome = run(tmp_path, learning_rate=1e30)
    step = outcome.ledger.steps
    assert f"the loss is nan at step {step}, expected a finite one" in (outcome.diverged or "")
    # The steps until then are charged, and no more.
    assert outcome.ledger.charged_flops == step * price(phase(), tiny.SHAPE).total
    assert [line["step"] for line in metrics.lines(tmp_path)] == list(range(1, step))
    with pytest.raises(Diverged, match=f"nan at step {step}"):
        outcome.require_finite()


class Keeper:
    """Keeps what a run's snapshots are, by the number of words; three tokens are a word."""

    def __init__(self, *words: int) -> None:
        self.kept: dict[int, tuple[int, str]] = {}
        self.snapshots = Snapshots(words, lambda tokens: tokens // 3, self.keep)

    def keep(self, words: int, params: Any, ledger: Ledger) -> None:
        self.kept[words] = (ledger.steps, sha256(params))


def words_after(step: int, seed: int = 0) -> int:
    """Count the words of a seed's first steps by the batches themselves."""
    batches = [tiny.batch(1000 * seed + number) for number in range(step)]
    return sum(int(batch["valid"].sum()) for batch in batches) // 3


def test_student_is_kept_at_first_step_with_as_many_words(
    straight: Straight, tmp_path: Path
) -> None:
    # Two within the second step, exactly the words of the fourth, all of the run's, and beyond.
    second = words_after(1) + 1
    last = words_after(STEPS)
    keeper = Keeper(second, second + 1, words_after(4), last, last + 1)
    outcome = run(tmp_path, snapshots=keeper.snapshots)
    steps = {words: step for words, (step, _) in keeper.kept.items()}
    assert steps == {second: 2, second + 1: 2, words_after(4): 4, last: STEPS}
    assert keeper.kept[last][1] == outcome.params_sha256 == straight.outcome.params_sha256
    assert len({params for _, params in keeper.kept.values()}) == 3


def test_resume_after_kill_keeps_the_same_snapshots(tmp_path: Path) -> None:
    words = (words_after(2), words_after(3), words_after(5))
    straight = Keeper(*words)
    run(tmp_path / "straight", snapshots=straight.snapshots)
    keeper = Keeper(*words)
    with pytest.raises(trainers.Interrupted):
        run(tmp_path / "broken", 4, snapshots=keeper.snapshots)
    # Whatever the kill undid, no checkpoint is behind a snapshot that is missing.
    assert keeper.kept.keys() >= set(words[:2])
    run(tmp_path / "broken", snapshots=keeper.snapshots)
    assert keeper.kept == straight.kept


def test_step_whose_loss_is_not_finite_leaves_no_snapshot(tmp_path: Path) -> None:
    keeper = Keeper(*range(1, words_after(STEPS)))
    outcome = run(tmp_path, learning_rate=1e30, snapshots=keeper.snapshots)
    diverged_at = outcome.ledger.steps
    assert max(step for step, _ in keeper.kept.values()) == diverged_at - 1


def test_budget_of_tokens_counts_positions_and_charges_flops(tmp_path: Path) -> None:
    outcome = run(tmp_path, budget=Budget("tokens", 4 * tiny.SHAPE.tokens_per_step + 1))
    # A token budget ends in a whole step, and FLOPs are charged beside it.
    assert outcome.ledger.steps == 4
    assert outcome.ledger.used == outcome.ledger.padded_tokens == 4 * tiny.SHAPE.tokens_per_step
    assert outcome.ledger.charged_flops == 4 * price(phase(), tiny.SHAPE).total
    assert outcome.ledger.masked_tokens == sum(
        int((tiny.batch(s)["label_weights"] > 0).sum()) for s in range(4)
    )


class SlowBatches(tiny.Batches):
    """Batches that take a second, by the patched clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def iterate(self, seen: int, rows: Any = slice(None)) -> Any:
        for numbered in super().iterate(seen, rows):
            self._clock.now += 1.0
            yield numbered


class Clock:
    """Time that passes only when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    compiled()  # by the real clock
    # The loop reads this clock only from here on: compiling has been paid by the real one.
    fake_clock = Clock()
    monkeypatch.setattr(stopwatch.time, "perf_counter", fake_clock)
    return fake_clock


HOURS = Budget("hours", 6.5 / 3600, clock=("input", "compute"))


def test_budget_of_hours_ends_run_and_schedule_by_clock(tmp_path: Path, clock: Clock) -> None:
    outcome = run(tmp_path, budget=HOURS, stream=SlowBatches(clock))
    # Six of 6.5 seconds: half a second does not pay another step.
    assert outcome.ledger.steps == 6
    assert outcome.ledger.seconds["input"] == 6.0
    assert outcome.ledger.used * 3600 == pytest.approx(6.0)
    assert [point["share"] for point in outcome.curve] == pytest.approx([3 / 6.5, 5 / 6.5, 6 / 6.5])


def test_resume_under_hours_keeps_elapsed_time_and_params_bitwise(
    tmp_path: Path, clock: Clock
) -> None:
    straight = run(tmp_path / "straight", budget=HOURS, stream=SlowBatches(clock))
    with pytest.raises(trainers.Interrupted):
        run(tmp_path / "broken", 4, budget=HOURS, stream=SlowBatches(clock))
    clock.now += 1000.0  # nobody computes
    resumed = run(tmp_path / "broken", budget=HOURS, stream=SlowBatches(clock))
    # Every step again at the same share of the budget
    assert resumed.params_sha256 == straight.params_sha256
    assert resumed.ledger.seconds["input"] == straight.ledger.seconds["input"]


def test_compiling_counts_when_clock_names_it(tmp_path: Path, clock: Clock) -> None:
    seconds = compiled().compile_seconds
    # Compiling leaves two and a half steps' worth of the budget.
    budget = Budget("hours", (seconds + 2.5) / 3600, clock=("input", "compute", "compile"))
    outcome = run(tmp_path, budget=budget, stream=SlowBatches(clock))
    assert outcome.ledger.steps == 2
    assert outcome.ledger.seconds["compile"] == pytest.approx(seconds)


def test_hours_shorter_than_compiling_are_refused(tmp_path: Path) -> None:
    budget = Budget("hours", compiled().compile_seconds / 7200, clock=("compute", "compile"))
    with pytest.raises(
        InputError,
        match=r"budget.hours is \S+, expected more than the \S+ hours that compiling took",
    ):
        run(tmp_path, budget=budget)


def test_repeating_text_is_refused_under_unlimited_regime(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"step 6 would repeat text, expected none under data.regime 'unlimited'"
    ):
        run(tmp_path, repeats=False)  # 6 steps of 8 sequences; the corpus has 40


def test_journal_has_restart_and_ends_with_result(tmp_path: Path) -> None:
    with pytest.raises(trainers.Interrupted):
        run(tmp_path, stop_at=4)
    # The newest checkpoint is lost, so that the restart has steps to repeat.
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda p: int(p.name))
    shutil.rmtree(newest)  # as if killed before it was whole
    outcome = run(tmp_path)
    entries = read(tmp_path / "ledger.jsonl")
    # The journal opens, breaks off once, and closes.
    events = [entry["event"] for entry in entries]
    assert events[0] == "open"
    assert events[-1] == "close"
    assert events.count("restart") == 1
    restart = entries[events.index("restart")]
    # The lost steps are those since the checkpoint that is left.
    assert restart["lost_steps"] == 3 - restart["ledger"]["phases"][0] > 0
    # The last entry binds result and journal together.
    assert entries[-1]["params_sha256"] == outcome.params_sha256
    assert entries[-1]["sha256"] == outcome.journal_sha256
    assert entries[-1]["ledger"]["spent"] == outcome.ledger.spent
    assert entries[0]["prices"] == [to_plain(price(phase(), tiny.SHAPE))]
