"""kdjax's features beside those of another implementation."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kdjax.config import ModelConfig
from kdjax.models import FeatureRequest

ATTENTION = ("query", "key", "value", "scores")
TOLERANCE = 1e-4
"""Absolute, in float32: features here are of the size of 1 to 10."""


def request(config: ModelConfig, *, logits: bool = True) -> FeatureRequest:
    """Ask for every feature of every layer."""
    layers = frozenset(range(1, config.layers + 1))
    return FeatureRequest(layers, layers, layers, layers, hidden=layers | {0}, logits=logits)


def assert_equal(
    ours: Any,
    row: int,
    span: slice,
    reference: dict[str, Any],
    reference_row: int,
    *,
    slots: Any = None,
) -> None:
    """Assert that a document's features equal those that stand at the start of a row of the
    reference.

    Args:
        ours: kdjax's features.
        row: where the document is in our batch.
        span: its positions in that row.
        reference: features by name and layer, as `tests.parity.bert.features` returns them; layers
            may be left out.
        reference_row: where the document is in the reference, from position 0 on.
        slots: `[S]` positions of our row that have logits; None: logits are not compared.
    """
    ours = jax.tree.map(np.asarray, ours)
    size = span.stop - span.start
    for name in ATTENTION:
        for layer, expected in reference[name].items():
            actual = getattr(ours, name)[layer][row][:, span]
            target = expected[reference_row][:, :size]
            if name == "scores":
                actual = actual[:, :, span]
                target = target[:, :, :size]
            np.testing.assert_allclose(
                actual, target, atol=TOLERANCE, rtol=0, err_msg=f"{name} {layer}"
            )
    for layer, expected in reference["hidden"].items():
        actual = ours.hidden[layer][row][span]
        target = expected[reference_row][:size]
        np.testing.assert_allclose(
            actual, target, atol=TOLERANCE, rtol=0, err_msg=f"hidden {layer}"
        )
    if slots is not None:
        inside = np.flatnonzero((span.start <= slots) & (slots < span.stop))
        actual = ours.logits[row][inside]
        target = reference["logits"][reference_row][slots[inside] - span.start]
        np.testing.assert_allclose(actual, target, atol=TOLERANCE, rtol=0, err_msg="logits")
    assert reference["hidden"]
    assert all(reference[name] for name in ATTENTION)
