"""A study killed with SIGKILL at moments of its life, one after another, ends as if nothing had happened.

Four moments by default; thirty, of all that a study does, in `make test-all`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import metrics, small_study
from tests.conftest import FLAGS
from tests.faults.forks import Forks, ended
from tests.study.conftest import kdjax

WORDS = """--arms {"logit":{}} --seeds [0] --data.shard_documents 40
    --train.checkpoint.seconds 0 --train.evaluations 9 --evaluation.tasks {}"""
RUN = Path("runs") / "logit-seed0"
STEPS = 27
EVERY = 3
"""Steps between evaluations."""
SEED = 11


@dataclass(frozen=True)
class Seen:
    """What is on the disk of a study now, and what was when its process started.

    Attributes:
        out: its directory.
        before: paths that were there.
        now: paths that are there.
    """

    out: Path
    before: set[str]
    now: set[str]

    @staticmethod
    def at_start(out: Path) -> Seen:
        return Seen(out, paths(out), set())

    def again(self) -> Seen:
        return Seen(self.out, self.before, paths(self.out))


def paths(out: Path) -> set[str]:
    """All below a directory, while others write there."""
    return {f"{place}/{name}" for place, inner, files in os.walk(out) for name in (*inner, *files)}


@dataclass(frozen=True)
class Moment:
    """When to kill.

    Attributes:
        phase: what is going on then.
        begun: whether it is, by what is on the disk.
        within: at most so many seconds later, at random.
    """

    phase: str
    begun: Callable[[Seen], bool]
    within: float


def started(seen: Seen) -> bool:
    return True


def new(*parts: str) -> Callable[[Seen], bool]:
    """Something is there that was not, with all of these in its path."""
    return lambda seen: any(all(part in path for part in parts) for path in seen.now - seen.before)


def there(name: str | Path) -> Callable[[Seen], bool]:
    return lambda seen: (seen.out / name).exists()


def evaluating(seen: Seen) -> bool:
    """The step that an evaluation follows is on record, and the evaluation is not."""
    found = (seen.out / RUN / "metrics.jsonl").read_text().splitlines() if there(RUN / "metrics.jsonl")(seen) else []
    last = json.loads(found[-1]) if found else {}
    return last.get("step", 1) % EVERY == 0 and "loss" in last


def closed(seen: Seen) -> bool:
    """All steps are done; what comes is the evaluation at the end."""
    ledger = seen.out / RUN / "ledger.jsonl"
    return ledger.exists() and '"event": "close"' in ledger.read_text().rstrip().splitlines()[-1]


A_SAVE, A_CHECKPOINT = new("/runs/", "/checkpoints/", "tmp"), new("/runs/", "/checkpoints/", "/commit_success.txt")
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
    Moment("save of the head", new("/teacher.fit/checkpoints/"), 0.03),
    Moment("save", A_SAVE, 0.02),
    Moment("evaluation", evaluating, 0.05),
    Moment("final write", there(RUN / "params.safetensors"), 0.0),
]


def kill_at(moment: Moment, out: Path, forks: Forks, words: list[str], seconds: float) -> None:
    """Starts the command and kills it so many seconds after a moment has come."""
    seen = Seen.at_start(out)
    process = forks.start(words, out.with_name("errors"))
    limit = time.monotonic() + 120
    while not moment.begun(seen := seen.again()):
        assert not ended(process), f"{moment.phase}: never seen\n{out.with_name('errors').read_text()}"
        assert time.monotonic() < limit, f"{moment.phase}: waited for in vain"
        time.sleep(0.005)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    assert forks.wait() == -signal.SIGKILL, f"{moment.phase}: ended before it was killed"


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """One device, and programs compiled once."""
    flags = " ".join(flag for flag in FLAGS if "device_count" not in flag)
    with Forks({**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}) as made:
        yield made


def result(out: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((out / "results.json").read_text())["runs"][0]
    return run


@pytest.mark.parametrize(
    "moments", [pytest.param(FEW, id="few"), pytest.param(MOMENTS, id="thirty", marks=pytest.mark.exhaustive)]
)
def test_kills_change_nothing(tmp_path: Path, forks: Forks, moments: list[Moment]) -> None:
    models = small_study.shallow(tmp_path / "shallow")
    recipe = small_study.write(tmp_path / "recipe", budget={"tokens": STEPS * 8 * 16}, **models)
    straight, killed = tmp_path / "straight", tmp_path / "killed" / "out"
    killed.parent.mkdir()

    def words(out: Path) -> list[str]:
        return ["compare", str(recipe), "--out", str(out), *WORDS.split()]

    forks.start(words(straight), tmp_path / "errors")
    assert forks.wait() == 0, (tmp_path / "errors").read_text()

    rng = random.Random(SEED)
    for moment in moments:
        kill_at(moment, killed, forks, words(killed), rng.uniform(0, moment.within))
    forks.start(words(killed), tmp_path / "errors")
    assert forks.wait() == 0, (tmp_path / "errors").read_text()

    found, expected = result(killed), result(straight)
    for name in ("params_sha256", "spent", "steps", "tokens_seen", "tokens_unique", "metrics", "curve"):
        assert found[name] == expected[name], name
    assert metrics.same_each_time(killed / RUN) == metrics.same_each_time(straight / RUN)
    assert kdjax("audit", killed).status == 0
    assert not (killed / RUN / "checkpoints").exists()
