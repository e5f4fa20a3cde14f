"""Which form of an operation is traced."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from kdjax.config import MeshConfig
from kdjax.models.ops import dispatch
from kdjax.models.ops.dispatch import is_reference_traced, trace_reference
from kdjax.parallel.layout import Layout


def test_trace_reference_holds_inside_its_block_even_after_an_error() -> None:
    assert not is_reference_traced()
    with trace_reference():
        assert is_reference_traced()
        # An error inside an inner block must not end the outer one.
        with pytest.raises(ZeroDivisionError), trace_reference():
            raise ZeroDivisionError
        assert is_reference_traced()
    assert not is_reference_traced()


@pytest.mark.parametrize("first", [True, False])
def test_compiled_function_is_traced_anew_in_each_form_in_any_order(first: bool) -> None:
    inner = jax.jit(lambda x: x + is_reference_traced())
    outer = jax.jit(lambda x: 10 * inner(x))

    def run(as_reference: bool) -> int:
        if not as_reference:
            return int(outer(jnp.int32(0)))
        with trace_reference():
            return int(outer(jnp.int32(0)))

    # A jitted function remembers its trace: it must remember one for each form.
    assert {form: run(form) for form in (first, not first, first)} == {True: 10, False: 0}


def chosen(**kernels: bool) -> str:
    """Return the form that is chosen, by its name."""
    forms = {name: lambda name=name: name for name in ("reference", "optimized", *kernels)}
    return dispatch.choose(**forms)()


def test_choose_takes_the_platforms_kernel_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A CPU has neither kernel.
    assert chosen(tpu=True, gpu=True) == "optimized"
    for platform in ("tpu", "gpu"):
        monkeypatch.setattr(dispatch, "platform", lambda platform=platform: platform)
        assert chosen(tpu=True, gpu=True) == platform
        assert chosen() == "optimized"
        # What is priced never has a kernel, whatever the platform.
        with trace_reference():
            assert chosen(tpu=True, gpu=True) == "reference"


@pytest.mark.usefixtures("tpu")
@pytest.mark.parametrize(("mesh", "form"), [({"fsdp": 2}, "tpu"), ({"tensor": 2}, "optimized")])
def test_choose_takes_no_kernel_where_devices_share_a_layer(
    mesh: dict[str, int], form: str
) -> None:
    with Layout.from_config(MeshConfig(**mesh)).mesh_context():
        # Parameters split over fsdp are whole when a layer runs; heads over tensor are not.
        assert chosen(tpu=True) == form
        assert dispatch.on_tpu() is (form == "tpu")


def test_on_tpu_is_false_on_a_cpu() -> None:
    assert not dispatch.on_tpu()
    with Layout.from_config().mesh_context():
        assert not dispatch.on_tpu()
