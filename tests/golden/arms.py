"""The paper's four arms between tiny models: what PyTorch's loss and gradients were recorded
for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.cases import Case, Pair
from kdjax import models
from kdjax.config import ModelConfig
from tests.support import tiny

BERT = Pair(
    replace(tiny.STUDENT, type_vocab_size=2),
    replace(tiny.TEACHER, dropout=0.0, attention_dropout=0.0),
)
"""Models with learned positions and post-LN."""


def with_rotary(model: ModelConfig) -> ModelConfig:
    """Return the model with rotary positions and pre-LN, as the demo's are."""
    return replace(model, positions="rotary", rotary_base=100.0, norm="pre", embedding_norm=False)


PAIRS = {"bert": BERT, "rotary": Pair(with_rotary(BERT.student), with_rotary(BERT.teacher))}
PATH = Path(__file__).parent / "pytorch_arms.npz"


@dataclass(frozen=True)
class ArmInputs:
    """All that the loss of one arm on one batch depends on.

    Attributes:
        case: arm, models and shape.
        student: parameters of the student.
        teacher: parameters of the teacher.
        objective: parameters of the objective's terms.
        batch: with packing, padding and unused slots.
    """

    case: Case
    student: Any
    teacher: Any
    objective: Any
    batch: Mapping[str, np.ndarray]


def random_like(tree: Any, seed: int) -> Any:
    """Fill a tree of shapes with NumPy's numbers, so wide that attention and logits are far from
    even."""
    rng = np.random.default_rng(seed)

    def fill(path: Any, leaf: Any) -> np.ndarray:
        values = rng.normal(0, 0.15, leaf.shape).astype(np.float32)
        return values + 1 if "scale" in jax.tree_util.keystr(path) else values

    return jax.tree_util.tree_map_with_path(fill, tree)


def inputs(arm: str, pair: str = "bert") -> ArmInputs:
    """Make the inputs of an arm between a pair of models; they are the same for ever and on every
    machine.

    Args:
        arm: one of the paper's four.
        pair: a key of `PAIRS`.
    """
    case = Case(arm, PAIRS[pair], tiny.SHAPE)
    return ArmInputs(
        case,
        random_like(models.abstract_params(case.pair.student), 0),
        random_like(models.abstract_params(case.pair.teacher), 1),
        random_like(jax.eval_shape(case.phase.init_objective, 0), 2),
        tiny.batch(3),
    )


def loss_and_gradients(arm_inputs: ArmInputs) -> dict[str, np.ndarray]:
    """Compute kdjax's loss (`loss`) and gradients, by their path in the parameters."""
    phase = arm_inputs.case.phase
    params = {"model": arm_inputs.student, "objective": arm_inputs.objective}
    graded = jax.jit(jax.value_and_grad(lambda p, t, b: phase.loss_fn()(p, t, b)[0]))
    loss, gradients = graded(params, phase.teacher_part(arm_inputs.teacher), dict(arm_inputs.batch))
    results = {"loss": np.asarray(loss)}
    mask = jax.tree_util.tree_leaves_with_path(phase.gradient_mask)
    has_gradient = {jax.tree_util.keystr(path): used for path, used in mask}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        if has_gradient[name]:
            results[name] = np.asarray(leaf)
    return results


def recorded(arm: str, pair: str = "bert") -> dict[str, np.ndarray]:
    """Read PyTorch's loss (`loss`) and gradients, by kdjax's path in the parameters and in its
    layout."""
    prefix = f"{pair}:{arm}:"
    with np.load(PATH) as archive:
        return {
            name.removeprefix(prefix): x for name, x in archive.items() if name.startswith(prefix)
        }
