"""The audit of what a run of each arm costs."""

from __future__ import annotations

from collections.abc import Mapping

from kdjax.arms.charges import own_charges, per_run_share, runs_sharing_cache
from kdjax.arms.recipe_arms import arms_of
from kdjax.arms.teacher_cost import TeacherCost
from kdjax.audit.artifacts import AuditedArtifacts
from kdjax.config import plain, to_dict
from kdjax.recipes import from_dict
from kdjax.storage.files import digest
from kdjax.storage.typed_json import from_plain, to_plain
from kdjax.study.manifest import ArmCost
from kdjax.training.arm import Arm
from kdjax.training.phase_price import price


def audited_costs(artifacts: AuditedArtifacts) -> dict[str, ArmCost]:
    """Recount the cost of a run of each arm, and add a finding where study.json says otherwise.

    Where the study was made under another version of JAX, the recorded cost is returned in place of
    the counted one.

    Args:
        artifacts: the study with its text and teacher, and the findings so far.

    Returns:
        Arm -> its cost; an arm whose cost cannot be told is left out.
    """
    study = artifacts.study
    costs = {}
    for name, arm in study.arms.items():
        with study.findings.record_errors(study.manifest_path):
            costs[name] = _cost(artifacts, arm)
    return costs


def _cost(artifacts: AuditedArtifacts, arm: Arm) -> ArmCost:
    """Compute the cost of a run of an arm; under another JAX than the study's, as recorded."""
    study = artifacts.study
    counted = [price(phase, phase.batch_shape(study.batch_shape)) for phase in arm.phases]
    study.tally["prices"] += len(counted)
    recorded = study.manifest["costs"][arm.name] if study.manifest else {}
    cost = ArmCost(tuple(counted), _upfront(artifacts, arm, recorded.get("upfront", {})))
    if recorded:
        study.findings.expect_equal(
            study.manifest_path, recorded, to_plain(cost), f"costs.{arm.name}", study.note
        )
        if study.note:
            return from_plain(ArmCost, recorded, f"{study.manifest_path}: costs.{arm.name}")
    return cost


def _upfront(artifacts: AuditedArtifacts, arm: Arm, stored: Mapping[str, int]) -> dict[str, int]:
    """Sum the FLOPs charged before the first step: probe, stored outputs and teacher."""
    study = artifacts.study
    upfront = own_charges(study.config, arm)
    if arm.stored_features:
        # Arms and seeds may have joined since the share was fixed: any share that follows from the
        # recipe of one of the runs is right.
        recipes = {digest(values): values for values in study.recipes}
        recipes.pop(digest(plain(to_dict(study.config))), None)
        known = [study.config, *(from_dict(plain(values)) for values in recipes.values())]
        flops = artifacts.cache_flops
        run_counts = [runs_sharing_cache(config, arms_of(config)) for config in known]
        shares = [per_run_share(flops, runs) for runs in run_counts]
        recorded = stored.get("teacher_cache", 0)
        upfront["teacher_cache"] = recorded if recorded in shares else shares[0]
    if arm.needs_teacher and artifacts.teacher:
        cost = TeacherCost.from_facts(artifacts.teacher).charged_to(arm)
        upfront["teacher_training"] = per_run_share(cost, study.config.budget.students)
    return upfront
