"""The jaxpr count: a traced program's FLOPs without XLA, to cross-check XLA's own count.

Every `dot_general` counts 2 x the product of its dimensions, and elementwise work one FLOP an
element, as XLA has it. Loops count by their trip count where they are allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
from jax.extend import core

from kdjax.errors import InputError

Loops = Literal["refused", "once", "whole"]
"""What is done with a loop: it is refused, counted as XLA does (its body once), or by its trip
count."""

_UNCOUNTABLE = frozenset(
    {"while", "cond", "pallas_call", "custom_call", "ffi_call", "tpu_custom_call"}
)
"""XLA counts a body of unknown trip count once, of a branch the largest side, and a kernel as
nothing, or as -1, which adds up silently."""
_NEUTRAL = {"add": 0, "mul": 1}
"""Constants with which an operation changes nothing."""
_MOVES = frozenset(
    [
        "reshape",
        "broadcast_in_dim",
        "transpose",
        "squeeze",
        "expand_dims",
        "slice",
        "dynamic_slice",
        "concatenate",
        "dynamic_update_slice",
        "pad",
        "rev",
        "iota",
        "copy",
        "copy_p",
        "split",
        "stop_gradient",
        "random_bits",
        "random_wrap",
        "random_unwrap",
        "random_seed",
        "random_fold_in",
        "optimization_barrier",
    ]
)
"""What brings data from place to place: 0 FLOPs."""
_TRANSCENDENTAL = frozenset(
    [
        "exp",
        "exp2",
        "log",
        "log1p",
        "expm1",
        "tanh",
        "sin",
        "cos",
        "erf",
        "sqrt",
        "rsqrt",
        "cbrt",
        "pow",
    ]
)
"""What XLA counts apart from FLOPs, as transcendentals."""


class FlopCountError(InputError):
    """A program whose FLOPs cannot be counted reliably.

    XLA's count is absent, not positive, or in disagreement with the jaxpr count. An objective of
    the user's own can cause it, or a version of JAX that counts otherwise.
    """


@dataclass(frozen=True)
class JaxprCount:
    """The independent count of a traced program, in FLOPs."""

    matmul: int
    elementwise: int

    @property
    def total(self) -> int:
        """Sum matmuls and elementwise work."""
        return self.matmul + self.elementwise


def count_jaxpr(jaxpr: core.Jaxpr, loops: Loops = "refused") -> JaxprCount:
    """Count the FLOPs of a traced program, without what its results do not depend on.

    Args:
        jaxpr: traced program, before XLA has compiled it.
        loops: treatment of a scan that is not unrolled whole.

    Raises:
        FlopCountError: it holds a loop that is refused, a loop of unknown length, a branch or a
            custom kernel.
    """
    matmul = 0
    elementwise = 0
    zeros: set[core.Var] = set()
    for eqn in _live(jaxpr):
        name = eqn.primitive.name
        turns = _turns(eqn, loops)

        # A program inside counts as often as it runs. That of a scatter only says how two values
        # become one, which is counted with the scatter itself.
        inner = []
        if not name.startswith("scatter"):
            inner = [count_jaxpr(body, loops) for body in core.jaxprs_in_params(eqn.params)]
        if inner:
            matmul += turns * sum(body.matmul for body in inner)
            elementwise += turns * sum(body.elementwise for body in inner)
        elif name == "dot_general":
            matmul += dot_flops(eqn)
        elif name in {"broadcast_in_dim", "square"} and _is_constant(0, eqn.invars[0], zeros):
            # An array of zeros: what is added to it is not counted, see `_changes_nothing`.
            zeros.update(eqn.outvars)
        elif name not in _MOVES | _TRANSCENDENTAL and not _changes_nothing(eqn, zeros):
            elementwise += _elementwise_flops(eqn)
    return JaxprCount(matmul, elementwise)


def dot_flops(eqn: core.JaxprEqn) -> int:
    """Count the FLOPs of a `dot_general`: a multiply-add, 2, for each element and contraction."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    lhs: Any = eqn.invars[0].aval
    width: int = math.prod(lhs.shape[axis] for axis in contracted)
    return 2 * _size(eqn.outvars[0]) * width


def _turns(eqn: core.JaxprEqn, loops: Loops) -> int:
    """Return the number of times that the program inside an equation is counted.

    Raises:
        FlopCountError: it is a branch, a kernel, or a loop that is refused.
    """
    name = eqn.primitive.name
    length: int = eqn.params["length"] if name == "scan" else 1
    # A scan that is unrolled whole is no loop.
    is_loop = name == "scan" and eqn.params["unroll"] < length
    if name in _UNCOUNTABLE or (is_loop and loops == "refused"):
        raise FlopCountError(
            f"the program holds `{name}`, whose FLOPs XLA does not count truly: expected the plain "
            "program, without loops, branches and custom kernels"
        )
    # JAX makes a loop whose body is `unroll` turns, and writes out the rest of them beside it.
    if is_loop and loops == "once":
        length = eqn.params["unroll"] + length % eqn.params["unroll"]
    return length


def _live(jaxpr: core.Jaxpr) -> list[core.JaxprEqn]:
    """Find the equations that the program's results depend on: XLA counts nothing else."""
    needed = {v for v in jaxpr.outvars if isinstance(v, core.Var)}
    live = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or needed.intersection(eqn.outvars):
            needed |= {v for v in eqn.invars if isinstance(v, core.Var)}
            live.append(eqn)
    return live[::-1]


def _elementwise_flops(eqn: core.JaxprEqn) -> int:
    """Count one FLOP an element of the result, but for what XLA counts otherwise."""
    name = eqn.primitive.name
    size = _size(eqn.outvars[0])
    # A reduction of n elements to one takes n - 1 operations.
    if name.startswith(("reduce_", "arg")):
        return _size(eqn.invars[0]) - size
    # A scatter adds each element of its updates.
    if name.startswith("scatter"):
        return _size(eqn.invars[2])
    if name == "gather":
        return _bounds_check_flops(eqn)
    # By squaring and multiplying; for a negative exponent, 1 is divided by the result.
    if name == "integer_pow":
        exponent: int = eqn.params["y"]
        return size * max(0, exponent.bit_length() + exponent.bit_count() - 2 + (exponent < 0))
    return size


def _bounds_check_flops(gather: core.JaxprEqn) -> int:
    """Count the FLOPs of a gather: those of its bounds check.

    A gather checks bounds where it fills what is out of range; any other one only moves data.
    """
    if gather.params["mode"] != jax.lax.GatherScatterMode.FILL_OR_DROP:
        return 0
    coordinates: Any = gather.invars[1].aval
    indices: int = math.prod(coordinates.shape[:-1])
    # Each coordinate against two bounds, all of these together, and a choice for each element.
    return 4 * _size(gather.invars[1]) - indices + _size(gather.outvars[0])


def _changes_nothing(eqn: core.JaxprEqn, zeros: set[core.Var]) -> bool:
    """Return whether it is x + 0 or 1 x, as Optax writes them: XLA drops these before it counts."""
    neutral = _NEUTRAL.get(eqn.primitive.name)
    return neutral is not None and any(_is_constant(neutral, value, zeros) for value in eqn.invars)


def _is_constant(number: int, value: core.Var | core.Literal, zeros: set[core.Var]) -> bool:
    """Return whether a value is the constant `number`, as a literal or, if 0, among `zeros`."""
    if isinstance(value, core.Literal):
        return bool(value.val == number)
    return number == 0 and value in zeros


def _size(value: Any) -> int:
    """Return the number of elements of an array."""
    size: int = math.prod(value.aval.shape)
    return size
