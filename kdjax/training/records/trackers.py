"""Experiment trackers, which are not on by default: Weights & Biases and MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from kdjax.config import LogConfig
from kdjax.parallel import hosts
from kdjax.runtime import process_logging
from kdjax.training.records.sinks import About, MetricsRecord, Sink


class Tracker(Sink, Protocol):
    """A sink that finds its run again after it was closed, and takes the run's result."""

    def write_endpoints(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take what the student was measured to: values by the names of endpoints."""


def check_trackers(config: LogConfig) -> None:
    """Check, before anything is spent, that the trackers that are asked for can take records.

    Raises:
        InputError: a package is missing, nobody is logged in, or a server does not answer.
    """
    if not hosts.is_main_process():
        return
    # Each is imported where it is asked for: most people have neither.
    if config.wandb:
        from kdjax.training.records import wandb  # noqa: PLC0415

        wandb.check(config.wandb)
    if config.mlflow:
        from kdjax.training.records import mlflow  # noqa: PLC0415

        mlflow.check(config.mlflow)


def open_trackers(
    directory: Path,
    config: LogConfig,
    records: Callable[[], Iterable[tuple[int, MetricsRecord]]] = tuple,
    reached: int = 0,
    about: About | None = None,
) -> list[Tracker]:
    """Open the trackers that are asked for, each at the run that it has of a directory.

    Args:
        directory: directory of the run.
        config: settings of what is written.
        records: returns the records so far, anew each time.
        reached: last step that there has been a record of.
        about: names of the run.

    Raises:
        InputError: a tracker cannot be had.
    """
    trackers: list[Tracker] = []
    if not hosts.is_main_process():
        return trackers
    if config.wandb:
        from kdjax.training.records.wandb import WandB  # noqa: PLC0415

        trackers.append(WandB(directory, config.wandb, records(), reached, about))
    if config.mlflow:
        from kdjax.training.records.mlflow import MLflow  # noqa: PLC0415

        trackers.append(MLflow(directory, config.mlflow, records(), about))
    return trackers


def log_endpoints(
    directory: Path,
    config: LogConfig,
    step: int,
    metrics: Mapping[str, float],
    warn: Callable[[str], None] = process_logging.warn,
) -> None:
    """Write what a run's student was measured to, for the tables of runs of TensorBoard and the
    trackers.

    One that fails is warned of, and the others take the result: it is in the run's own files.

    Args:
        directory: directory of the run.
        config: settings of what is written.
        step: last step of the run.
        metrics: values by the names of endpoints.
        warn: function called with a line about each that fails.
    """

    def write_to_tensorboard() -> None:
        from kdjax.training.records.tensorboard import write_endpoints  # noqa: PLC0415 - slow

        write_endpoints(directory / "tensorboard", step, metrics)

    def write_to_trackers(only: LogConfig) -> None:
        for tracker in open_trackers(directory, only):
            tracker.write_endpoints(step, metrics)
            tracker.close()

    writers: dict[str, Callable[[], None]] = {}
    if config.tensorboard:
        writers["TensorBoard"] = write_to_tensorboard
    if config.wandb:
        writers["Weights & Biases"] = partial(write_to_trackers, LogConfig(wandb=config.wandb))
    if config.mlflow:
        writers["MLflow"] = partial(write_to_trackers, LogConfig(mlflow=config.mlflow))
    for name, write in writers.items():
        try:
            write()
        except Exception as e:
            warn(f"{directory.name}: {name} does not take the result ({type(e).__name__}: {e})")
