"""Compare loss and gradients of an arm's step between kdjax and PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from benchmarks.cases import Case
from benchmarks.torch_arms import Torch, named

TOLERANCE = 1e-4


def differences(
    case: Case,
    params: Any,
    teacher: Any,
    objective: Any,
    batch: Mapping[str, np.ndarray],
    *,
    other_teacher: Any = None,
) -> dict[str, float]:
    """Compute the relative differences of `loss` and of each gradient, in float32.

    Of a gradient: the norm of the difference over the norm, by PyTorch's name of the parameter.
    Where only one of the two has a gradient, infinity.

    Args:
        case: the arm; its student has no dropout.
        params, teacher: parameters of both models.
        objective: parameters of the terms.
        batch: a batch on the host.
        other_teacher: PyTorch's teacher, where it is another one.
    """
    phase = case.phase
    all_params = {"model": params, "objective": objective}
    loss_and_grads = jax.jit(jax.value_and_grad(lambda p, t, b: phase.loss_fn()(p, t, b)[0]))
    loss, grads = loss_and_grads(all_params, phase.teacher_part(teacher), dict(batch))
    # What is frozen has a gradient in kdjax and none in PyTorch.
    ours = named(_trained_leaves(phase.gradient_mask, grads))
    torch_step = Torch(case, params, other_teacher or teacher, [batch], objective=objective)
    torch_loss, theirs = torch_step.gradients()

    relative = dict.fromkeys(sorted(ours.keys() | theirs.keys()), math.inf)
    for name in ours.keys() & theirs.keys():
        norm = np.linalg.norm(ours[name])
        relative[name] = float(np.linalg.norm(ours[name] - theirs[name]) / norm)
    return {"loss": abs(float(loss) - torch_loss) / abs(float(loss)), **relative}


def _trained_leaves(gradient_mask: Any, grads: Any) -> Any:
    """Return the leaves of nested dictionaries that are trained."""
    if not isinstance(grads, dict):
        return grads
    leaves = {}
    for name, value in grads.items():
        if any(jax.tree.leaves(gradient_mask[name])):
            leaves[name] = _trained_leaves(gradient_mask[name], value)
    return leaves
