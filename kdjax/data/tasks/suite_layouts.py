"""The layout of a suite's directory, found by looking at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdjax.config.suites import GLUE, SuiteTask
from kdjax.data.tasks.babylm import babylm_sources
from kdjax.data.tasks.hub_files import has_hub_task, hub_sources
from kdjax.data.tasks.official import has_task, official_sources
from kdjax.data.tasks.raw import RawTask
from kdjax.data.tasks.suite import raw_task
from kdjax.data.tasks.tfds_files import tfds_root, tfds_sources
from kdjax.errors import InputError
from kdjax.storage.paths import local_path
from kdjax.text import tfds


def glue_tasks(place: str, tasks: tuple[SuiteTask, ...]) -> Iterator[RawTask]:
    """Yield tasks of GLUE, from any of its layouts.

    Args:
        place: `evaluation.glue`: a directory, `tfds:DIR` or `tfds:glue`.
        tasks: tasks to read.

    Raises:
        InputError: the directory has none of the layouts, or a task is missing.
    """
    if place.startswith(tfds.PREFIX):
        tfds_root(place)
        for task in tasks:
            yield raw_task(task, tfds_sources(place, task))
        return
    root = local_path(place, "evaluation.glue")
    # A directory of one layout may be mixed with another's: each task is taken where it is.
    official = [task for task in GLUE if has_task(root, task)]
    hub = [task for task in GLUE if has_hub_task(root, task)]
    if not official and not hub:
        raise InputError(f"evaluation.glue, {place}: {_advice(root)}")
    for task in tasks:
        if task in official:
            yield raw_task(task, official_sources(root, task))
        elif task in hub:
            yield raw_task(task, hub_sources(root, task))
        else:
            looked_for = f"{task.title}/train.tsv" if official else f"{task.name}/train.jsonl"
            raise InputError(
                f"evaluation.glue, {place}: task {task.name} is missing, expected {looked_for}, or "
                f"evaluation.suite_tasks without {task.name}"
            )


def babylm_tasks(place: str, tasks: tuple[SuiteTask, ...]) -> Iterator[RawTask]:
    """Yield tasks of BabyLM.

    Args:
        place: `evaluation.babylm`: the directory `glue_filtered`.
        tasks: tasks to read.

    Raises:
        InputError: the directory has another layout, or a task is missing.
    """
    root = local_path(place, "evaluation.babylm")
    if not any(root.glob("*.train.jsonl")):
        hint = ""
        inner = next(root.glob("**/glue_filtered"), None)
        if inner is not None:
            hint = f"; it holds {inner}"
        elif any(has_task(root, task) or has_hub_task(root, task) for task in GLUE):
            hint = "; it looks like GLUE, which evaluation.glue is for"
        raise InputError(
            f"evaluation.babylm, {place}: has no TASK.train.jsonl, expected BabyLM's "
            f"glue_filtered{hint}"
        )
    for task in tasks:
        yield raw_task(task, babylm_sources(root, task))


def _advice(root: Path) -> str:
    """Return a hint on a directory without a task of GLUE: the layout that it looks like."""
    expected = (
        "expected a directory with CoLA/train.tsv and the like, or cola/train-….parquet or "
        "cola/train.jsonl"
    )
    if not root.is_dir():
        return f"is no directory, {expected}"
    if any(root.glob(f"*/*/{tfds.INFO}")):
        return f"looks like what TFDS prepared, expected tfds:{root} for it"
    if any(root.glob("*.train.jsonl")):
        return "looks like BabyLM's glue_filtered, which evaluation.babylm is for"
    if any(root.glob("train.*")) or any(root.glob("train-*")):
        return f"looks like one task's directory, expected the one above it, {root.parent}"
    for inner in sorted(path for path in root.iterdir() if path.is_dir()):
        if any(has_task(inner, task) or has_hub_task(inner, task) for task in GLUE):
            return f"has no task of GLUE, but {inner} has, expected that"
    return f"has no task of GLUE, {expected}"
