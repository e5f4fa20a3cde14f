"""The arms of a recipe, resolved from its settings and checked against one another."""

from __future__ import annotations

from kdjax.arms.check_verdicts import check_verdicts
from kdjax.config import Config, FinetuneConfig, ModelConfig, changed
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.training.arm import Arm, resolve
from kdjax.training.phase import BatchShape
from kdjax.training.run_mask_rate import check_mask_rate
from kdjax.training.teacher.directories import teacher_seeds


def batch_shape_of(config: Config, batch_size: int | None = None) -> BatchShape:
    """Return the shape of a batch of a recipe's sequences.

    Args:
        config: the recipe.
        batch_size: sequences of the batch; None: as many as a step of training takes.
    """
    batch_size = batch_size or config.train.batch_size
    return BatchShape(batch_size, config.data.seq_len, config.data.max_predictions)


def arms_of(config: Config) -> dict[str, Arm]:
    """Resolve a recipe's arms, from settings alone.

    Raises:
        InputError: no arms, an unknown arm, an objective these models do not allow, sequences
            longer than the models' positions, stored outputs without mask views; or under a budget
            of hours a pruned start, a masking rate that changes or a warm-up of its own budget.
    """
    if not config.arms:
        raise InputError("arms is empty, expected at least one arm, for instance {scratch: {}}")
    teacher_config = zoo.resolve(config.teacher.architecture, "teacher.architecture")
    optimizer = config.train.optimizer
    # Each by itself, its phases split where a batch ramp changes the batch.
    arms = {}
    for name, settings in config.arms.items():
        arm = resolve(
            name,
            settings,
            config.student,
            teacher_config,
            optimizer,
            config.cache,
            config.data.own_seq_len,
        )
        arms[name] = arm.ramped(config.train.batch_ramp)
    # Against the recipe, which all arms share.
    check_mask_rate(config.data, config.budget.kind)
    for arm in arms.values():
        _check_models(config, arm, teacher_config)
        _check_finetuning(config, arm)
        if config.train.grad_accum_steps > 1:
            for phase in arm.phases:
                phase.check_splits()
        if arm.start.prunes and config.budget.kind == "hours":
            raise InputError(
                f"arms.{arm.name}: start.cut is 'prune' under budget.hours, expected 'project': "
                "the time of calibrating is not on a run's clock"
            )
        _check_warmup(config, arm)
        if arm.stored_features:
            _check_cached(config, arm)
    check_verdicts(config, arms)
    return arms


def _check_warmup(config: Config, arm: Arm) -> None:
    """Check that a warm-up of its own budget has a unit that the run's budget has.

    Raises:
        InputError: the run's budget is of hours.
    """
    warmup_budget = arm.phases[0].optimizer.warmup_budget
    if warmup_budget and config.budget.kind == "hours":
        raise InputError(
            f"arms.{arm.name}: optimizer.warmup_budget is {warmup_budget:g} under budget.hours, "
            "expected 0: a clock decides how long the warm-up is"
        )


def _check_models(config: Config, arm: Arm, teacher_config: ModelConfig) -> None:
    """Check that an arm's models can read the recipe's sequences.

    Raises:
        InputError: another vocabulary than the other arms' students, or sequences that are longer
            than a model's positions.
    """
    vocab_size = zoo.resolve(config.student).vocab_size
    if arm.student_config.vocab_size != vocab_size:
        raise InputError(
            f"arms.{arm.name}.student.vocab_size is {arm.student_config.vocab_size}, expected "
            f"student.vocab_size, {vocab_size}: arms read the same text"
        )
    evaluation = config.evaluation
    lengths = [
        ("data.seq_len", config.data.seq_len, "student", arm.student_config),
        ("evaluation.seq_len", evaluation.seq_len, "student", arm.student_config),
    ]
    # The teacher reads only what an arm shows it, and the tasks that it is probed on: it is not
    # fine-tuned.
    if arm.uses_teacher or arm.start.prunes:
        own_seq_len = config.data.own_seq_len
        if own_seq_len:
            row = ("data.teacher_seq_len", own_seq_len, "teacher.architecture", teacher_config)
            lengths.append(row)
        else:
            lengths.append(
                ("data.seq_len", config.data.seq_len, "teacher.architecture", teacher_config)
            )
        # One that reads tokens of its own is not measured.
        if "probe" in evaluation.protocols and not own_seq_len:
            row = ("evaluation.seq_len", evaluation.seq_len, "teacher.architecture", teacher_config)
            lengths.append(row)
    for length_setting, length, setting, model in lengths:
        if length > model.max_positions:
            raise InputError(
                f"{length_setting} is {length}, expected at most {setting}.max_positions, "
                f"{model.max_positions} tokens"
            )


def _check_cached(config: Config, arm: Arm) -> None:
    """Check that the recipe allows an arm that reads stored teacher outputs.

    Raises:
        InputError: a budget of hours, several teachers, no fixed masks, or a rate of masking that
            changes.
    """
    # A run under a clock would read for free what took time to store.
    if config.budget.kind == "hours":
        raise InputError(
            f"arms.{arm.name}: teacher is 'cached' under budget.hours, expected 'online': the time "
            "that storing took is not on a run's clock"
        )
    teachers = teacher_seeds(config)
    if len(teachers) > 1:
        raise InputError(
            f"arms.{arm.name}: teacher is 'cached' and there are {len(teachers)} teachers, of the "
            f"seeds {list(teachers)}, expected 'online': outputs are stored of one teacher"
        )
    # Stored outputs belong to masks of one rate.
    if config.data.mlm_probability_start:
        raise InputError(
            f"arms.{arm.name}: teacher is 'cached' and data.mlm_probability_start "
            f"{config.data.mlm_probability_start:g}, expected 'online': a sequence's masks change "
            "with the rate, and stored outputs belong to fixed masks"
        )
    # New masks in each epoch would need outputs that are not stored.
    if config.data.mask_copies < 1:
        raise InputError(
            f"arms.{arm.name}: teacher is 'cached' and data.mask_copies 0, expected at least 1: "
            "stored outputs belong to fixed masks"
        )


def _check_finetuning(config: Config, arm: Arm) -> None:
    """Check that an arm's own settings of fine-tuning are such settings.

    Raises:
        InputError: a setting that there is not, or that cannot be.
    """
    # Settings are checked where they are put together.
    finetuning_of(config, arm)


def finetuning_of(config: Config, arm: Arm) -> FinetuneConfig:
    """Return the fine-tuning settings of an arm's students.

    Raises:
        InputError: a setting that there is not, or that cannot be.
    """
    setting_name = f"arms.{arm.name}.finetune"
    finetuning: FinetuneConfig = changed(
        config.evaluation.finetune, arm.config.finetune, setting_name
    )
    return finetuning
