"""Students that start from teachers."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from kdjax.config import ModelConfig, StartConfig
from kdjax.models import Model
from kdjax.training.starts.start import start_params
from tests.support import tiny


@functools.cache
def teacher(**changes: Any) -> Model:
    """Make a teacher in which no bias is 0 and no LayerNorm scale 1."""
    config = dataclasses.replace(tiny.TEACHER, **changes)
    leaves, tree = jax.tree.flatten(tiny.params(config, 9))
    # Zeros and ones would hide a leaf that is forgotten.
    rng = np.random.default_rng(5)
    shaken = [
        np.asarray(leaf) + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32)
        for leaf in leaves
    ]
    return Model(config, jax.tree.unflatten(tree, shaken))


def narrow(of: ModelConfig = tiny.TEACHER, **changes: Any) -> ModelConfig:
    """Make a student of two layers."""
    return dataclasses.replace(of, layers=2, **changes)


def start(student: ModelConfig, from_: Model, layers: Any = "lower", seed: int = 0) -> Any:
    """Return the parameters that a student takes from a teacher."""
    return start_params(StartConfig("teacher", layers), student, from_, seed)
