"""Where what a study makes before its runs lies: in its directory, or shared with other studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdjax.config import Config, plain, to_dict
from kdjax.config.model import drop_later_settings
from kdjax.storage.files import digest

ARTIFACTS = ("data", "texts", "teacher", "cache", "references")
"""The prepared corpus, other texts for evaluation, the teacher with its head, its stored outputs,
and the models measured for reference."""

_REGIME = ("regime", "unique_tokens", "subset_seed")
_LOADING = (
    "mlm_probability",
    "mlm_probability_start",
    "max_predictions",
    "masking",
    "mask_copies",
    "workers",
    "prepared",
)


def artifact_dirs(config: Config, out: Path, shared: Path | None = None) -> dict[str, Path]:
    """Return the directory of each of `ARTIFACTS`, by name.

    Args:
        config: resolved recipe, on which the content of each artifact depends.
        out: directory of the study, for artifacts that it keeps to itself.
        shared: a directory for several studies. There a name carries a digest of all that its
            content depends on, so studies that differ in something else share it.
    """
    if shared is None:
        return {name: out / name for name in ARTIFACTS}
    dependencies = _dependencies(config)
    return {name: shared / f"{name}-{digest(on)[:12]}" for name, on in dependencies.items()}


def _dependencies(config: Config) -> dict[str, Any]:
    """Return the settings that the content of each artifact depends on."""
    settings: dict[str, Any] = plain(to_dict(config))
    data = settings["data"]
    teacher = settings["teacher"]
    drop_later_settings(settings["student"])
    drop_later_settings(teacher["architecture"])
    text = _without(data, *_REGIME, *_LOADING)
    # The teacher's directory has its tokenizer, unless the recipe names one.
    corpus = [text, teacher["source"]]
    # A teacher that is trained here leaves each seed and all its checkpoints in directories of
    # their own.
    training = {**_without(teacher, "at"), "train": _without(teacher["train"], "seeds")}
    cached_arms = {n: arm for n, arm in settings["arms"].items() if arm["teacher"] == "cached"}
    student = settings["student"]
    evaluation = _without(settings["evaluation"], "contamination")
    return {
        "data": corpus,
        "texts": [*corpus, evaluation["texts"]],
        "teacher": [data, training],
        "cache": [data, teacher, student, settings["cache"], cached_arms],
        "references": [data, teacher, student, evaluation, settings["train"]["batch_size"]],
    }


def _without(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return settings but for some, by name."""
    return {name: value for name, value in settings.items() if name not in names}
