"""MLflow: what a run sends there; and, where the package is installed, that it takes it."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kdjax.config import LogConfig
from kdjax.errors import InputError
from kdjax.training.records import mlflow as sink
from kdjax.training.records.metrics_log import Log
from kdjax.training.records.sinks import About
from kdjax.training.records.trackers import check_trackers, log_endpoints
from tests.support import metrics, trainers
from tests.training import runs

EXPERIMENT = LogConfig(every=1, tensorboard=False, mlflow="mine")
ABOUT = About("study", "tinybert", 7, {"train": {"batch_size": 8, "mesh": {"data": 2}}})


@dataclasses.dataclass(frozen=True)
class Metric:
    key: str
    value: float
    timestamp: int
    step: int


@dataclasses.dataclass(frozen=True)
class Param:
    key: str
    value: str


class MlflowException(Exception):
    pass


class Server:
    """Stand in for the package and its server, which keeps every point it is sent, twice sent or
    not."""

    def __init__(self) -> None:
        self.experiments: list[str] = []
        self.names: list[str] = []
        self.tags: dict[str, str] = {}
        self.params: dict[str, str] = {}
        self.points: dict[str, list[Metric]] = defaultdict(list)
        self.status = ""
        self.answers = True

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        if not self.answers:
            raise MlflowException("API request failed.\nadvice of many lines")
        known = name in self.experiments
        return SimpleNamespace(experiment_id=name) if known else None

    def create_experiment(self, name: str) -> str:
        self.experiments.append(name)
        return name

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> SimpleNamespace:
        assert experiment in self.experiments
        self.names.append(run_name)
        self.tags = tags
        self.status = "RUNNING"
        return SimpleNamespace(info=SimpleNamespace(run_id="run"))

    def update_run(self, run: str, status: str) -> None:
        self.status = status

    def set_terminated(self, run: str) -> None:
        self.status = "FINISHED"

    def get_run(self, run: str) -> SimpleNamespace:
        latest = {name: points[-1].value for name, points in self.points.items()}
        return SimpleNamespace(data=SimpleNamespace(metrics=latest))

    def get_metric_history(self, run: str, name: str) -> list[Metric]:
        return self.points[name]

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(params) <= 100
        for metric in metrics:
            self.points[metric.key].append(metric)
        for param in params:
            assert param.key not in self.params
            self.params[param.key] = param.value

    def package(self) -> ModuleType:
        module = ModuleType("mlflow")
        module.__spec__ = importlib.util.spec_from_loader("mlflow", None)
        module.MlflowClient = lambda: self
        module.entities = SimpleNamespace(Metric=Metric, Param=Param)
        module.exceptions = SimpleNamespace(MlflowException=MlflowException)
        return module

    def history(self) -> dict[str, list[tuple[int, float]]]:
        """Return the steps and values of every figure."""
        figures = {}
        for name, points in self.points.items():
            figures[name] = [(point.step, point.value) for point in points]
        return figures


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    double = Server()
    monkeypatch.setitem(sys.modules, "mlflow", double.package())
    return double


def expected(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what should be there: every figure of the run's own lines but for the clock."""
    figures: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in metrics.lines(run):
        step = line.pop("step")
        line.pop("time", None)
        for name, value in line.items():
            figures[name].append((step, value))
    return figures


def test_sink_has_figures_of_metrics_lines(server: Server, tmp_path: Path) -> None:
    runs.run(tmp_path, EXPERIMENT, about=ABOUT)
    assert server.history() == expected(tmp_path)
    # The run is listed by its name, study and arm, with all settings.
    assert server.experiments == ["mine"]
    assert server.names == [tmp_path.name]
    assert server.tags == {"study": "study", "arm": "tinybert"}
    assert server.params == {
        "arm": "tinybert",
        "seed": "7",
        "train.batch_size": "8",
        "train.mesh.data": "2",
    }
    assert server.status == "FINISHED"


def test_resumed_run_sends_nothing_twice(server: Server, tmp_path: Path) -> None:
    with pytest.raises(trainers.Interrupted):
        runs.run(tmp_path, EXPERIMENT, stop_at=5, about=ABOUT)
    # The kill came before this figure was sent.
    server.points["loss"].pop()
    runs.run(tmp_path, EXPERIMENT, about=ABOUT)
    history = {name: sorted(points) for name, points in server.history().items()}
    assert history == expected(tmp_path)
    assert len(server.names) == 1


def test_result_joins_run_that_was_closed(server: Server, tmp_path: Path) -> None:
    runs.run(tmp_path, EXPERIMENT)
    log_endpoints(tmp_path, EXPERIMENT, runs.STEPS, {"mlm_probe": 4.5})
    assert server.history()["endpoint/mlm_probe"] == [(runs.STEPS, 4.5)]
    assert server.status == "FINISHED"
    assert len(server.names) == 1


def test_non_finite_figures_are_not_sent(server: Server, tmp_path: Path) -> None:
    log = Log(tmp_path, 0, EXPERIMENT)
    log.write(1, {"loss": 1.0, "grad_norm": float("nan")})
    assert server.history() == {"loss": [(1, 1.0)]}


def test_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"train.log.mlflow needs .*'kdjax\[mlflow\]'"):
        check_trackers(EXPERIMENT)


def test_silent_server_is_one_line_before_anything_is_spent(server: Server, tmp_path: Path) -> None:
    server.answers = False
    match = r"train.log.mlflow is 'mine': API request failed\."
    with pytest.raises(InputError, match=match) as refused:
        check_trackers(EXPERIMENT)
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=match):
        Log(tmp_path, 0, EXPERIMENT)


@pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="an extra: pip install 'kdjax[mlflow]'"
)
def test_installed_package_takes_run_and_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    run = tmp_path / "run"
    run.mkdir()
    messages: list[str] = []
    runs.run(run, EXPERIMENT, about=ABOUT, warn=messages.append)
    log_endpoints(run, EXPERIMENT, runs.STEPS, {"mlm_probe": 4.5}, messages.append)
    assert messages == []
    # The package itself gives back the run with its parameters, curve and result.
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("mine").experiment_id
    (stored,) = client.search_runs([experiment])
    assert stored.data.params["train.batch_size"] == "8"
    assert stored.data.metrics["endpoint/mlm_probe"] == 4.5
    assert stored.info.status == "FINISHED"
    (identifier,) = {stored.info.run_id}
    history = client.get_metric_history(identifier, "loss")
    points = [(metric.step, metric.value) for metric in history]
    assert sorted(points) == expected(run)["loss"]
    assert (run / sink.ID).exists()
