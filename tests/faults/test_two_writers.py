"""Two commands that want the same place: the second is refused at once and changes nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kdjax.storage import locks
from kdjax.storage.files import LOCK
from tests.conftest import FLAGS
from tests.faults.forks import Forks, ended
from tests.study.conftest import Ended, kdjax
from tests.support import small_study

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn")]

RUN = Path("runs") / "scratch-seed0"


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    flags = " ".join(flag for flag in FLAGS if "device_count" not in flag)
    with Forks({**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}) as server:
        yield server


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one run, which a process that is stopped in it does not end."""
    return small_study.write(
        tmp_path_factory.mktemp("recipe"),
        arms={"scratch": {}},
        seeds=[0],
        budget={"tokens": 80 * 8 * 16},
        evaluation={"mlm_sequences": 16, "tasks": {}},
    )


def stopped_at_work(forks: Forks, words: Sequence[str], sign: Path) -> int:
    """Start a command, halt its process once a file is there, and return its number."""
    errors = sign.parents[3] / "errors"
    process = forks.start(words, errors)
    limit = time.monotonic() + 60
    while not (sign.exists() and sign.stat().st_size):
        assert not ended(process) and time.monotonic() < limit, errors.read_text()
        time.sleep(0.005)
    os.kill(process, signal.SIGSTOP)
    return process


def contents(directory: Path) -> dict[str, bytes]:
    """Return the files that a command which is refused may not touch."""
    paths = [directory / "study.json", directory / RUN / "manifest.json"]
    paths += sorted((directory / "data").rglob("*"))
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


def check_refused(ended: Ended, place: Path, process: int) -> None:
    assert ended.status == 2 and "Traceback" not in ended.err
    line = ended.err.strip().splitlines()[-1]
    assert line.startswith(f"kdjax: {place}: process {process} on host {os.uname().nodename} has")


def test_second_command_is_refused_and_the_first_ends_as_if_alone(
    tmp_path: Path, forks: Forks, recipe: Path
) -> None:
    out = tmp_path / "first" / "out"
    kept = tmp_path / "kept"
    out.parent.mkdir()
    words = ["compare", str(recipe), "--out", str(out), "--train.checkpoint.directory", str(kept)]
    process = stopped_at_work(forks, words, out / RUN / "metrics.jsonl")
    before = contents(out)

    # The same command, its parts and single runs, and other recipes: none may write here.
    other = ["--budget.tokens", "1e5"]
    for command in (words, [*words, *other], ["train", *words[1:], "--part", "1/2"]):
        check_refused(kdjax(*command), out, process)
    single = ["train", *words[1:], "--arm", "scratch", "--seed", "0"]
    check_refused(kdjax(*single), out, process)
    check_refused(kdjax("merge", tmp_path, "--out", out), out, process)
    # Nor may another machine write to the place of the checkpoints.
    elsewhere = tmp_path / "elsewhere"
    check_refused(kdjax(*words[:3], str(elsewhere), *words[4:]), kept, process)
    assert not elsewhere.exists()
    assert contents(out) == before

    # Readers are let in.
    assert kdjax("price", recipe).status == 0
    assert "process" not in kdjax("audit", out).err

    os.kill(process, signal.SIGKILL)
    forks.wait()
    # The kernel has freed both; what is left of the locks is in nobody's way.
    assert (out / LOCK).exists() and (kept / LOCK).exists()
    with locks.hold(out), locks.hold(kept):
        pass
    forks.start(words, tmp_path / "errors")
    assert forks.wait() == 0, (tmp_path / "errors").read_text()
    assert kdjax("audit", out).status == 0
    assert not list(out.rglob(f"{LOCK}*")) and not list(kept.rglob(f"{LOCK}*"))


@pytest.mark.exhaustive
def test_parts_in_one_directory_go_on_at_once(tmp_path: Path, forks: Forks, recipe: Path) -> None:
    out = tmp_path / "first" / "out"
    out.parent.mkdir()
    words = ["train", str(recipe), "--out", str(out), "--seeds", "[0,1]", "--part"]
    process = stopped_at_work(forks, [*words, "1/2"], out / RUN / "metrics.jsonl")
    ended = kdjax(*words, "2/2")
    assert ended.status == 0, ended.err
    check_refused(kdjax(*words, "1/2"), out, process)
    # A part that is cut otherwise meets the run itself.
    check_refused(kdjax(*words, "1/1"), out / RUN, process)
    check_refused(kdjax("compare", *words[1:-1]), out, process)
    os.kill(process, signal.SIGKILL)
    forks.wait()
    assert (out / "runs" / "scratch-seed1" / "result.json").exists()


def test_first_interrupt_saves_and_the_second_ends_at_once(
    tmp_path: Path, forks: Forks, recipe: Path
) -> None:
    out = tmp_path / "first" / "out"
    out.parent.mkdir()
    words = ["compare", str(recipe), "--out", str(out)]
    errors = out.parent / "errors"
    process = stopped_at_work(forks, words, out / RUN / "metrics.jsonl")
    os.kill(process, signal.SIGINT)
    os.kill(process, signal.SIGCONT)
    assert forks.wait() == 130
    # A step under way may say how far it is before the line that ends the command.
    *lines, last = errors.read_text().splitlines()
    assert "kdjax: interrupted; saving what is done; Ctrl-C again ends it at once" in lines
    assert last.startswith("kdjax: told to stop; saved at step ")
    (checkpoint,) = (out / RUN / "checkpoints").iterdir()

    # Both at once: what is whole stays, and no lock is in the way.
    process = forks.start(words, errors)
    journal = out / RUN / "ledger.jsonl"
    while '"restart"' not in journal.read_text():
        assert not ended(process), errors.read_text()
        time.sleep(0.005)
    os.kill(process, signal.SIGINT)
    while "interrupted" not in errors.read_text():
        time.sleep(0.001)
    os.kill(process, signal.SIGINT)
    assert forks.wait() == 130
    assert "Traceback" not in errors.read_text()
    assert checkpoint.exists()
    forks.start(words, errors)
    assert forks.wait() == 0, errors.read_text()
    assert kdjax("audit", out).status == 0
