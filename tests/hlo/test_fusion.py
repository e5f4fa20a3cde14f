"""Elementwise work that fusions repeat, told apart from work that only looks alike."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest

from kdjax.budget.hardware import hardware_flops
from kdjax.hlo.fusion import repeated_flops
from tests.hlo.tpu_programs import TEXTS

HEAD = """HloModule m, entry_computation_layout={(f32[4,8]{1,0})->f32[4,8]{1,0}}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.s = f32[] add(%a, %b)
}

"""
TWO_FUSIONS = """%one (p.1: f32[4,8]) -> f32[4,8] {
  %p.1 = f32[4,8]{1,0} parameter(0)
  %m.1 = f32[4,8]{1,0} multiply(%p.1, %p.1), metadata={op_name="a"}
  ROOT %n.1 = f32[4,8]{1,0} negate(%m.1)
}

%other (p.2: f32[4,8]) -> f32[4] {
  %p.2 = f32[4,8]{1,0} parameter(0)
  %m.2 = f32[4,8]{1,0} multiply(%p.2, %p.2), metadata={op_name="b"}
  %z.2 = f32[] constant(0)
  ROOT %r.2 = f32[4]{0} reduce(%m.2, %z.2), dimensions={1}, to_apply=%sum
}

"""


def program(body: str, computations: str = TWO_FUSIONS) -> str:
    return f"{HEAD}{computations}ENTRY %main (x: f32[4,8]) -> f32[4,8] {{\n{body}\n}}\n"


def test_operation_in_two_fusions_is_repeated_once() -> None:
    body = """  %x = f32[4,8]{1,0} parameter(0)
  %f = f32[4,8]{1,0} fusion(%x), kind=kLoop, calls=%one
  ROOT %g = f32[4]{0} fusion(%x), kind=kLoop, calls=%other"""
    assert repeated_flops(program(body)) == 4 * 8


def test_operation_is_no_copy_where_the_fusions_take_other_values() -> None:
    body = """  %x = f32[4,8]{1,0} parameter(0)
  %f = f32[4,8]{1,0} fusion(%x), kind=kLoop, calls=%one
  ROOT %g = f32[4]{0} fusion(%f), kind=kLoop, calls=%other"""
    assert repeated_flops(program(body)) == 0


def test_reduction_that_is_repeated_counts_what_it_takes_in() -> None:
    body = """  %x = f32[4,8]{1,0} parameter(0)
  %f = f32[4]{0} fusion(%x), kind=kLoop, calls=%other
  ROOT %g = f32[4]{0} fusion(%x), kind=kLoop, calls=%other"""
    assert repeated_flops(program(body)) == 4 * 8 + (4 * 8 - 4)


def test_work_after_a_repeated_matmul_is_no_copy() -> None:
    body = """  %x = f32[8,8]{1,0} parameter(0)
  %d = f32[4,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %again = f32[4,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %f = f32[4,8]{1,0} fusion(%d), kind=kLoop, calls=%one
  ROOT %g = f32[4,8]{1,0} fusion(%again), kind=kLoop, calls=%one"""
    assert repeated_flops(program(body)) == 0


def test_work_outside_of_fusions_is_never_a_copy() -> None:
    body = """  %x = f32[4,8]{1,0} parameter(0)
  %m = f32[4,8]{1,0} multiply(%x, %x)
  %n = f32[4,8]{1,0} multiply(%x, %x)
  ROOT %g = f32[4,8]{1,0} add(%m, %n)"""
    assert repeated_flops(program(body)) == 0


def test_element_of_a_fused_tuple_is_the_value_it_was_made_from() -> None:
    pair = """%pair (p.3: f32[4,8]) -> (f32[4,8], f32[4,8]) {
  %p.3 = f32[4,8]{1,0} parameter(0)
  %m.3 = f32[4,8]{1,0} multiply(%p.3, %p.3)
  %n.3 = f32[4,8]{1,0} negate(%m.3)
  ROOT %t.3 = (f32[4,8]{1,0}, f32[4,8]{1,0}) tuple(%m.3, %n.3)
}

%abs (p.4: f32[4,8]) -> f32[4,8] {
  %p.4 = f32[4,8]{1,0} parameter(0)
  ROOT %n.4 = f32[4,8]{1,0} negate(%p.4)
}

"""
    body = """  %x = f32[4,8]{{1,0}} parameter(0)
  %f = (f32[4,8]{{1,0}}, f32[4,8]{{1,0}}) fusion(%x), kind=kLoop, calls=%pair
  %e = f32[4,8]{{1,0}} get-tuple-element(%f), index={index}
  ROOT %g = f32[4,8]{{1,0}} fusion(%e), kind=kLoop, calls=%abs"""
    assert repeated_flops(program(body.format(index=0), pair)) == 4 * 8
    assert repeated_flops(program(body.format(index=1), pair)) == 0


def test_text_that_is_no_program_is_refused() -> None:
    with pytest.raises(ValueError, match="no ENTRY computation"):
        repeated_flops("nothing")


@pytest.mark.parametrize("name", sorted(path.stem for path in TEXTS.glob("*.txt")))
def test_programs_for_tpus_are_read(name: str) -> None:
    assert repeated_flops((TEXTS / f"{name}.txt").read_text()) >= 0


def chain(x: jax.Array, weights: jax.Array) -> list[jax.Array]:
    """Compute a residual stream that every block's matmul reads: XLA fuses all of it into each of
    its readers."""
    outputs = []
    for weight in weights:
        product = x @ weight
        x = x * 0.5 + product - 0.25
        outputs.append(x)
    return outputs


def test_count_without_copies_is_the_mathematics_on_every_version_of_xla() -> None:
    rows = 32
    width = 16
    blocks = 12
    # Elementwise work is a good part of it: the matmuls are 16 wide.
    shapes = (
        jax.ShapeDtypeStruct((rows, width), jnp.float32),
        jax.ShapeDtypeStruct((blocks, width, width), jnp.float32),
    )
    traced = jax.jit(
        jax.grad(lambda x, w: functools.reduce(jnp.add, map(jnp.sum, chain(x, w))))
    ).trace(*shapes)
    compiled = traced.lower().compile()
    text = compiled.as_text()
    assert text is not None
    actual = hardware_flops(compiled, traced.jaxpr, 1, repeated=repeated_flops(text))
    # The gradient of x: a matmul a block, and two sums and a product an element of each.
    assert actual == pytest.approx(blocks * rows * width * (2 * width + 3), rel=0.15)
