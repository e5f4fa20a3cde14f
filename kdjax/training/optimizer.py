"""Optimisers without their learning rate: AdamW, and Muon beside it; the update of a step."""

from __future__ import annotations

from typing import Any

import jax
import optax

from kdjax.config import OptimizerConfig
from kdjax.training.muon import muon_with_adam


def transformation(config: OptimizerConfig) -> optax.GradientTransformation:
    """Build a recipe's optimiser, for parameters as one flat mapping.

    What it returns is still to be multiplied by the step's learning rate (`apply_update`): the
    direction and the weight decay alike, so a step takes `learning_rate * weight_decay` of a
    parameter off it.
    """
    if config.name == "adamw":
        return adamw(config)
    decay = optax.add_decayed_weights(config.weight_decay, mask=weight_decay_mask)
    return _clipped(config, muon_with_adam(config, decay))


def weight_decay_mask(params: Any) -> Any:
    """Return a mask of the leaves that weight decay shrinks: not biases and LayerNorm scales."""

    def decayed(path: tuple[Any, ...], _: Any) -> bool:
        return str(path[-1].key).rpartition(".")[2] not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(decayed, params)


def adamw(config: OptimizerConfig) -> optax.GradientTransformation:
    """Build AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), for parameters nested or flat.

    What it returns is still to be multiplied by the step's learning rate (`apply_update`): Adam's
    direction and the weight decay alike, so a step takes `learning_rate * weight_decay` of a
    parameter off it.
    """
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    decay = optax.add_decayed_weights(config.weight_decay, mask=weight_decay_mask)
    return _clipped(config, adam, decay)


def _clipped(
    config: OptimizerConfig, *parts: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Chain the parts of an optimiser, behind the clipping of gradients where there is one."""
    if config.clip:
        return optax.chain(optax.clip_by_global_norm(config.clip), *parts)
    return optax.chain(*parts)


def apply_update(
    optimizer: optax.GradientTransformation,
    grads: Any,
    opt_state: Any,
    params: Any,
    rate: jax.Array,
) -> tuple[Any, Any]:
    """Update the parameters and the optimiser's state once.

    Args:
        optimizer: the optimiser, but for the learning rate.
        grads: gradients of the parameters.
        opt_state: state of the optimiser.
        params: parameters, of the same structure as the gradients.
        rate: learning rate of the step.

    Returns:
        The new parameters, and the optimiser's new state.
    """
    directions, opt_state = optimizer.update(grads, opt_state, params)
    updates = jax.tree.map(lambda direction: -rate * direction, directions)
    return optax.apply_updates(params, updates), opt_state
