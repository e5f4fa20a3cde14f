"""AdamW with linear warm-up and linear decay over the budget."""

from __future__ import annotations

from typing import Any

import jax
import optax

from kdjax.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, before: float, after: float) -> float:
    """Compute a step's learning rate: linear up to the peak, then linear down to 0 at the end.

    Step i (from 0) of n equal steps with a warm-up of w steps has peak * min((i + 1) / w, (n - i) /
    (n - w)).

    Args:
        config: the peak and the warm-up.
        before: share of the budget spent before the step.
        after: share of it spent after the step.
    """
    # The line that falls, and where it is lower the one that rises
    factor = min((1 - before) / (1 - config.warmup), 1.0)
    if config.warmup:
        factor = min(after / config.warmup, factor)
    return config.learning_rate * max(0.0, factor)


def decays(params: Any) -> Any:
    """Return which leaves weight decay shrinks: all but biases and LayerNorm scales."""

    def decayed(path: tuple[Any, ...], _: Any) -> bool:
        return str(path[-1].key).rpartition(".")[2] not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(decayed, params)


def adamw(config: OptimizerConfig) -> optax.GradientTransformation:
    """Build AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), for parameters nested or flat.

    What it returns is still to be multiplied by the step's learning rate (`apply`): Adam's
    direction and the weight decay alike, so a step takes `learning_rate * weight_decay` of a
    parameter off it.
    """
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    decay = optax.add_decayed_weights(config.weight_decay, mask=decays)
    if config.clip:
        return optax.chain(optax.clip_by_global_norm(config.clip), adam, decay)
    return optax.chain(adam, decay)


def apply(
    optimizer: optax.GradientTransformation, grads: Any, opt: Any, params: Any, rate: jax.Array
) -> tuple[Any, Any]:
    """Update the parameters and the optimiser's state once.

    Args:
        optimizer: the optimiser, but for the learning rate.
        grads: gradients of the parameters.
        opt: state of the optimiser.
        params: parameters, of the same structure as the gradients.
        rate: learning rate of the step.

    Returns:
        The new parameters, and the optimiser's new state.
    """
    directions, opt = optimizer.update(grads, opt, params)
    updates = jax.tree.map(lambda direction: -rate * direction, directions)
    return optax.apply_updates(params, updates), opt
