"""MLflow: the records of a run as a run there, of an experiment that the recipe names."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kdjax.errors import InputError
from kdjax.storage.files import read_json, write_json
from kdjax.storage.typed_json import check_fields
from kdjax.training.records.sinks import ENDPOINTS, About, MetricsRecord, import_package

ID = "mlflow.json"
"""In a run's directory: its name at MLflow, by which it is found again there."""
_PARAMS_A_CALL = 100
"""Number of parameters that MLflow takes at once."""
_VALUE_LENGTH = 6000
"""Number of characters that MLflow keeps of a parameter."""


class MLflow:
    """A sink: a run at MLflow. A run that is resumed sends what is not there yet.

    The server is the one that the environment names, as everywhere in MLflow
    (MLFLOW_TRACKING_URI).
    """

    def __init__(
        self,
        directory: Path,
        experiment: str,
        records: Iterable[tuple[int, MetricsRecord]] = (),
        about: About | None = None,
    ):
        """Begin a run there, or go on with it.

        Args:
            directory: directory of the run.
            experiment: name of the experiment, which is made if there is none.
            records: records so far.
            about: names of the run.

        Raises:
            InputError: the package is missing, or the server does not answer as it should.
        """
        mlflow = import_package("mlflow")
        self._metric = mlflow.entities.Metric
        path = directory / ID
        try:
            self._client = mlflow.MlflowClient()
            if path.exists():
                # The run goes on there; what it has is not sent again.
                self._run = check_fields(read_json(path), {"id": str}, f"{path}:")["id"]
                self._client.update_run(self._run, status="RUNNING")
                self._sent = set(self._points())
            else:
                tags = {"study": about.study, "arm": about.arm} if about is not None else {}
                identifier = _experiment_id(self._client, experiment)
                run = self._client.create_run(identifier, run_name=directory.name, tags=tags)
                self._run = run.info.run_id
                self._sent = set[tuple[str, int]]()
                write_json(path, {"id": self._run})
                if about is not None:
                    self._write_params(mlflow.entities.Param, about)
            for step, record in records:
                self.write(step, record)
        except mlflow.exceptions.MlflowException as e:
            raise InputError(f"train.log.mlflow is {experiment!r}: {_first_line(e)}") from None

    def write(self, step: int, record: MetricsRecord) -> None:
        """Send the figures of a record that are not there."""
        figures = {}
        for name, figure in record.items():
            if name != "time" and figure is not None and (name, step) not in self._sent:
                figures[name] = figure
        self._log(step, figures, record.get("time", time.time()))

    def write_endpoints(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send what the student was measured to: columns of MLflow's table of runs."""
        figures = {f"{ENDPOINTS}/{name}": value for name, value in metrics.items()}
        self._log(step, figures, time.time())

    def close(self) -> None:
        """Say there that the run has ended."""
        self._client.set_terminated(self._run)

    def abandon(self) -> None:
        """Do nothing: a server that has failed is not asked again."""

    def _log(self, step: int, figures: Mapping[str, float], seconds: float) -> None:
        """Send figures of a step.

        Args:
            step: the step.
            figures: values by name.
            seconds: when they were measured, in seconds since 1970.
        """
        metrics = []
        for name, figure in figures.items():
            metrics.append(self._metric(name, float(figure), round(1000 * seconds), step))
        if metrics:
            self._client.log_batch(self._run, metrics=metrics)

    def _points(self) -> Iterator[tuple[str, int]]:
        """Yield the name and the step of every figure that the run has there."""
        for name in self._client.get_run(self._run).data.metrics:
            for metric in self._client.get_metric_history(self._run, name):
                yield name, metric.step

    def _write_params(self, param: Any, about: About) -> None:
        """Send the run's arm, its seed and all settings as parameters, a setting under its name in
        the recipe.

        Args:
            param: MLflow's class of parameters.
            about: names of the run.
        """
        values = {"arm": about.arm, "seed": about.seed, **dict(_settings(about.recipe))}
        params = []
        for name, value in values.items():
            params.append(param(name, str(value)[:_VALUE_LENGTH]))
        for first in range(0, len(params), _PARAMS_A_CALL):
            self._client.log_batch(self._run, params=params[first : first + _PARAMS_A_CALL])


def check(experiment: str) -> None:
    """Check before anything is spent that records can be sent.

    Raises:
        InputError: the package is missing, or the server does not answer as it should.
    """
    mlflow = import_package("mlflow")
    try:
        _experiment_id(mlflow.MlflowClient(), experiment)
    except mlflow.exceptions.MlflowException as e:
        raise InputError(
            f"train.log.mlflow is {experiment!r}: {_first_line(e)}; MLFLOW_TRACKING_URI="
            "sqlite:///mlflow.db keeps it on this machine"
        ) from None


def _experiment_id(client: Any, name: str) -> str:
    """Return MLflow's name for an experiment, which is made if there is none."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    return str(client.create_experiment(name))


def _settings(recipe: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting of a recipe under its dotted name."""
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{name}{key}.")
        else:
            yield f"{name}{key}", value


def _first_line(error: Exception) -> str:
    """Return the first line of an error, as MLflow adds advice in more of them."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
