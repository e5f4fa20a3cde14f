"""Weights & Biases: the records of a run as a run there, of a project that the recipe names."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdjax.errors import InputError
from kdjax.storage.files import read_json, write_json
from kdjax.storage.typed_json import check_fields
from kdjax.training.records.sinks import ENDPOINTS, About, MetricsRecord, import_package

ID = "wandb.json"
"""In a run's directory: its name at Weights & Biases, by which it is resumed there."""


class WandB:
    """A sink: a run at Weights & Biases. A run that is resumed sends what is not there yet."""

    def __init__(
        self,
        directory: Path,
        project: str,
        records: Iterable[tuple[int, MetricsRecord]] = (),
        reached: int = 0,
        about: About | None = None,
    ):
        """Begin a run there, or go on with it.

        Args:
            directory: directory of the run; what is not sent at once lies in its wandb/.
            project: name of the project.
            records: records so far.
            reached: last step that there has been a record of, for a run that is offline and cannot
                ask what was sent.
            about: names of the run.

        Raises:
            InputError: the package is missing, or nobody is logged in.
        """
        # The run there has a name of its own, by which it is found again.
        wandb = import_package("wandb")
        path = directory / ID
        is_new = not path.exists()
        if is_new:
            write_json(path, {"id": secrets.token_hex(8)})
        facts: dict[str, Any] = {}
        if about is not None:
            config = {**about.recipe, "arm": about.arm, "seed": about.seed}
            facts = {"group": about.study, "job_type": about.arm, "config": config}
        try:
            self._run = wandb.init(
                project=project,
                id=check_fields(read_json(path), {"id": str}, f"{path}:")["id"],
                name=directory.name,
                dir=str(directory),
                resume="allow",
                reinit="create_new",  # a program around this one may have a run of its own
                settings=wandb.Settings(console="off"),
                **facts,
            )
        except wandb.errors.Error as e:
            raise InputError(f"train.log.wandb is {project!r}: {e}") from None

        # What is there already is not sent again.
        self._next = self._run.step
        if self._run.offline and not is_new:
            self._next = reached + 1
        for step, record in records:
            self.write(step, record)

    def write(self, step: int, record: MetricsRecord) -> None:
        """Send a record; one of the same step joins it there."""
        if step >= self._next:
            figures = {name: figure for name, figure in record.items() if figure is not None}
            self._run.log(figures, step=step)

    def write_endpoints(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send what the student was measured to: columns of the project's table of runs."""
        named = {f"{ENDPOINTS}/{name}": value for name, value in metrics.items()}
        self._run.summary.update(named)

    def close(self) -> None:
        """Send what is waiting."""
        self._run.finish()

    def abandon(self) -> None:
        """Do nothing: the package ends its run with the process, and to finish it now may wait."""


def check(project: str) -> None:
    """Check before anything is spent that records can be sent; may ask for a key in a terminal.

    Raises:
        InputError: the package is missing, or nobody is logged in.
    """
    wandb = import_package("wandb")
    if os.environ.get("WANDB_MODE", "online") != "online":
        return
    try:
        wandb.login()
    except wandb.errors.Error as e:
        raise InputError(
            f"train.log.wandb is {project!r}: {e} WANDB_MODE=offline keeps it on this machine"
        ) from None
