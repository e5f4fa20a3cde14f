"""Groups of trials that are trained side by side, and their size."""

from __future__ import annotations

from collections.abc import Sequence

from kdjax.config import ModelConfig
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.models import abstract_params, count_params
from kdjax.parallel.layout import Layout

MOST_LANES = 8
"""The most lanes where they are not set."""
MOST_PARAMETERS = 100_000_000
"""Parameters of all lanes together: with gradients and moments 1.6 GB. A model of 6 x 768 has a
lane alone."""


def groups(specs: Sequence[TrialSpec], lanes: int) -> list[tuple[TrialSpec, ...]]:
    """Divide trials into groups that are trained side by side.

    Trials of a group have the same rows, batch size, epochs and steps. Groups follow from the
    trials alone, not from which are finished: so a trial that goes on has the company it had.

    Args:
        specs: trials, in the order in which they are trained.
        lanes: the most trials of a group.
    """
    alike: dict[object, list[TrialSpec]] = {}
    for spec in specs:
        hyperparameters = spec.setting
        key = (hyperparameters.batch_size, hyperparameters.epochs, hyperparameters.steps, spec.draw)
        alike.setdefault(key, []).append(spec)
    divided = []
    for members in alike.values():
        divided += [tuple(members[n : n + lanes]) for n in range(0, len(members), lanes)]
    return divided


def lanes_of(lane_count: int, model: ModelConfig, layout: Layout) -> int:
    """Return the most trials that are trained side by side.

    On a CPU one: several at once take an eighth more processor time than one after another
    (docs/evaluation.md has the table). An accelerator is idle for most of a small model's step, so
    there as many as `MOST_PARAMETERS` allow.

    Args:
        lane_count: `evaluation.finetune.lanes`; 0: as many as is faster.
        model: configuration of the encoder.
        layout: devices that they are trained on.
    """
    if lane_count:
        return lane_count
    if layout.mesh.devices.flat[0].platform == "cpu":
        return 1
    parameters = sum(count_params(abstract_params(model, mlm=False)))
    return int(min(MOST_LANES, max(1, MOST_PARAMETERS // parameters)))
