"""Muon for the matrices of an encoder's layers, beside Adam for all other parameters.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a
matrix by the nearest matrix whose singular values are about 1: with A = X Xᵀ, each of a few
Newton-Schulz iterations makes X into a X + (b A + c A²) X. Optax's `scale_by_muon` does that.

Each matrix is made orthogonal by itself, as it is stored: queries, keys and values are three
matrices of all heads together, as in the authors' code. A loop over layers
(`train.compute.scan`) stacks layers within the forward pass alone, so the optimiser never sees a
stack.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from kdjax.config import OptimizerConfig
from kdjax.training.partition import Flat


class MuonWithAdamState(NamedTuple):
    """State of both optimisers, each over its own parameters by their dotted paths."""

    muon: Any
    adam: Any


def is_muon_matrix(name: str, leaf: Any) -> bool:
    """Return whether Muon updates a parameter: a kernel of one of the encoder's layers.

    Args:
        name: dotted path of the parameter in a state.
        leaf: the parameter, or its shape.
    """
    return name.startswith("model.layers.") and name.endswith(".kernel") and leaf.ndim == 2


def split(tree: Flat) -> tuple[Flat, Flat]:
    """Split flat parameters into those that Muon updates, and the rest."""
    matrices: Flat = {}
    rest: Flat = {}
    for name, leaf in tree.items():
        if is_muon_matrix(name, leaf):
            matrices[name] = leaf
        else:
            rest[name] = leaf
    return matrices, rest


def update_scale(config: OptimizerConfig, shape: tuple[int, ...]) -> float:
    """Compute the factor of a matrix's orthogonal update, `shape` being [inputs, outputs].

    With `consistent_rms` it is that times sqrt(max(m, n)) (Liu et al. 2025, arXiv 2502.16982), else
    sqrt(max(1, outputs / inputs)) (Jordan et al. 2024).
    """
    inputs, outputs = shape
    if config.consistent_rms:
        return config.consistent_rms * math.sqrt(max(inputs, outputs))
    return math.sqrt(max(1.0, outputs / inputs))


def muon_with_adam(
    config: OptimizerConfig, decay: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Build Muon for matrices of layers with Adam for the rest, over flat parameters.

    What it returns is still to be multiplied by the learning rate. Updates and weight decay of
    Muon's matrices are scaled by `muon_lr_scale`, as another learning rate would scale them.

    Args:
        config: settings of both.
        decay: transformation that adds the weight decay to updates.
    """

    def every_matrix(updates: Flat) -> dict[str, MuonDimensionNumbers]:
        return {name: MuonDimensionNumbers() for name in updates}

    # Iterations are written out (Optax unrolls its loop), so XLA counts each of them.
    muon = scale_by_muon(
        ns_steps=config.ns_steps,
        beta=config.momentum,
        eps=config.eps,
        nesterov=config.nesterov,
        weight_dimension_numbers=every_matrix,
    )
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)

    def init(params: Flat) -> MuonWithAdamState:
        matrices, rest = split(params)
        return MuonWithAdamState(muon.init(matrices), adam.init(rest))

    def update(
        grads: Flat, state: MuonWithAdamState, params: Flat | None = None
    ) -> tuple[Flat, MuonWithAdamState]:
        # Each optimiser its own parameters
        matrices, rest = split(grads)
        orthogonal, muon_state = muon.update(matrices, state.muon)
        others, adam_state = adam.update(rest, state.adam)

        # One update of all of them, with weight decay, on AdamW's scale of the learning rate
        scaled = {}
        for name, direction in orthogonal.items():
            scaled[name] = update_scale(config, direction.shape) * direction
        decayed, _ = decay.update({**scaled, **others}, decay.init(params), params)
        updates = {name: decayed[name] for name in grads}
        if config.muon_lr_scale != 1:
            for name in orthogonal:
                updates[name] = config.muon_lr_scale * updates[name]
        return updates, MuonWithAdamState(muon_state, adam_state)

    return optax.GradientTransformation(init, update)
