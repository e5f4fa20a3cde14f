"""Real processes on this machine, joined as hosts are: they run as one, and go on in any number."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FLAGS
from tests.faults.forks import Forks, ended
from tests.support import small_study
from tests.support.tolerance import rounding

pytestmark = pytest.mark.system

MESH = ("--train.mesh.fsdp", "2")
STEPS = 28
PATIENCE = 240.0
"""Seconds after which a command that does not end has failed."""
BOUND = 100.0
"""Seconds within which a process ends after another died."""


class Hosts:
    """Commands of several processes that share four emulated devices."""

    def __init__(self, recipe: Path, forks: Forks) -> None:
        self._recipe = recipe
        self._forks = forks

    def start(
        self, count: int, out: Path, *words: str, others: Sequence[Sequence[str]] = ()
    ) -> list[Host]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        flags = " ".join(flag.replace("count=8", f"count={4 // count}") for flag in FLAGS)
        command = ["compare", str(self._recipe), "--out", str(out), *MESH, *words]
        started = []
        for number, more_arguments in enumerate(others or [()] * count):
            joined = (
                {"KDJAX_DISTRIBUTED": f"127.0.0.1:{port},{count},{number}"} if count > 1 else {}
            )
            errors = out.with_name(f"said-{number}-of-{count}")
            process = self._forks.start(
                [*command, *more_arguments], errors, {"XLA_FLAGS": flags, **joined}
            )
            started.append(Host(self._forks, process, errors))
        return started

    def run(self, count: int, out: Path, *words: str) -> dict[str, Any]:
        for host in self.start(count, out, *words):
            assert host.wait() == 0, host.stderr
        return json.loads((out / "results.json").read_text())


class Host:
    """A process, which ends with the test."""

    def __init__(self, forks: Forks, process: int, errors: Path) -> None:
        self._forks = forks
        self._process = process
        self._errors = errors

    def send(self, sent: signal.Signals) -> None:
        os.kill(self._process, sent)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait so many seconds at most, and return the exit status; a process that has not ended by
        then is killed."""
        limit = time.monotonic() + seconds
        while not ended(self._process) and time.monotonic() < limit:
            time.sleep(0.02)
        if not ended(self._process):
            self.send(signal.SIGKILL)
        return self._forks.wait(self._process)

    @property
    def stderr(self) -> str:
        return self._errors.read_text()


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks({**os.environ, "JAX_PLATFORMS": "cpu"}) as started:
        yield started


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Hosts:
    here = tmp_path_factory.mktemp("study")
    recipe = small_study.write(
        here,
        **small_study.shallow(here / "shallow", head=True),
        arms={"logit": {}},
        seeds=[0],
        evaluation={"mlm_sequences": 8, "tasks": {}},
        budget={"tokens": STEPS * 8 * 16},
    )
    return Hosts(recipe, forks)


@pytest.fixture(scope="module")
def alone(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return hosts.run(1, tmp_path_factory.mktemp("alone") / "out")


def assert_same(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Assert that the first run of each is the same."""
    a = actual["runs"][0]
    b = expected["runs"][0]
    for name in (
        "steps",
        "spent",
        "positions",
        "tokens_seen",
        "tokens_unique",
        "tokens_masked",
        "epochs",
    ):
        assert a[name] == b[name]
    # Tokens of a batch; 20 matmuls and sums in a row a step
    share = rounding(8 * 16, stages=20 * STEPS)
    assert a["metrics"] == pytest.approx(b["metrics"], rel=share)
    assert [point["step"] for point in a["curve"]] == [point["step"] for point in b["curve"]]
    losses = [point["mlm_loss"] for point in a["curve"]]
    expected = [point["mlm_loss"] for point in b["curve"]]
    assert losses == pytest.approx(expected, rel=share)


@pytest.mark.exhaustive
def test_two_processes_of_two_devices_equal_one_of_four(
    hosts: Hosts, alone: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert_same(hosts.run(2, out), alone)
    assert [path.name for path in (out / "runs").iterdir()] == ["logit-seed0"]


@pytest.mark.exhaustive
def test_two_processes_train_vmapped_seeds(
    hosts: Hosts, alone: dict[str, Any], tmp_path: Path
) -> None:
    actual = hosts.run(2, tmp_path / "out", "--seeds", "[0, 1]", "--train.vmapped_seeds", "2")
    assert_same(actual, alone)
    first, second = actual["runs"]
    assert first["hardware"]["side_by_side"] == second["hardware"]["side_by_side"] == 2
    assert second["spent"] == first["spent"]
    assert second["tokens_seen"] != first["tokens_seen"]


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([(2, 4)], id="two"),
        pytest.param([(2, 4), (1, 10)], id="two, one", marks=pytest.mark.exhaustive),
    ],
)
def test_resume_on_another_number_of_hosts_keeps_result(
    hosts: Hosts, alone: dict[str, Any], tmp_path: Path, stops: list[tuple[int, int]]
) -> None:
    """The last of so many hosts is told to stop at a step; then there are two, of which the second
    dies; then one."""
    out = tmp_path / "out"

    def reach(step: int) -> None:
        stop = time.monotonic() + PATIENCE
        metrics = out / "runs" / "logit-seed0" / "metrics.jsonl"
        while not metrics.exists() or metrics.read_text().count("\n") < step:
            assert time.monotonic() < stop
            time.sleep(0.02)

    for count, step in stops:
        started = hosts.start(count, out)
        reach(step)
        started[-1].send(signal.SIGTERM)
        for host in started:
            assert host.wait() == 75, host.stderr
            assert "told to stop; saved at step" in host.stderr
    first, second = hosts.start(2, out, "--train.checkpoint.seconds", "0")
    reach(16)
    second.send(signal.SIGKILL)
    status = first.wait(BOUND)
    if status == 75:
        assert "another process is gone" in first.stderr
        assert "the same command on all hosts goes on" in first.stderr
    else:  # JAX was quicker to notice, and ends the process itself
        assert status == -signal.SIGABRT, first.stderr
        assert "another task died" in first.stderr
    second.wait()
    assert_same(hosts.run(1, out), alone)
    entries = [
        json.loads(line)
        for line in (out / "runs" / "logit-seed0" / "ledger.jsonl").read_text().splitlines()
    ]
    assert sum(entry["event"] == "restart" for entry in entries) == len(stops) + 1


def test_hosts_with_unequal_recipes_are_refused_before_writing(
    hosts: Hosts, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first, second = hosts.start(2, out, others=((), ("--train.optimizer.b1", "0.5")))
    assert second.wait() == 2, second.stderr
    assert (
        "hosts differ: recipe.train.optimizer.b1 is 0.5, on the first host 0.9; expected the same"
        in second.stderr
    )
    assert first.wait() == 2, first.stderr
    assert "hosts differ: on another host; expected the same" in first.stderr
    assert not out.exists()
