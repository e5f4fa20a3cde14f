"""The price of each arm's steps, and how far the budget reaches, before anything is spent."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

from kdjax.arms.charges import (
    cache_flops,
    calibration_charge,
    per_run_share,
    probe_cost,
    runs_sharing_cache,
    stored_features,
    upfront_charges,
)
from kdjax.arms.recipe_arms import arms_of, batch_shape_of
from kdjax.arms.teacher_cost import cost_by_recipe
from kdjax.budget.accounting import CASES, Budget
from kdjax.budget.price import Price
from kdjax.config import Config
from kdjax.data.corpus import Corpus, apply_regime
from kdjax.dry_run.minimal_pairs import known_pairs, pairs_cost
from kdjax.models import zoo
from kdjax.storage.paths import local_path
from kdjax.storage.typed_json import to_plain
from kdjax.training.arm import Arm
from kdjax.training.phase_price import price
from kdjax.training.teacher.source import CachedTeacher
from kdjax.training.teacher_cache.fill import cache_price
from kdjax.training.teacher_cache.manifest import record_bytes

PriceRow = dict[str, Any]
"""What one phase of an arm costs, and what the budget buys it.

- FLOPs of a step by part (`PARTS`), their `total`, and `charged`, what a budget pays of it.
- `batch`: sequences of a step. `until`: share of the budget at which the phase ends.
- `steps`, `tokens`, `epochs`, `words`: what the budget buys; None where it is not known. Without a
  prepared corpus `tokens` are positions, padding included, and epochs and words are not known. An
  arm that reads stored outputs has no steps then, and a budget of hours has none of the four.
- `cache`, of an arm that reads stored outputs: what they cost, and after how many epochs that is
  less than running the teacher in every step.
- `mlm_probe`, of a recipe with one: FLOPs of a run, and whether they are `charged`.
- `calibration`, of an arm whose start prunes the teacher: FLOPs, and `sequences` that it takes.
- `minimal_pairs`, of a recipe with them: FLOPs, which no budget is charged; None without a
  tokenizer.
"""
PriceRows = dict[str, list[PriceRow]]
"""Arm -> a row for each of its phases."""


def prices(config: Config) -> PriceRows:
    """Compute what a step of each arm and phase costs, and what the budget buys of them.

    Nothing is trained; a corpus is read only where `data.prepared` names one.

    Args:
        config: resolved recipe.

    Raises:
        InputError: an arm, the budget or a file that the recipe names cannot be used.
    """
    corpus = None
    if config.data.prepared:
        prepared = local_path(config.data.prepared, "data.prepared")
        corpus = apply_regime(config.data, Corpus.open(prepared))
    arms = arms_of(config)
    rows = {name: _arm_rows(config, arms, arm, corpus) for name, arm in arms.items()}
    if config.evaluation.minimal_pairs.directory:
        pairs = known_pairs(config)
        for name, arm in arms.items():
            flops = pairs_cost(config, arm, pairs) if pairs is not None else None
            for row in rows[name]:
                row["minimal_pairs"] = {"flops": flops}
    return rows


def _arm_rows(
    config: Config, arms: dict[str, Arm], arm: Arm, corpus: Corpus | None
) -> list[PriceRow]:
    """Return a row for each phase of an arm."""
    batch_shape = batch_shape_of(config)
    budget = Budget.from_config(config.budget)
    step_prices = [price(phase, phase.batch_shape(batch_shape)) for phase in arm.phases]

    # What a row of this arm has besides its price.
    extras: dict[str, Any] = {}
    if arm.stored_features:
        extras["cache"] = _cache(config, arms, arm, step_prices, corpus)
    probe = probe_cost(config, arm.student_config)
    if probe is not None:
        charged = config.evaluation.mlm_probe.charged
        extras["mlm_probe"] = {"flops": probe.total, "charged": charged}

    if calibration := calibration_charge(config, arm):
        extras["calibration"] = {
            "flops": calibration["calibration"],
            "sequences": arm.start.calibration_sequences,
        }

    # Without the corpus nobody knows a run's share of stored outputs, nor what it leaves for steps.
    reach = [dict.fromkeys(("steps", "tokens", "epochs", "words")) for _ in step_prices]
    if budget.countable and not (arm.stored_features and corpus is None):
        reach = _reach(config, arms, arm, step_prices, corpus)
    rows = []
    for phase, step_price, reached in zip(arm.phases, step_prices, reach, strict=True):
        rows.append(
            {
                **to_plain(step_price),
                "charged": budget.charges(step_price.parts()),
                "until": phase.until,
                "batch": phase.batch_shape(batch_shape).batch_size,
                **reached,
                **extras,
            }
        )
    return rows


def _reach(
    config: Config,
    arms: dict[str, Arm],
    arm: Arm,
    step_prices: list[Price],
    corpus: Corpus | None,
) -> list[dict[str, Any]]:
    """Compute steps, tokens, epochs and words of each phase of an arm.

    Args:
        config: resolved recipe, with the budget and the length of sequences.
        arms: all arms of the recipe.
        arm: arm that spends the budget.
        step_prices: prices of a step, phase by phase.
        corpus: the prepared text, if any.
    """
    # A teacher's cost may take long to count, or not be known: only where it is charged.
    teacher_cost = None
    if arm.needs_teacher and "teacher_training" in CASES[config.budget.teacher]:
        teacher_cost = cost_by_recipe(config)
    sequences = corpus.sequences("train") if corpus is not None else 0
    upfront = upfront_charges(config, arms, arm, sequences, teacher_cost)
    budget = Budget.from_config(config.budget)
    rows = []
    for span in arm.schedule_phases(budget, step_prices, batch_shape_of(config), upfront):
        tokens = span.steps * span.tokens_per_step
        epochs = None
        words = None
        if corpus is not None:
            epochs = tokens // config.data.seq_len / sequences
            tokens = round(epochs * corpus.tokens("train"))
            words = corpus.manifest.words_in(tokens)
        rows.append({"steps": span.steps, "tokens": tokens, "epochs": epochs, "words": words})
    return rows


def _cache(
    config: Config, arms: dict[str, Arm], arm: Arm, step_prices: list[Price], corpus: Corpus | None
) -> dict[str, Any]:
    """Compute a run's cost for stored outputs, and when they are cheaper than the teacher itself.

    Args:
        config: resolved recipe, with the teacher and how its outputs are stored.
        arms: all arms of the recipe.
        arm: arm that reads stored outputs.
        step_prices: prices of a step, one for each of its phases.
        corpus: the prepared text, if any.
    """
    teacher_config = zoo.resolve(config.teacher.architecture)
    request = stored_features(arms)
    runs = runs_sharing_cache(config, arms)
    views = config.data.mask_copies
    batch_shape = batch_shape_of(config, config.cache.batch_size)
    own_seq_len = config.data.own_seq_len
    source = CachedTeacher(teacher_config, request, config.cache, own_seq_len)
    fields = source.stored_fields(batch_shape.seq_len, batch_shape.max_predictions)
    bytes_a_sequence = record_bytes(fields) * views

    # With a prepared corpus it is known how many sequences there are.
    total_bytes = None
    flops = None
    flops_share = None
    if corpus is not None:
        sequences = corpus.sequences("train")
        total_bytes = bytes_a_sequence * sequences
        flops = cache_flops(config, request, sequences)
        flops_share = per_run_share(flops, runs)

    # They pay off once a run has saved its share: both are of one sequence.
    flops_per_batch = cache_price(teacher_config, request, batch_shape, own_seq_len)
    cost = Fraction(flops_per_batch, batch_shape.batch_size) * views / runs
    saved_an_epoch = _saved_an_epoch(config, arm, step_prices)
    epochs = float(cost / saved_an_epoch) if saved_an_epoch > 0 else None
    return {
        "bytes_a_sequence": bytes_a_sequence,
        "bytes": total_bytes,
        "flops": flops,
        "shared_by": runs,
        "share": flops_share,
        "pays_off_after_epochs": epochs,
    }


def _saved_an_epoch(config: Config, arm: Arm, step_prices: list[Price]) -> Fraction:
    """Compute the FLOPs that stored outputs save a sequence in an epoch, over the arm's phases."""
    # Phases count by their shares of the budget.
    saved = Fraction(0)
    begin = 0.0
    for phase, step_price in zip(arm.phases, step_prices, strict=True):
        if isinstance(phase.teacher_source, CachedTeacher):
            batch_shape = phase.batch_shape(batch_shape_of(config))
            online = replace(phase, teacher_source=phase.teacher_source.online)
            difference = price(online, batch_shape).total - step_price.total
            saved += Fraction(phase.until - begin) * Fraction(difference, batch_shape.batch_size)
        begin = phase.until
    return saved
