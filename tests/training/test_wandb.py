"""Weights & Biases: what a run sends there; and, where the package is installed, that it takes
it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kdjax.config import LogConfig
from kdjax.errors import InputError
from kdjax.training.records import wandb as sink
from kdjax.training.records.metrics_log import Log
from kdjax.training.records.sinks import About
from kdjax.training.records.trackers import check_trackers, log_endpoints
from tests.support import metrics, trainers
from tests.training import runs

PROJECT = LogConfig(every=1, tensorboard=False, wandb="mine")


class Server:
    """Stand in for the package and what is at the other end: it drops steps that it has already, as
    theirs does."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        self.runs: dict[str, dict[int, dict[str, Any]]] = {}
        self.began: list[dict[str, Any]] = []
        self.refused: list[int] = []
        self.summaries: dict[str, dict[str, float]] = {}
        self.finished = 0
        self.offline = False
        self.logged_in = True

    def login(self) -> bool:
        if not self.logged_in:
            raise self.Error("No API key configured.")
        return True

    def init(self, **facts: Any) -> SimpleNamespace:
        self.began.append(facts)
        history = self.runs.setdefault(facts["id"], {})
        # Steps from before this connection are refused if they come again.
        before = set(history)
        began = set[int]()
        # Offline nothing is known of what was sent earlier.
        next_step = 0 if self.offline else max(history, default=-1) + 1

        def log(record: dict[str, Any], step: int) -> None:
            if step < max(began, default=0) or step in before:
                self.refused.append(step)
            began.add(step)
            history.setdefault(step, {}).update(record)

        def finish() -> None:
            self.finished += 1

        summary = self.summaries.setdefault(facts["id"], {})
        return SimpleNamespace(
            step=next_step, offline=self.offline, log=log, finish=finish, summary=summary
        )

    def package(self) -> ModuleType:
        module = ModuleType("wandb")
        module.__spec__ = importlib.util.spec_from_loader("wandb", None)
        module.init = self.init
        module.login = self.login
        module.errors = SimpleNamespace(Error=self.Error)
        module.Settings = SimpleNamespace
        return module


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    double = Server()
    monkeypatch.setitem(sys.modules, "wandb", double.package())
    return double


def sent(run: Path) -> dict[int, dict[str, Any]]:
    """Return what should be there: all figures of a step together."""
    steps: dict[int, dict[str, Any]] = {}
    for line in metrics.lines(run):
        steps.setdefault(line.pop("step"), {}).update(line)
    return steps


def test_sink_has_figures_of_metrics_lines(server: Server, tmp_path: Path) -> None:
    runs.run(tmp_path, PROJECT, about=About("study", "tinybert", 7, {"train": {"batch_size": 8}}))
    (history,) = server.runs.values()
    # What the service holds is what the run's own lines say.
    assert history == sent(tmp_path)
    (began,) = server.began
    # The run is listed under project, study and name, with its recipe.
    assert (began["project"], began["group"], began["name"]) == ("mine", "study", tmp_path.name)
    assert began["config"] == {"train": {"batch_size": 8}, "arm": "tinybert", "seed": 7}
    assert server.finished == 1


@pytest.mark.parametrize("offline", [False, True])
def test_resumed_run_sends_nothing_twice(server: Server, tmp_path: Path, offline: bool) -> None:
    server.offline = offline
    with pytest.raises(trainers.Interrupted):
        runs.run(tmp_path, PROJECT, stop_at=5)
    runs.run(tmp_path, PROJECT)
    (history,) = server.runs.values()
    # Each step arrives once, though the steps between checkpoint and interruption were done twice.
    assert list(history) == list(range(1, runs.STEPS + 1))
    assert server.refused == []
    assert server.finished == len(server.began) == 2


def test_resumed_run_sends_what_kill_prevented(server: Server, tmp_path: Path) -> None:
    with pytest.raises(trainers.Interrupted):
        runs.run(tmp_path, PROJECT, stop_at=5)
    # The kill came before these were sent.
    (history,) = server.runs.values()
    for step in (2, 3, 4):
        history.pop(step, None)
    runs.run(tmp_path, PROJECT)
    assert history == sent(tmp_path)


def test_result_joins_run_that_was_closed(server: Server, tmp_path: Path) -> None:
    runs.run(tmp_path, PROJECT)
    log_endpoints(tmp_path, PROJECT, runs.STEPS, {"mlm_probe": 4.5, "probe.topic": 0.25})
    (summary,) = server.summaries.values()
    assert summary == {"endpoint/mlm_probe": 4.5, "endpoint/probe.topic": 0.25}
    # Its history is what it was.
    (history,) = server.runs.values()
    assert history == sent(tmp_path)
    assert server.finished == 2


def test_result_that_one_does_not_take_is_a_warning_and_reaches_the_others(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    everything = LogConfig(wandb="mine", mlflow="theirs")
    # A file where TensorBoard's directory should be, and no package of MLflow
    (tmp_path / "tensorboard").touch()
    monkeypatch.setitem(sys.modules, "mlflow", None)
    messages: list[str] = []
    log_endpoints(tmp_path, everything, runs.STEPS, {"mlm_probe": 4.5}, messages.append)
    assert [message.partition(" does not take the result")[0] for message in messages] == [
        f"{tmp_path.name}: TensorBoard",
        f"{tmp_path.name}: MLflow",
    ]
    (summary,) = server.summaries.values()
    assert summary == {"endpoint/mlm_probe": 4.5}

    # The other way round
    messages.clear()
    (tmp_path / "tensorboard").unlink()
    monkeypatch.setattr(sys.modules["wandb"], "init", None)
    log_endpoints(
        tmp_path, LogConfig(wandb="mine"), runs.STEPS, {"mlm_probe": 4.5}, messages.append
    )
    (message,) = messages
    assert message.startswith(f"{tmp_path.name}: Weights & Biases does not take the result")
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_wandb_switched_on_late_gets_whole_run(server: Server, tmp_path: Path) -> None:
    with pytest.raises(trainers.Interrupted):
        runs.run(tmp_path, stop_at=5)
    runs.run(tmp_path, PROJECT)
    # Lines from before it was switched on are sent as well.
    (history,) = server.runs.values()
    assert history == sent(tmp_path)


def test_non_finite_figures_are_not_sent(server: Server, tmp_path: Path) -> None:
    log = Log(tmp_path, 0, PROJECT)
    log.write(1, {"loss": 1.0, "grad_norm": float("nan")})
    (history,) = server.runs.values()
    assert history == {1: {"loss": 1.0}}


def test_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    # It is asked for twice: before the study, and where a run opens.
    for ask in (lambda: check_trackers(PROJECT), lambda: Log(tmp_path, 0, PROJECT)):
        with pytest.raises(
            InputError, match=r"needs the package wandb, .*pip install 'kdjax\[wandb\]'"
        ):
            ask()


def test_missing_login_is_one_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.logged_in = False
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(
        InputError, match=r"train.log.wandb is 'mine': No API key configured\. WANDB_MODE=offline"
    ):
        check_trackers(PROJECT)
    # Offline needs no login.
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(PROJECT)


@pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="an extra: pip install 'kdjax[wandb]'"
)
def test_installed_package_takes_run_offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    messages: list[str] = []
    check_trackers(PROJECT)
    runs.run(
        tmp_path,
        PROJECT,
        about=About("study", "tinybert", 0, {"train": {"batch_size": 8}}),
        warn=messages.append,
    )
    # The package itself takes run and figures, and writes them to its own file.
    assert messages == []
    (path,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"loss/hidden_mse" in path.read_bytes()
    assert (tmp_path / sink.ID).exists()
