"""A run's manifest: all that its result depends on, held against a directory used before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdjax.budget.accounting import Budget
from kdjax.config import first_difference, plain, to_dict
from kdjax.errors import InputError
from kdjax.storage.typed_json import from_plain, to_plain
from kdjax.study.machine import versions
from kdjax.study.manifest import ArmCost
from kdjax.study.runs.run_backup import RunBackup
from kdjax.study.study import Study


@dataclass(frozen=True)
class RunManifest:
    """The content of a run's manifest.json.

    Attributes:
        arm: name of the run's arm.
        seed: random seed of the run.
        arm_settings: settings of the arm, as plain values.
        cost: cost of the arm's runs.
        budget: budget of the run.
        corpus: digest of the text.
        texts: name -> digest of a held-out text from elsewhere.
        teacher: facts of the seed's teacher; None where the arm needs none.
        config: resolved recipe, as plain values.
        kdjax, jax, python, device: versions and device the run was begun with.
    """

    arm: str
    seed: int
    arm_settings: dict[str, Any]
    cost: ArmCost
    budget: Budget
    corpus: str
    texts: dict[str, str]
    teacher: dict[str, Any] | None
    config: dict[str, Any]
    kdjax: str
    jax: str
    python: str
    device: str


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
    manifest = RunManifest(
        arm=arm,
        seed=seed,
        arm_settings=plain(to_dict(plan.arms[arm].config)),
        cost=study.costs[arm],
        budget=plan.budget,
        corpus=artifacts.corpus.digest,
        texts={name: text.digest for name, text in artifacts.held_out_texts.items()},
        teacher=teacher_facts,
        config=plain(to_dict(plan.config)),
        **versions(),
    )
    # Both places may hold another run: the directory, or the backup of one of the same name.
    local = backup.local_manifest()
    stored = backup.stored_manifest()
    _check_same_run(backup.manifest_path, local, manifest, "--out")
    _check_same_run(backup.directory, stored, manifest, "train.checkpoint.directory")
    backup.register(local or stored or to_plain(manifest))


def _check_same_run(place: Any, stored: Any, manifest: RunManifest, setting: str) -> None:
    """Check that a manifest that was stored before, if any, is of the same run.

    Args:
        place: place of the stored manifest.
        stored: content of the stored manifest, as JSON gives it; None: there is none.
        manifest: manifest of the run as the recipe has it.
        setting: name of a setting that gives another place.

    Raises:
        InputError: the stored manifest is another run's, or lacks a field that a run's has.
    """
    if not stored:
        return
    before = to_plain(from_plain(RunManifest, stored, f"{place}:"))
    now = to_plain(manifest)
    # The recipe as a whole may differ: arms and seeds may join, and some settings change nothing.
    for name in ("arm", "seed", "arm_settings", "cost", "budget", "corpus", "texts", "teacher"):
        difference = first_difference(before[name], now[name], name)
        if difference:
            setting_name, recorded, expected = difference
            raise InputError(
                f"{place}: this run's {setting_name} is {recorded!r}, expected {expected!r}; use "
                f"another {setting}"
            )
