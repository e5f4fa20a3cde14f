"""A run's manifest: all that its result depends on, held against a directory used before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kdjax.config import first_difference, plain, to_dict
from kdjax.errors import InputError
from kdjax.study.machine import versions
from kdjax.study.run_backup import RunBackup
from kdjax.study.study import Study


def register_run(study: Study, arm: str, seed: int, backup: RunBackup) -> None:
    """Write a run's manifest to its directory and backup, or check the manifests that are there.

    Args:
        study: study that the run belongs to.
        arm: name of the run's arm.
        seed: seed of the run.
        backup: place of its files besides its directory.

    Raises:
        InputError: the directory or the backup holds another run.
    """
    plan = study.plan
    artifacts = study.artifacts
    teacher_facts = None
    if plan.arms[arm].needs_teacher:
        teacher_facts = artifacts.teachers[artifacts.teacher_number(seed)].facts
    manifest = {
        "arm": arm,
        "seed": seed,
        "arm_settings": plain(to_dict(plan.arms[arm].config)),
        "cost": study.costs[arm].to_json(),
        "budget": plain(asdict(plan.budget)),
        "corpus": artifacts.corpus.digest,
        "texts": {name: text.digest for name, text in artifacts.texts.items()},
        "teacher": teacher_facts,
        "config": plain(to_dict(plan.config)),
    }
    # Both places may hold another run: the directory, or the backup of one of the same name.
    local = backup.local_manifest()
    stored = backup.stored_manifest()
    _check_same_run(backup.manifest_path, local, manifest, "--out")
    _check_same_run(backup.directory, stored, manifest, "train.checkpoint.directory")
    backup.register(local or stored or {**manifest, **versions()})


def _check_same_run(
    place: Any, stored: Mapping[str, Any] | None, manifest: Mapping[str, Any], setting: str
) -> None:
    """Check that a manifest that was stored before, if any, is of the same run.

    Args:
        place: path of the stored manifest, for messages.
        stored: content of the stored manifest; None: there is none.
        manifest: manifest of the run as the recipe has it.
        setting: name of a setting that gives another place.

    Raises:
        InputError: the stored manifest is another run's.
    """
    if not stored:
        return
    # The recipe as a whole may differ: arms and seeds may join, and some settings change nothing.
    for name in ("arm_settings", "cost", "budget", "corpus", "texts", "teacher"):
        difference = first_difference(stored[name], manifest[name], name)
        if difference:
            part, before, now = difference
            raise InputError(
                f"{place}: this run's {part} is {before!r}, expected {now!r}; use another {setting}"
            )
