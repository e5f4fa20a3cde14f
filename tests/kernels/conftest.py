"""TPUs that are none."""

from __future__ import annotations

import functools

import pytest

from kdjax.kernels import attention, layer_norm, relation, split
from kdjax.objectives import reductions


@pytest.fixture
def tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are traced as if for a TPU; its kernels run as plain JAX."""
    for module in (split, reductions):
        monkeypatch.setattr(module, "platform", lambda: "tpu")
    for kernel in (attention, layer_norm, relation):
        for name in ("forward", "backward"):
            monkeypatch.setattr(
                kernel, name, functools.partial(getattr(kernel, name), interpret=True)
            )
