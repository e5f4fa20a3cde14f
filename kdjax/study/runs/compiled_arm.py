"""An arm compiled for some of its runs, with the batches that each of them reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdjax.budget.price import Price
from kdjax.config import Config
from kdjax.data.corpus import Corpus
from kdjax.data.mask_rate import MaskRate
from kdjax.parallel.layout import Layout
from kdjax.study.batches import train_batches
from kdjax.training.arm import Arm
from kdjax.training.compiled_phase import CompiledPhase, compile_phase
from kdjax.training.phase import BatchShape
from kdjax.training.teacher.source import CachedTeacher
from kdjax.training.teacher_cache.store import Cache


def compile_arm(
    arm: Arm,
    prices: Sequence[Price],
    batch_shape: BatchShape,
    seeds: Sequence[int],
    *,
    config: Config,
    corpus: Corpus,
    layout: Layout,
    teacher_params: Any,
    cache: Cache | None = None,
    mask_rate: MaskRate | None = None,
) -> dict[int, list[CompiledPhase]]:
    """Compile an arm's phases for the runs of some seeds together, and open their batches.

    All seeds learn from one teacher, which is placed on the devices once.

    Args:
        arm: the arm.
        prices: price of a step of each phase.
        batch_shape: shape of a batch, before any ramp of its size.
        seeds: seeds of the runs.
        config: the recipe.
        corpus: the text.
        layout: layout of the devices.
        teacher_params: parameters of the teacher; None where the arm looks at none.
        cache: stored teacher outputs, for phases that read them.
        mask_rate: masking rate of the runs, where it changes over the budget.

    Returns:
        Seed -> the phases of its run.
    """
    compiled_phases = {seed: list[CompiledPhase]() for seed in seeds}
    for phase, price in zip(arm.phases, prices, strict=True):
        phase_shape = phase.batch_shape(batch_shape)
        # Order and masks are a seed's own, stored outputs or not.
        stored = cache if isinstance(phase.teacher_source, CachedTeacher) else None
        streams = []
        for seed in seeds:
            stream = train_batches(config, corpus, phase_shape.batch_size, seed, stored, mask_rate)
            streams.append(stream)
        phase_of_seeds = compile_phase(
            phase, price, phase_shape, streams, layout, config.train, teacher_params
        )
        for seed, compiled_phase in zip(seeds, phase_of_seeds, strict=True):
            compiled_phases[seed].append(compiled_phase)
    return compiled_phases
