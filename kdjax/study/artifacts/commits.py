"""Names on the Hugging Face Hub in a recipe, and the commits that a study holds on to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdjax.config import Config
from kdjax.storage import hub
from kdjax.study.manifest import NAME, read_manifest


def stored_commits(out: Path) -> dict[str, str]:
    """Read the commits that a study began with; none where it is new.

    Raises:
        InputError: its `study.json` is not whole.
    """
    path = out / NAME
    if not path.exists():
        return {}
    commits: dict[str, str] = read_manifest(path).get("commits", {})
    return commits


def pin_commits(config: Config, stored: Mapping[str, str]) -> tuple[Config, dict[str, str]]:
    """Put the commit in the place of each branch and tag of the Hub that a recipe names.

    A recipe without names on the Hub is returned as it is, and nothing is asked of any server.

    Args:
        config: the recipe.
        stored: names as the user wrote them -> commits that a study has begun with; of all others
            the Hub is asked.

    Returns:
        The recipe, and the commits by the names as the user wrote them.

    Raises:
        InputError: there is no such repository or revision, access is not granted, or the Hub
            cannot be reached.
    """
    commits: dict[str, str] = {}

    def pin(text: str) -> str:
        """Return a name with its commit; what is no name on the Hub as it is."""
        if not hub.is_hub_name(text):
            return text
        name = hub.parse(text)
        if text in stored:
            name = replace(name, revision=stored[text])
        name = hub.at_commit(name)
        commits[text] = name.revision
        return str(name)

    # All settings that may name something on the Hub.
    data = config.data
    tokenizer = data.tokenizer
    if isinstance(tokenizer, str):
        tokenizer = pin(tokenizer)
    teacher_tokenizer = pin(data.teacher_tokenizer)
    files: Any = _each(data.files, pin)
    teacher = replace(config.teacher, source=pin(config.teacher.source))
    evaluation = config.evaluation
    texts: Any = {name: _each(text, pin) for name, text in evaluation.texts.items()}
    tasks = {name: replace(task, file=pin(task.file)) for name, task in evaluation.tasks.items()}
    if not commits:
        return config, commits
    pinned_config = replace(
        config,
        data=replace(data, files=files, tokenizer=tokenizer, teacher_tokenizer=teacher_tokenizer),
        teacher=teacher,
        evaluation=replace(evaluation, texts=texts, tasks=tasks),
    )
    return pinned_config, commits


def _each(files: str | tuple[str, ...], pin: Callable[[str], str]) -> str | tuple[str, ...]:
    """Apply a function to a name, or to each of several."""
    if isinstance(files, str):
        return pin(files)
    return tuple(pin(file) for file in files)
