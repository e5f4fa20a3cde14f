"""The tasks of a recipe before anything is made: their rows, or GLUE's official sizes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from kdjax.config import Config
from kdjax.data.tasks.load import load_tasks
from kdjax.data.tasks.official_sizes import stand_in_tasks
from kdjax.data.tasks.task import Task
from kdjax.dry_run.minimal_pairs import known_tokenizer
from kdjax.errors import InputError
from kdjax.storage.paths import local_path
from kdjax.text import tfds
from kdjax.tokenizers.tokenizer_files import find_tokenizer


@dataclass(frozen=True)
class KnownTasks:
    """What is known of a recipe's tasks.

    Attributes:
        tasks: the tasks; of those by official size only sizes are right.
        official: whether GLUE's tasks are by official size.
        unknown: why some tasks are not known; empty: all are.
    """

    tasks: tuple[Task, ...]
    official: bool
    unknown: str


def known_tasks(config: Config) -> KnownTasks:
    """Read a recipe's tasks where their files and the tokenizer are there.

    Where GLUE's files are not, its official sizes stand in for them; of other tasks nothing is
    known then.
    """
    evaluation = config.evaluation
    seq_len = evaluation.seq_len or config.data.seq_len
    tokenizer = _tokenizer(config)
    is_absent = evaluation.suite == "glue" and not _is_there(evaluation.glue)
    official = evaluation.suite == "glue" and (is_absent or tokenizer is None)

    # The files that are read: all, or one's own tasks beside GLUE of official size.
    read = evaluation
    tasks: tuple[Task, ...] = ()
    unknown = ""
    if official:
        read = dataclasses.replace(evaluation, suite="", suite_tasks=())
    if tokenizer is None and read.task_results:
        unknown = "their tokenizer is not there yet"
    elif tokenizer is not None:
        try:
            tasks = load_tasks(read, tokenizer, seq_len)
        except InputError as e:
            unknown = str(e)
    if official:
        tasks += stand_in_tasks(evaluation, seq_len)
    return KnownTasks(tasks, official, unknown)


def _tokenizer(config: Config) -> Path | None:
    """Return the tokenizer's file, where it is on this machine; None: it is not."""
    try:
        path = known_tokenizer(config)
        # A teacher's directory has one, too.
        if path is None and config.teacher.source and not config.data.tokenizer:
            path = find_tokenizer(local_path(config.teacher.source, "teacher.source"))
    except InputError:
        return None
    if path is None or not path.is_file():
        return None
    return path


def _is_there(place: str) -> bool:
    """Return whether GLUE's directory is there."""
    if place.startswith(tfds.PREFIX):
        return True
    path: Path = local_path(place, "evaluation.glue")
    return path.is_dir()
