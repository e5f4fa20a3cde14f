"""AdamW with linear warm-up and linear decay, sized to the number of steps the budget buys."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax.config import OptimizerConfig


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate of each step: a line up to the peak over the warm-up, then one down to 0 after the last step.

    Step i (from 0) of n with a warm-up of w steps has peak * min((i + 1) / w, (n - i) / (n - w)).
    """
    warmup = max(1, round(config.warmup * steps))
    decay = max(1, steps - warmup)

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        rising = (jnp.asarray(step, jnp.float32) + 1) / warmup
        falling = (steps - jnp.asarray(step, jnp.float32)) / decay
        return config.learning_rate * jnp.clip(jnp.minimum(rising, falling), 0.0, 1.0)

    return rate


def decays(params: Any) -> Any:
    """Which leaves weight decay shrinks: a tree of booleans, False for biases and LayerNorm scales."""

    def decayed(path: tuple[Any, ...], _: Any) -> bool:
        return str(path[-1].key).rpartition(".")[2] not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(decayed, params)


def adamw(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) on this schedule, for parameters nested or flat.

    Args:
        config: its settings.
        steps: length of the schedule.
    """
    adam = optax.adamw(
        schedule(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decays,
    )
    return optax.chain(optax.clip_by_global_norm(config.clip), adam) if config.clip else adam
