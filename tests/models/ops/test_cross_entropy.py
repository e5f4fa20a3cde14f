"""Cross-entropy beside Optax's, in float64."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.models import ops
from kdjax.models.ops import dispatch
from tests.models.ops.distributions import SHAPE, SIZES, assert_same, scores
from tests.models.ops.examples import differentiated

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("size", SIZES)
def test_cross_entropy_value_and_gradient_equal_optax(
    monkeypatch: pytest.MonkeyPatch, size: float, platform: str
) -> None:
    """The label's logit is found by another program on TPUs."""
    monkeypatch.setattr(dispatch, "platform", lambda: platform)
    logits = scores(0, size)
    labels = jnp.asarray(np.random.default_rng(1).integers(0, SHAPE[-1], SHAPE[:2]))
    optaxs = optax.softmax_cross_entropy_with_integer_labels
    assert_same(
        differentiated(lambda logits: ops.cross_entropy(logits, labels), logits),
        differentiated(lambda logits: optaxs(logits, labels), logits),
    )
