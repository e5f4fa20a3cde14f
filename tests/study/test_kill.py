"""A study killed at moments of its life, one after another, or told to stop, ends as if nothing had
happened.

By SIGKILL at two moments; at thirty, of all that a study does, in `make test-all`, and there by
SIGTERM at two.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FLAGS
from tests.faults.forks import Forks, ended
from tests.study.conftest import kdjax
from tests.support import metrics, small_study

pytestmark = pytest.mark.system

WORDS = """--arms {"logit":{}} --seeds [0] --data.shard_documents 40
    --evaluation.tasks {}"""
RUN = Path("runs") / "logit-seed0"
STEPS = 27
"""Steps of a run that is killed thirty times."""
FEW_STEPS = 9
"""Steps of one that is killed twice: each is saved, which takes many times as long as the step."""
EVERY = 3
"""Steps between evaluations."""
SEED = 11


@dataclass(frozen=True)
class Snapshot:
    """The paths of a study on disk now, and those when its process started.

    Attributes:
        out: its directory.
        before: paths that were there.
        now: paths that are there.
    """

    out: Path
    before: set[str]
    now: set[str]

    @staticmethod
    def at_start(out: Path) -> Snapshot:
        return Snapshot(out, paths(out), set())

    def again(self) -> Snapshot:
        return Snapshot(self.out, self.before, paths(self.out))


def paths(out: Path) -> set[str]:
    """Return all paths below a directory, while others write there."""
    everything = set()
    for directory, directories, files in os.walk(out):
        everything |= {f"{directory}/{name}" for name in (*directories, *files)}
    return everything


@dataclass(frozen=True)
class Moment:
    """A moment to kill at.

    Attributes:
        phase: what is going on then.
        begun: whether it is, by what is on the disk.
        within: at most so many seconds later, at random.
    """

    phase: str
    begun: Callable[[Snapshot], bool]
    within: float


def started(snapshot: Snapshot) -> bool:
    return True


def new(*parts: str) -> Callable[[Snapshot], bool]:
    """Return whether something is there that was not, with all of these in its path."""

    def is_new(path: str) -> bool:
        return all(part in path for part in parts)

    return lambda snapshot: any(map(is_new, snapshot.now - snapshot.before))


def there(name: str | Path) -> Callable[[Snapshot], bool]:
    return lambda snapshot: (snapshot.out / name).exists()


def evaluating(snapshot: Snapshot) -> bool:
    """Return whether the step that an evaluation follows is on record, and that is not."""
    path = snapshot.out / RUN / "metrics.jsonl"
    if not path.exists() or not path.read_text():
        return False
    last = json.loads(path.read_text().splitlines()[-1])
    return last.get("step", 1) % EVERY == 0 and "loss" in last


def closed(snapshot: Snapshot) -> bool:
    """Return whether all steps are done, so that the evaluation at the end comes next."""
    ledger = snapshot.out / RUN / "ledger.jsonl"
    return ledger.exists() and '"event": "close"' in ledger.read_text().rstrip().splitlines()[-1]


A_SAVE = new("/runs/", "/checkpoints/", "tmp")
A_CHECKPOINT = new("/runs/", "/checkpoints/", "/commit_success.txt")
MOMENTS = [
    Moment("prepare", new("/data/shards/"), 0.0),
    *[Moment("start-up", started, 0.4)] * 5,
    Moment("head", new("/teacher.fit/"), 0.03),
    Moment("save of the head", new("/teacher.fit/checkpoints/"), 0.03),
    *[Moment("compile", there("study.json"), 1.0)] * 5,
    *[Moment("step", A_CHECKPOINT, 0.1)] * 3,
    *[Moment("save", A_SAVE, 0.02)] * 3,
    *[Moment("evaluation", evaluating, 0.05)] * 2,
    *[Moment("step", A_CHECKPOINT, 0.1)] * 2,
    *[Moment("save", A_SAVE, 0.02)] * 3,
    Moment("evaluation at the end", closed, 0.03),
    Moment("final write", there(RUN / "params.safetensors"), 0.0),
    Moment("clearing away", there(RUN / "result.json"), 0.0),
    Moment("references", there("references"), 0.03),
]
assert len(MOMENTS) == 30
FEW = [
    Moment("save", A_SAVE, 0.02),
    Moment("final write", there(RUN / "params.safetensors"), 0.0),
]


def kill_at(moment: Moment, out: Path, forks: Forks, words: list[str], seconds: float) -> None:
    """Start the command and kill it so many seconds after a moment has come."""
    snapshot = Snapshot.at_start(out)
    process = forks.start(words, out.with_name("errors"))
    limit = time.monotonic() + 120
    while not moment.begun(snapshot := snapshot.again()):
        assert not ended(process), (
            f"{moment.phase}: never seen\n{out.with_name('errors').read_text()}"
        )
        assert time.monotonic() < limit, f"{moment.phase}: waited for in vain"
        time.sleep(0.005)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    assert forks.wait() == -signal.SIGKILL, f"{moment.phase}: ended before it was killed"


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """A server of processes with one device, whose programs are compiled once."""
    flags = " ".join(flag for flag in FLAGS if "device_count" not in flag)
    with Forks({**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}) as server:
        yield server


@dataclass(frozen=True)
class Study:
    """A recipe, its run's number of steps, and the study of it that nothing disturbed."""

    recipe: Path
    steps: int
    straight: Path

    def words(self, out: Path, seconds: float) -> list[str]:
        """Return the command, with a checkpoint due every so many seconds."""
        saved = ["--train.checkpoint.seconds", str(seconds)]
        measured = ["--train.evaluations", str(self.steps // EVERY)]
        return ["compare", str(self.recipe), "--out", str(out), *WORDS.split(), *measured, *saved]

    def check_same(self, out: Path) -> None:
        """Assert that another one has ended as the undisturbed one did."""
        row = result(out)
        expected = result(self.straight)
        for name in (
            "params_sha256",
            "spent",
            "steps",
            "tokens_seen",
            "tokens_unique",
            "metrics",
            "curve",
        ):
            assert row[name] == expected[name], name
        assert metrics.same_each_time(out / RUN) == metrics.same_each_time(self.straight / RUN)
        assert kdjax("audit", out).status == 0
        assert not (out / RUN / "checkpoints").exists()


def result(out: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((out / "results.json").read_text())["runs"][0]
    return run


@pytest.fixture(scope="module", params=[STEPS])
def study(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, forks: Forks
) -> Study:
    """A study whose run takes so many steps."""
    here = tmp_path_factory.mktemp("study")
    recipe = small_study.write(here / "recipe", budget={"tokens": request.param * 8 * 16})
    new_study = Study(recipe, request.param, here / "straight")
    forks.start(new_study.words(new_study.straight, 1e9), here / "errors")
    assert forks.wait() == 0, (here / "errors").read_text()
    return new_study


@pytest.mark.parametrize(
    ("study", "moments"),
    [
        pytest.param(FEW_STEPS, FEW, id="few"),
        pytest.param(STEPS, MOMENTS, id="thirty", marks=pytest.mark.exhaustive),
    ],
    indirect=["study"],
)
def test_study_killed_repeatedly_ends_with_the_same_results(
    tmp_path: Path, forks: Forks, study: Study, moments: list[Moment]
) -> None:
    killed = tmp_path / "killed" / "out"
    killed.parent.mkdir()
    words = study.words(killed, 0)
    rng = random.Random(SEED)
    for moment in moments:
        kill_at(moment, killed, forks, words, rng.uniform(0, moment.within))
    # Left alone, it ends.
    forks.start(words, tmp_path / "errors")
    assert forks.wait() == 0, (tmp_path / "errors").read_text()
    study.check_same(killed)


@pytest.mark.exhaustive
def test_compare_on_sigterm_exits_75_and_resumes(
    tmp_path: Path, forks: Forks, study: Study
) -> None:
    """Each process's own part in this is tested in tests/faults/test_sigterm.py."""
    stopped = tmp_path / "stopped"
    errors = tmp_path / "errors"
    words = study.words(stopped, 1e9)
    for sign, message in (
        (
            stopped / "data" / "preparation.json",
            # On a machine that is busy the signal may come as late as in training.
            r"kdjax: told to stop; (nothing is lost|saved at step \d+); the same command",
        ),
        (stopped / RUN / "metrics.jsonl", r"kdjax: told to stop; saved at step \d+"),
    ):
        process = forks.start(words, errors)
        while not sign.exists():
            assert not ended(process), f"{sign}: never seen\n{errors.read_text()}"
            time.sleep(0.002)
        os.kill(process, signal.SIGTERM)
        assert forks.wait() == 75, errors.read_text()
        assert re.match(message, errors.read_text().splitlines()[-1])
        assert "Traceback" not in errors.read_text()
    forks.start(words, errors)
    assert forks.wait() == 0, errors.read_text()
    study.check_same(stopped)
