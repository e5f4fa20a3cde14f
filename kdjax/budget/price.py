"""The price of a step: its FLOPs by XLA's cost analysis, cross-checked by an independent count.

What is counted is `Lowered.cost_analysis()` of the step's reference program, because each of these
would make the figure depend on something else than the mathematics:

- Abstract shapes on one CPU device: the lowered program's count is global, a compiled one's per
  device, where replicated work counts on every device; and a TPU backend has no lowered count.
- Lowered, not compiled: XLA's optimisations, which change with its version, come later.
- float32: bfloat16 on a CPU adds conversions.
- Layers unrolled, no loop over parts of the batch: XLA counts a loop's body once (a scan that is
  unrolled whole is no loop).
- Plain attention: XLA counts a kernel as nothing.
- No rematerialisation: it counts again, and saves memory only.

A program with a loop, a branch or a kernel is refused. The jaxpr count (`kdjax.budget.jaxpr_count`)
walks the traced program by itself; if the two disagree by more than 1%, nothing runs. exp, tanh and
the like are in neither: XLA counts them apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from kdjax.budget.jaxpr_count import FlopCountError, JaxprCount, count_jaxpr
from kdjax.models.ops.dispatch import trace_reference

PARTS = ("student_forward", "student_backward", "teacher_forward", "objective", "optimizer")
"""The parts of a step, in the order in which tables have them."""

AGREEMENT = 0.01
"""Largest relative difference between XLA's count and the jaxpr count, and between the parts of a
step and the whole."""


@dataclass(frozen=True)
class Price:
    """FLOPs of one optimiser step, by part.

    Attributes:
        total: XLA's count of the whole step; the budget is charged this.
        student_forward, student_backward, teacher_forward, objective, optimizer: XLA's counts of
            the parts traced by themselves, scaled by a common factor (within 1% of 1) so that they
            add up to `total` exactly.
        jaxpr_matmul: the independent count of the step's matmuls.
        jaxpr_elementwise: the independent count of the rest.
    """

    total: int
    student_forward: int
    student_backward: int
    teacher_forward: int
    objective: int
    optimizer: int
    jaxpr_matmul: int
    jaxpr_elementwise: int

    def parts(self) -> dict[str, int]:
        """Return the FLOPs by part; they add up to `total`."""
        return {name: getattr(self, name) for name in PARTS}


@dataclass(frozen=True)
class Count:
    """One program counted twice.

    Attributes:
        flops: FLOPs of the program by XLA's count.
        jaxpr_count: FLOPs of the program counted from its jaxpr, to check the former.
        outputs: shapes that the program returns, for the next count, which takes them.
    """

    flops: int
    jaxpr_count: JaxprCount
    outputs: Any = field(default=None, compare=False)


def count_program_flops(program: Callable[..., Any], *shapes: Any) -> Count:
    """Count a program's FLOPs from the shapes of its arguments; nothing is compiled or run.

    Args:
        program: pure function whose FLOPs are counted.
        shapes: arguments of the program as `jax.ShapeDtypeStruct`.

    Raises:
        FlopCountError: XLA gives no usable count, or the program holds a loop, a branch or a
            kernel, which XLA does not count truly.
    """
    with trace_reference(), jax.default_device(jax.local_devices(backend="cpu")[0]):
        traced = jax.jit(program).trace(*shapes)
        # Lowered for the CPU on any machine: a TPU's backend gives no count of a lowered program.
        analysis = traced.lower(lowering_platforms=("cpu",)).cost_analysis() or {}
    jaxpr_count = count_jaxpr(traced.jaxpr.jaxpr)
    flops = analysis.get("flops")

    # XLA may give no count of a program that computes nothing, such as no teacher's forward pass.
    if jaxpr_count.total == 0 and flops is None:
        return Count(0, jaxpr_count, traced.out_info)
    if flops is None or not math.isfinite(flops) or flops <= 0:
        name = getattr(program, "__name__", "the program")
        raise FlopCountError(
            f"XLA's cost analysis gives {flops!r} FLOPs for {name}, expected about the jaxpr "
            f"count's {jaxpr_count.total:.6g}"
        )
    return Count(round(flops), jaxpr_count, traced.out_info)


def check_agreement(count: Count, name: str) -> int:
    """Return XLA's count of a program, once the independent count agrees with it.

    Args:
        count: both counts of the program.
        name: name of the program, for messages.

    Raises:
        FlopCountError: XLA's count and the independent one disagree.
    """
    matmul = count.jaxpr_count.matmul
    total = count.jaxpr_count.total
    if count.flops < matmul or abs(count.flops - total) > AGREEMENT * total:
        raise FlopCountError(
            f"XLA counts {count.flops:.6g} FLOPs in {name}, the jaxpr count {matmul:.6g} in "
            f"matmuls and {count.jaxpr_count.elementwise:.6g} besides: expected no less than the "
            f"matmuls, and the sum within {AGREEMENT:.0%}"
        )
    return count.flops


def reconcile(whole: Count, **parts: int) -> Price:
    """Make the price of a step from the count of the whole and of its parts.

    Args:
        whole: both counts of the step.
        parts: XLA's count of each of `PARTS`, traced by itself, in FLOPs.

    Raises:
        FlopCountError: XLA and the jaxpr count disagree on the whole, or the parts do not add up to
            it within 1%.
    """
    flops = check_agreement(whole, "a step")
    parts_sum = sum(parts.values())
    if abs(parts_sum - flops) > AGREEMENT * flops:
        raise FlopCountError(
            f"the parts of a step add up to {parts_sum:.6g} FLOPs, expected the whole's "
            f"{flops:.6g} within {AGREEMENT:.0%}"
        )
    # Traced by themselves, the parts differ from the whole by a little elementwise work: they are
    # scaled to it. The largest part takes the rounding, a few FLOPs, so that the sum is exact.
    scaled = {name: round(parts[name] * flops / parts_sum) for name in PARTS}
    scaled["student_backward"] += flops - sum(scaled.values())
    return Price(
        total=flops,
        jaxpr_matmul=whole.jaxpr_count.matmul,
        jaxpr_elementwise=whole.jaxpr_count.elementwise,
        **scaled,
    )
