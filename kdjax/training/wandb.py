"""Weights & Biases: the records of a run as a run there, of a project that the recipe names."""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kdjax.errors import InputError
from kdjax.files import read_json, write_json
from kdjax.training.sinks import About, Record

ID = "wandb.json"
"""In a run's directory: its name at Weights & Biases, by which it goes on there when it goes on
here."""


class WandB:
    """A sink. A run that goes on sends what is not there yet; what was done before and is done once
    more is there."""

    def __init__(
        self,
        directory: Path,
        project: str,
        records: Iterable[tuple[int, Record]] = (),
        reached: int = 0,
        about: About | None = None,
    ):
        """Begins a run there, or goes on with it.

        Args:
            directory: the run's; what is not sent at once lies in its wandb/.
            project: its name.
            records: what there is so far.
            reached: the last step that there has been a record of, when nobody can ask what was
                sent.
            about: whose run it is.

        Raises:
            InputError: the package is missing, or nobody is logged in.
        """
        wandb = _package()
        path = directory / ID
        new = not path.exists()
        if new:
            write_json(path, {"id": secrets.token_hex(8)})
        facts: dict[str, Any] = {}
        if about is not None:
            config = {**about.recipe, "arm": about.arm, "seed": about.seed}
            facts = {"group": about.study, "job_type": about.arm, "config": config}
        try:
            self._run = wandb.init(
                project=project,
                id=read_json(path)["id"],
                name=directory.name,
                dir=str(directory),
                resume="allow",
                reinit="create_new",  # a program around this one may have a run of its own
                settings=wandb.Settings(console="off"),
                **facts,
            )
        except wandb.errors.Error as e:
            raise InputError(f"train.log.wandb is {project!r}: {e}") from None
        self._next = self._run.step if new or not self._run.offline else reached + 1
        for step, record in records:
            self.write(step, record)

    def write(self, step: int, record: Record) -> None:
        """Sends a record; one of the same step joins it there."""
        if step >= self._next:
            self._run.log(
                {name: figure for name, figure in record.items() if figure is not None}, step=step
            )

    def close(self) -> None:
        """Sends what is waiting."""
        self._run.finish()


def check(project: str) -> None:
    """Finds out before anything is spent whether records can be sent; may ask for a key in a
    terminal.

    Raises:
        InputError: the package is missing, or nobody is logged in.
    """
    wandb = _package()
    if os.environ.get("WANDB_MODE", "online") != "online":
        return
    try:
        wandb.login()
    except wandb.errors.Error as e:
        raise InputError(
            f"train.log.wandb is {project!r}: {e} WANDB_MODE=offline keeps it on this machine"
        ) from None


def _package() -> Any:
    if importlib.util.find_spec("wandb") is None:
        raise InputError(
            "train.log.wandb needs the package wandb, expected it installed: pip install "
            "'kdjax[wandb]'"
        )
    return importlib.import_module("wandb")
