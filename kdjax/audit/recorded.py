"""What a study's files record of it, and what follows from its recipe alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from kdjax.arms.recipe_arms import arms_of, batch_shape_of
from kdjax.audit.findings import WRITTEN, AuditFindings, shared_part
from kdjax.budget.accounting import Budget
from kdjax.config import Config, plain, to_dict
from kdjax.recipes import from_dict
from kdjax.results.store import RESULTS
from kdjax.storage.files import digest
from kdjax.study import manifest as study_manifest
from kdjax.study.artifacts.artifact_dirs import artifact_dirs
from kdjax.training.arm import Arm
from kdjax.training.phase import BatchShape


@dataclass(frozen=True)
class RecordedStudy:
    """A study as its files record it.

    Attributes:
        out: the study's directory.
        findings: collects the differences.
        results: content of results.json; empty where it is missing.
        manifest: content of study.json; empty where it is missing.
        recipes: recipes of the runs, as their manifests have them.
        config: the recipe.
        arms: name -> arm of the recipe.
        artifact_dirs: directories of what the runs share.
        batch_shape: shape of a batch.
        budget: budget of a run.
        note: remark to add to an expected price; empty under the JAX that the study ran under.
        tally: number of prices and of ledger entries that were worked out anew so far.
    """

    out: Path
    findings: AuditFindings
    results: dict[str, Any]
    manifest: dict[str, Any]
    recipes: Sequence[dict[str, Any]]
    config: Config
    arms: dict[str, Arm]
    artifact_dirs: dict[str, Path]
    batch_shape: BatchShape
    budget: Budget
    note: str
    tally: Counter[str] = field(default_factory=Counter)

    @property
    def manifest_path(self) -> Path:
        """Return the path of study.json."""
        return self.out / study_manifest.NAME

    @property
    def results_path(self) -> Path:
        """Return the path of results.json."""
        return self.out / RESULTS

    def run_config(self) -> dict[str, Any]:
        """Return the part of the recipe that all runs of the study share."""
        shared: dict[str, Any] = shared_part(
            plain(to_dict(self.config)), self.manifest.get("config", {})
        )
        return shared


def recorded_study(
    out: Path, shared: Path | None, results: dict[str, Any], findings: AuditFindings
) -> RecordedStudy | None:
    """Read a study's recipe and manifests, and compare its manifest with the recipe.

    Args:
        out: the study's directory.
        shared: directory that the studies of a sweep share; None: it is no sweep's.
        results: content of results.json.
        findings: collects the differences.

    Returns:
        The study; None where its recipe cannot be used, which is a difference.
    """
    manifest = findings.read(out / study_manifest.NAME)
    run_manifests = [findings.read(path) for path in sorted(out.glob("runs/*/manifest.json"))]
    configs = [content.get("config") for content in run_manifests]
    recipes = [config for config in configs if isinstance(config, dict)]

    # Without a recipe there is nothing to hold anything against.
    try:
        config = from_dict(plain(_recipe(results, recipes)))
        arms = arms_of(config)
        batch_shape = batch_shape_of(config)
        budget = Budget.from_config(config.budget)
    except Exception as error:
        findings.add(out / RESULTS, f"a recipe that cannot be used ({error})", WRITTEN)
        return None

    # Under another JAX prices may differ by a fraction of a per cent, and all else follows from
    # those that were recorded.
    recorded_under = {str(file["jax"]) for file in (results, *run_manifests) if "jax" in file}
    others = ", ".join(sorted(recorded_under - {jax.__version__}))
    note = f" (JAX {jax.__version__}; recorded under {others})" if others else ""
    study = RecordedStudy(
        out,
        findings,
        results,
        manifest,
        recipes,
        config,
        arms,
        artifact_dirs(config, out, shared),
        batch_shape,
        budget,
        note,
    )
    with findings.record_errors(study.manifest_path):
        findings.expect_equal(
            study.manifest_path, manifest.get("config", {}), study.run_config(), "config"
        )
    return study


def _recipe(results: Mapping[str, Any], recipes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Read the recipe from results.json.

    Where that does not match its digest, it is a run's but for arms and seeds.
    """
    config = results.get("config")
    of_runs = next(iter(recipes), {})
    if not isinstance(config, dict):
        return of_runs
    if digest(config) == results.get("config_digest") or not of_runs:
        return config
    joined = {name: config[name] for name in ("arms", "seeds") if name in config}
    return {**of_runs, **joined}
