"""Whether two implementations of an arm's step compute the same: its loss and every gradient, from
the same numbers."""

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
    """Relative differences between kdjax and PyTorch in float32, without dropout: of `loss`, and of
    each gradient.

    Of a gradient: the norm of the difference over the norm, by PyTorch's name of the parameter.
    Where only one of the two has a gradient, infinity.

    Args:
        case: the arm; its student has no dropout.
        params, teacher: of both models.
        objective: of the terms.
        batch: on the host.
        other_teacher: PyTorch's teacher, where it is another one.
    """
    phase = case.phase
    whole = {"model": params, "objective": objective}
    given = phase.teacher_part(teacher)
    graded = jax.jit(jax.value_and_grad(lambda p, t, b: phase.loss(p, t, b)[0]))
    loss, grads = graded(whole, given, dict(batch))
    own = named(_where(phase.trained, grads))
    other_loss, theirs = Torch(
        case, params, other_teacher or teacher, [batch], objective=objective
    ).gradients()
    found = {"loss": abs(float(loss) - other_loss) / abs(float(loss))}
    for name in sorted(own.keys() | theirs.keys()):
        alone = name not in own or name not in theirs
        found[name] = math.inf if alone else _relative(own[name], theirs[name])
    return found


def _where(trained: Any, grads: Any) -> Any:
    """Of nested dictionaries, the leaves that are trained."""
    if isinstance(grads, dict):
        return {
            name: _where(trained[name], value)
            for name, value in grads.items()
            if _any(trained[name])
        }
    return grads


def _any(trained: Any) -> bool:
    return any(jax.tree.leaves(trained))


def _relative(own: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(own - other) / np.linalg.norm(own))
