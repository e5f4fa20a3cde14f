"""Charges of a run before its first step: an MLM probe, a pruned start, stored outputs, the
teacher."""

from __future__ import annotations

from collections.abc import Mapping

from kdjax.arms.recipe_arms import batch_shape_of
from kdjax.arms.teacher_cost import TeacherCost, cost_by_recipe
from kdjax.config import Config, ModelConfig
from kdjax.evaluation.mlm_probe import ProbeCost, cost_of
from kdjax.models import FeatureRequest, zoo
from kdjax.storage.paths import local_path
from kdjax.training.arm import Arm
from kdjax.training.phase import BatchShape
from kdjax.training.starts.start import start_flops
from kdjax.training.teacher_cache.fill import cache_price, forward_pass_count
from kdjax.training.teacher_cache.manifest import CacheManifest


def per_run_share(flops: int, runs: int) -> int:
    """Divide FLOPs that several runs share by the number of runs, rounded up.

    Args:
        flops: FLOPs that the runs share.
        runs: number of runs that share them.
    """
    return -(-flops // runs)


def probe_batch_shape(config: Config) -> BatchShape:
    """Return the shape of the batches that an MLM probe is fitted on."""
    return batch_shape_of(config, config.evaluation.mlm_probe.batch_size)


def probe_cost(config: Config, model: ModelConfig) -> ProbeCost | None:
    """Count the FLOPs of fitting an MLM probe on a model; None where the recipe has no probe.

    Args:
        config: resolved recipe, with `evaluation.mlm_probe`.
        model: configuration of the model that the probe is fitted on.

    Raises:
        InputError: the probe has fewer tokens than two of its steps take.
    """
    settings = config.evaluation.mlm_probe
    if not settings.tokens:
        return None
    return cost_of(settings, model, probe_batch_shape(config))


def probe_charge(config: Config, arm: Arm) -> dict[str, int]:
    """Compute what a run's budget is charged for its MLM probe, as `{"mlm_probe": FLOPs}`.

    Empty where the recipe has no probe or does not charge it (`evaluation.mlm_probe.charged`).

    Args:
        config: resolved recipe, with `evaluation.mlm_probe`.
        arm: arm of the run; the probe is fitted on its student.

    Raises:
        InputError: the probe has fewer tokens than two of its steps take.
    """
    cost = probe_cost(config, arm.student_config)
    if cost is None or not config.evaluation.mlm_probe.charged:
        return {}
    return {"mlm_probe": cost.total}


def calibration_charge(config: Config, arm: Arm) -> dict[str, int]:
    """Compute what a run is charged for calibrating its start, as `{"calibration": FLOPs}`.

    Calibration runs the teacher on some text to choose what a pruned student keeps of it. Each run
    pays for all of it, as if it were alone. Empty for starts that need none.

    Args:
        config: resolved recipe, with the teacher and the length of sequences.
        arm: arm of the run.
    """
    teacher_config = zoo.resolve(config.teacher.architecture)
    flops = start_flops(arm.start, arm.student_config, teacher_config, config.data.seq_len)
    if not flops:
        return {}
    return {"calibration": flops}


def own_charges(config: Config, arm: Arm) -> dict[str, int]:
    """Compute the charges before its first step that a run shares with no other.

    Args:
        config: resolved recipe.
        arm: arm of the run.

    Returns:
        Ledger account (`mlm_probe`, `calibration`) -> FLOPs; an account without a charge is absent.

    Raises:
        InputError: the MLM probe has fewer tokens than two of its steps take.
    """
    return probe_charge(config, arm) | calibration_charge(config, arm)


def stored_features(arms: Mapping[str, Arm]) -> FeatureRequest:
    """Return the teacher outputs that a study's arms read from storage."""
    request = FeatureRequest()
    for arm in arms.values():
        request |= arm.stored_features
    return request


def runs_sharing_cache(config: Config, arms: Mapping[str, Arm]) -> int:
    """Count the runs that share the cost of stored teacher outputs.

    Those are all seeds of every arm that reads them, unless the recipe says how many
    (`cache.shared_by`).

    Args:
        config: resolved recipe.
        arms: all arms of the recipe, by name.
    """
    cached_arms = [arm for arm in arms.values() if arm.stored_features]
    # A recipe may say that runs of other studies share it as well.
    return config.cache.shared_by or len(config.seeds) * len(cached_arms)


def cache_flops(config: Config, request: FeatureRequest, sequences: int) -> int:
    """Compute the FLOPs of storing the teacher's outputs, or read what storing them has cost.

    Args:
        config: resolved recipe, with the teacher and how its outputs are stored.
        request: outputs of the teacher that are stored.
        sequences: number of training sequences, of which all views are stored.
    """
    # A cache made before says what it cost.
    if config.cache.source:
        directory = local_path(config.cache.source, "cache.source")
        return int(CacheManifest.read(directory).totals["flops"])
    batch_shape = batch_shape_of(config, config.cache.batch_size)
    teacher_config = zoo.resolve(config.teacher.architecture)
    flops_per_pass = cache_price(teacher_config, request, batch_shape, config.data.own_seq_len)
    views = config.data.mask_copies
    return flops_per_pass * forward_pass_count(sequences, views, batch_shape.batch_size)


def teacher_flops(config: Config, arm: Arm) -> int:
    """Return the FLOPs of making the teacher that an arm uses, by the recipe and the card.

    They are those of its training and tuning, and of a fitted head if the arm uses one; students
    do not share them yet.

    Args:
        config: resolved recipe, with the teacher and who pays for it.
        arm: arm that uses the teacher.

    Raises:
        InputError: it is charged and not known, or a budget of the teacher's buys no step.
    """
    cost = cost_by_recipe(config)
    cost.check(config.budget.teacher)
    return cost.charged_to(arm)


def upfront_charges(
    config: Config,
    arms: Mapping[str, Arm],
    arm: Arm,
    train_sequences: int,
    teacher_cost: TeacherCost | None,
) -> dict[str, int]:
    """Compute a run's charges before its first step, by account.

    It is spent by then, but for an MLM probe: that is fitted when training has ended, and what it
    will take is set aside.

    Args:
        config: resolved recipe, with the budget and who pays for the teacher.
        arms: all arms, which share the cost of stored outputs.
        arm: arm of the run that is charged.
        train_sequences: number of training sequences, whose outputs are stored.
        teacher_cost: cost of the teacher; None where the run owes nothing for it.

    Returns:
        FLOPs by account: `mlm_probe`, where the recipe charges it, `calibration`,
        `teacher_cache` and `teacher_training`; without the accounts that the arm has no use for.

    Raises:
        InputError: the teacher's training is charged and its cost is not known.
    """
    charges = own_charges(config, arm)
    if arm.stored_features:
        flops = cache_flops(config, stored_features(arms), train_sequences)
        charges["teacher_cache"] = per_run_share(flops, runs_sharing_cache(config, arms))
    if teacher_cost is not None:
        teacher_cost.check(config.budget.teacher)
        charges["teacher_training"] = per_run_share(
            teacher_cost.charged_to(arm), config.budget.students
        )
    return charges
