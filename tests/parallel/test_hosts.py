"""Real processes on this machine, joined as hosts are: they run as one, and go on in any number."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import small_study
from tests.conftest import FLAGS
from tests.tolerance import rounding

ROOT = Path(__file__).parents[2]
MESH = ("--train.mesh.fsdp", "2")
STEPS = 48
PATIENCE = 240.0
"""Seconds after which a command that does not end has failed."""
BOUND = 100.0
"""Seconds within which a process ends after another died."""


class Hosts:
    """Commands of several processes that share eight emulated devices."""

    def __init__(self, recipe: Path):
        self._recipe = recipe

    def start(self, count: int, out: Path, *words: str, others: Sequence[Sequence[str]] = ()) -> list[Host]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        flags = " ".join(flag.replace("count=8", f"count={8 // count}") for flag in FLAGS)
        command = [sys.executable, "-m", "kdjax", "compare", str(self._recipe), "--out", str(out), *MESH, *words]
        started = []
        for number, own in enumerate(others or [()] * count):
            joined = {"KDJAX_DISTRIBUTED": f"127.0.0.1:{port},{count},{number}"} if count > 1 else {}
            environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **joined}
            started.append(Host([*command, *own], environment, out.with_name(f"said-{number}-of-{count}")))
        return started

    def run(self, count: int, out: Path, *words: str) -> dict[str, Any]:
        for host in self.start(count, out, *words):
            assert host.wait() == 0, host.said
        return json.loads((out / "results.json").read_text())  # type: ignore[no-any-return]


class Host:
    """A process, which ends with the test."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], output: Path):
        self._output = output
        with output.open("w") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, env=dict(environment), stdout=file, stderr=file)

    def wait(self, seconds: float = PATIENCE) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()

    @property
    def said(self) -> str:
        return self._output.read_text()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Hosts:
    here = tmp_path_factory.mktemp("study")
    recipe = small_study.write(
        here,
        teacher={
            "source": str(small_study.make_teacher(here / "teacher", head=True)),
            "architecture": small_study.TEACHER,
        },
        arms={"logit": {}},
        seeds=[0],
        evaluation={"mlm_sequences": 8, "tasks": {}, "finetune": {"steps": 0}},
        budget={"tokens": STEPS * 8 * 16},
    )
    return Hosts(recipe)


@pytest.fixture(scope="module")
def alone(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return hosts.run(1, tmp_path_factory.mktemp("alone") / "out")


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The first run of each is the same."""
    a, b = found["runs"][0], expected["runs"][0]
    for name in ("steps", "spent", "positions", "tokens_seen", "tokens_unique", "tokens_masked", "epochs"):
        assert a[name] == b[name]
    share = rounding(8 * 16, stages=20 * STEPS)  # tokens of a batch; 20 matmuls and sums in a row a step
    assert a["metrics"] == pytest.approx(b["metrics"], rel=share)
    assert [point["step"] for point in a["curve"]] == [point["step"] for point in b["curve"]]
    losses = [[point["mlm_loss"] for point in run["curve"]] for run in (a, b)]
    assert losses[0] == pytest.approx(losses[1], rel=share)


def test_two_processes_of_four_devices_equal_one_of_eight(hosts: Hosts, alone: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert_same(hosts.run(2, out), alone)
    assert [path.name for path in (out / "runs").iterdir()] == ["logit-seed0"]


def test_two_processes_take_seeds_side_by_side(hosts: Hosts, alone: dict[str, Any], tmp_path: Path) -> None:
    found = hosts.run(2, tmp_path / "out", "--seeds", "[0, 1]", "--train.seeds_at_once", "2")
    assert_same(found, alone)
    first, second = found["runs"]
    assert first["hardware"]["side_by_side"] == second["hardware"]["side_by_side"] == 2
    assert second["spent"] == first["spent"] and second["tokens_seen"] != first["tokens_seen"]


def test_a_run_goes_on_on_another_number_of_hosts(hosts: Hosts, alone: dict[str, Any], tmp_path: Path) -> None:
    """Two hosts, of which one is told to stop; then one, told to stop; then two, of which the second dies; then one."""
    out = tmp_path / "out"

    def reach(step: int) -> None:
        stop, metrics = time.monotonic() + PATIENCE, out / "runs" / "logit-seed0" / "metrics.jsonl"
        while not metrics.exists() or metrics.read_text().count("\n") < step:
            assert time.monotonic() < stop
            time.sleep(0.02)

    for count, step in ((2, 6), (1, 20)):
        started = hosts.start(count, out)
        reach(step)
        started[-1].process.send_signal(signal.SIGTERM)
        for host in started:
            assert host.wait() == 75, host.said
            assert "told to stop; saved at step" in host.said
    first, second = hosts.start(2, out, "--train.checkpoint.seconds", "0")
    reach(34)
    second.process.kill()
    status = first.wait(BOUND)
    if status == 75:
        assert "another process is gone" in first.said
        assert "the same command on all hosts goes on" in first.said
    else:  # JAX was quicker to notice, and ends the process itself
        assert status == -signal.SIGABRT, first.said
        assert "another task died" in first.said
    second.wait()
    assert_same(hosts.run(1, out), alone)
    entries = [json.loads(line) for line in (out / "runs" / "logit-seed0" / "ledger.jsonl").read_text().splitlines()]
    assert sum(entry["event"] == "restart" for entry in entries) == 3


def test_hosts_with_other_recipes_are_refused_before_anything_is_made(hosts: Hosts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second = hosts.start(2, out, others=((), ("--train.optimizer.b1", "0.5")))
    assert second.wait() == 2, second.said
    assert "hosts differ: recipe.train.optimizer.b1 is 0.5, on the first host 0.9; expected the same" in second.said
    assert first.wait() == 2, first.said
    assert "hosts differ: on another host; expected the same" in first.said
    assert not out.exists()
