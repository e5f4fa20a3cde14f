"""The parts of a layer, each beside plain JAX: values, gradients, their types, and what they
keep."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from kdjax.models import lean
from tests.tolerance import rounding

F32 = jnp.float32
BF16 = jnp.bfloat16
ROUNDING = {F32: rounding(128), BF16: 2**-7}
"""How far apart two ways of computing may be, relative to the norm of a whole array."""


def drawn(*shape, seed=0, dtype=F32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def differentiated(function, *args):
    """A function's results and its gradients, compiled as one."""

    @jax.jit
    def run(*args):
        made, pull = jax.vjp(function, *args)
        along = jax.tree.map(
            lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape).astype(x.dtype), made
        )
        return made, pull(along)

    return run(*args)


def distance(got, want):
    got, want = (np.asarray(x, np.float64) for x in (got, want))
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def alike(function, plain, *args, types=None):
    """`function` in the type of its first argument, and `plain` in float32, are near."""
    got = differentiated(function, *args)
    want = differentiated(plain, *(x.astype(F32) for x in args))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.shape == b.shape
        assert distance(a, b) < ROUNDING[args[0].dtype.type]
    value, gradients = got
    assert [x.dtype for x in gradients] == [x.dtype for x in args]
    return value


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_linear(dtype, activated):
    args = drawn(3, 10, 12, dtype=dtype), drawn(12, 20, seed=1), drawn(20, seed=2)
    made = alike(
        lambda *args: lean.linear(*args, activated),
        lambda x, kernel, bias: x @ kernel + bias,
        *args,
    )
    assert made.dtype == dtype


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_decode_gives_float32(dtype):
    made = alike(
        lean.decode,
        lambda x, table, bias: jnp.einsum("BSD,VD->BSV", x, table) + bias,
        *(drawn(3, 4, 12, dtype=dtype), drawn(30, 12, seed=1), drawn(30, seed=2)),
    )
    assert made.dtype == F32


@pytest.mark.parametrize("part", ["linear", "decode"])
def test_the_gradient_of_a_bias_is_summed_in_float32(part):
    """In bfloat16 a sum of ones stands still at 256."""
    x = jnp.ones((1, 3000, 1), BF16)
    kernel = jnp.ones((1, 1))
    made, pull = jax.vjp(lambda bias: getattr(lean, part)(x, kernel, bias), jnp.zeros(1))
    np.testing.assert_array_equal(pull(jnp.ones_like(made))[0], [3000])


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_layer_norm(dtype):
    def plain(x, scale, bias):
        centred = x - x.mean(-1, keepdims=True)
        return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias

    args = drawn(3, 10, 12, dtype=dtype), drawn(12, seed=1), drawn(12, seed=2)
    made = alike(lambda *args: lean.layer_norm(*args, 1e-5), plain, *args)
    assert made.dtype == dtype


def test_layer_norm_takes_rows_far_from_zero():
    """E[x²] − E[x]² would cancel."""
    x = 300 + drawn(2, 5, 64)
    made = np.asarray(lean.layer_norm(x, jnp.ones(64), jnp.zeros(64), 1e-12), np.float64)
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(
        made, (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True), atol=1e-3
    )


def test_look_up_sums_a_frequent_rows_gradient_in_float32_and_drops_what_is_out_of_range():
    index = jnp.array([[1] * 3000 + [4, 7]])
    # The bfloat16 nearest to 3000
    for table, total in (
        (drawn(5, 3), 3000),
        (drawn(5, 3).astype(BF16), 3008),
    ):
        made, pull = jax.vjp(lambda table: lean.look_up(table, index), table)
        assert made.dtype == jnp.float32 and np.isnan(made[0, -1]).all()
        np.testing.assert_array_equal(made[0, :-1], table[index[0, :-1]].astype(jnp.float32))
        (gradient,) = pull(jnp.ones_like(made))
        assert gradient.dtype == table.dtype
        np.testing.assert_array_equal(gradient[:, 0], [0, total, 0, 0, 1])


def test_gelu_in_float32_is_exact():
    x = jnp.linspace(-12, 12, 20001)
    value, pull = jax.vjp(lean.gelu, x)
    (slope,) = pull(jnp.ones_like(x))
    wide = np.asarray(x, np.float64)
    # Φ is added up of a polynomial of ten terms, none above 1; the value is x Φ, the slope Φ + x φ.
    error = rounding(10) * (1 + np.abs(wide))
    assert np.all(np.abs(value - wide * ndtr(wide)) <= error)
    assert np.all(np.abs(slope - ndtr(wide) - wide * density(wide)) <= error)


def density(x):
    return np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)


def test_gelu_of_every_bfloat16_is_exact_but_for_its_rounding():
    """Rounding to bfloat16 errs by up to 2^-8 of the value; the polynomial adds at most 0.6 of
    2^-9."""
    every = np.arange(2**16, dtype=np.uint16).view(BF16)
    x = every[np.isfinite(every.astype(np.float32))]
    value, pull = jax.vjp(lean.gelu, jnp.asarray(x))
    (slope,) = pull(jnp.ones_like(value))
    assert len(x) == 2**16 - 2**8 and value.dtype == slope.dtype == BF16
    wide = x.astype(np.float64)
    np.testing.assert_allclose(
        np.asarray(value, np.float64), wide * ndtr(wide), rtol=2**-8 + 0.6 * 2**-9, atol=1e-6
    )
    exact = ndtr(wide) + wide * density(wide)
    np.testing.assert_allclose(np.asarray(slope, np.float64), exact, rtol=2**-8, atol=2**-11)


def of_attention(dtype):
    """Two packed segments and padding, a full row; each head drops its own."""
    segments = np.array([[1] * 4 + [2] * 3 + [0] * 3, [1] * 10])
    allowed = jnp.asarray(segments[:, None, :, None] == segments[:, None, None])
    kept = jnp.asarray(np.random.default_rng(5).random((2, 3, 10, 10)) < 0.7)
    return [drawn(2, 3, 10, 8, seed=n, dtype=dtype) for n in range(3)], allowed, kept


def plain_attention(query, key, value, *, allowed, kept, rate):
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
    weights = jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf))
    return (weights if kept is None else jnp.where(kept, weights / (1 - rate), 0)) @ value, scores


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_attention(dtype, rate):
    arrays, allowed, kept = of_attention(dtype)
    kept = kept if rate else None
    mixed, scores = alike(
        lambda *args: lean.attention(*args, allowed, kept, rate),
        functools.partial(plain_attention, allowed=allowed, kept=kept, rate=rate),
        *arrays,
    )
    assert mixed.dtype == scores.dtype == dtype


def test_attention_takes_scores_of_any_size():
    (query, key, value), allowed, _ = of_attention(F32)
    (mixed, _), gradients = differentiated(
        lambda *x: lean.attention(*x, allowed, None, 0.0), 1e3 * query, key, value
    )
    want, _ = plain_attention(1e3 * query, key, value, allowed=allowed, kept=None, rate=0.0)
    np.testing.assert_allclose(mixed, want, rtol=1e-4, atol=1e-4)
    assert all(np.isfinite(x).all() for x in gradients)


def kept_by(function, *args):
    """The arrays that the backward pass of a function keeps, its arguments besides."""
    pull = jax.eval_shape(lambda *args: jax.vjp(function, *args)[1], *args)
    return [(x.shape, x.dtype) for x in jax.tree.leaves(pull)]


def test_of_arrays_that_grow_with_the_square_of_the_length_one_is_kept_and_what_dropout_keeps():
    arrays, allowed, kept = of_attention(BF16)
    square = (2, 3, 10, 10)
    found = [
        x
        for x in kept_by(lambda *x: lean.attention(*x, allowed, kept, 0.3), *arrays)
        if x[0] == square
    ]
    assert sorted(str(dtype) for _, dtype in found) == ["bfloat16", "bool"]


def test_gelu_keeps_its_derivative_alone():
    assert kept_by(lean.gelu, jnp.ones((4, 7), BF16)) == [((4, 7), BF16)]
