"""Which of the two programs is traced."""

import jax
import jax.numpy as jnp
import pytest

from kdjax.models.reference import is_canonical, reference


def test_a_block_is_canonical_and_what_is_around_it_is_as_it_was():
    assert not is_canonical()
    with reference():
        assert is_canonical()
        with pytest.raises(ZeroDivisionError), reference():
            raise ZeroDivisionError
        assert is_canonical()
    assert not is_canonical()


@pytest.mark.parametrize("first", [True, False])
def test_a_compiled_function_is_both_programs_in_any_order(first):
    inner = jax.jit(lambda x: x + is_canonical())
    outer = jax.jit(lambda x: 10 * inner(x))

    def run(canonically):
        if not canonically:
            return int(outer(jnp.int32(0)))
        with reference():
            return int(outer(jnp.int32(0)))

    assert {which: run(which) for which in (first, not first, first)} == {True: 10, False: 0}
