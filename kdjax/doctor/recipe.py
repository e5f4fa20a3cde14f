"""What a recipe needs of this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

from kdjax.config import Config
from kdjax.doctor.finding import Finding
from kdjax.errors import InputError
from kdjax.storage import hub


def recipe(config: Config) -> Iterator[Finding]:
    """Yield whether a recipe's inputs, teacher and extras are there.

    What lies on the Hub or behind a URL is not asked for.
    """
    from kdjax.study.artifacts.input_checks import check_inputs  # noqa: PLC0415 - imports JAX

    yield _looked_at("text and tasks", lambda: check_inputs(config, only_here=True))
    yield _looked_at("teacher", lambda: _check_teacher(config))
    trackers = {"wandb": config.train.log.wandb, "mlflow": config.train.log.mlflow}
    for name, wanted in trackers.items():
        if wanted and importlib.util.find_spec(name) is None:
            advice = f"pip install 'kdjax[{name}]'"
            yield Finding(f"train.log.{name}", "problem", f"{name} is not installed", advice)


def _looked_at(subject: str, check: Callable[[], None]) -> Finding:
    """Return the finding of a check: its line of bad input, or that all is there."""
    try:
        check()
    except InputError as e:
        return Finding(f"recipe: {subject}", "problem", str(e))
    return Finding(f"recipe: {subject}", "ok", "as the recipe says")


def _check_teacher(config: Config) -> None:
    """Check that a teacher that lies on this machine can be read, and is the recipe's.

    Raises:
        InputError: it cannot, or is another.
    """
    from kdjax.study.teachers.from_directory import read_checked  # noqa: PLC0415
    from kdjax.text import sources  # noqa: PLC0415 - imports JAX

    source = config.teacher.source
    if source and not hub.is_hub_name(source):
        read_checked(config, sources.locate(source))
