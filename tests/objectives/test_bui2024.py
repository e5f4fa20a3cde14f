"""The bui2024 variants against numbers made by the published code in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.objectives import Features, get

GOLDEN = Path(__file__).parent.parent / "golden"

LOSSES = {
    "mlm": ["mlm"],
    "logit": ["logit_kd_vocab_mean"],
    "attention_kl": ["minilm_v1_attention"],
    "value_relation": ["minilm_v1_value"],
    "attention_mse": ["attention_mse"],
    "first_scores_mse": ["tinybert_first_scores_mse"],
    "hidden_mse": ["hidden_mse"],
    "relation": ["minilm_v2_query", "minilm_v2_key", "minilm_v2_value"],
    "pearson": ["pearson_key", "pearson_query", "pearson_head", "pearson_batch"],
}
"""Term -> the golden losses it is the sum of."""


def golden_features(golden: dict[str, np.ndarray], who: str, *, masked: bool) -> Features:
    """Return one model's features; its scores with the published code's -10000 at padded keys, or
    raw as kdjax has them."""

    def layers(kind: str, first: int) -> dict[int, Any]:
        return {n: jnp.asarray(x) for n, x in enumerate(golden[f"{who}_{kind}"], start=first)}

    scores = layers("scores", 1)
    # Kdjax masks by itself and may not depend on what stands at padded keys.
    if not masked:
        scores = {n: x + 1e4 * ~golden["valid"][:, None, None, :] for n, x in scores.items()}
    vectors = {kind: layers(kind, 1) for kind in ("query", "key", "value")}
    return Features(
        scores=scores,
        **vectors,
        hidden=layers("hidden", 0),
        logits=jnp.asarray(golden[f"{who}_logits"])[None],
    )


@pytest.mark.parametrize("masked", [False, True], ids=["raw scores", "masked scores"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("file", ["objectives_padded", "objectives_full"])
def test_bui2024_terms_give_the_published_codes_numbers(
    file: str, name: str, masked: bool, float64: None
) -> None:
    golden = dict(np.load(GOLDEN / f"{file}.npz"))
    batch = {
        "valid": jnp.asarray(golden["valid"]),
        "segments": jnp.asarray(golden["valid"], jnp.int32),
        "labels": jnp.asarray(golden["labels"])[None],
        "label_weights": jnp.ones((1, len(golden["labels"]))),
    }
    student = golden_features(golden, "student", masked=masked)
    teacher = golden_features(golden, "teacher", masked=masked)
    # Terms that the published code computes in parts are their sums.
    expected = sum(float(golden[f"loss_{part}"]) for part in LOSSES[name])
    assert get(name, "bui2024")(student, teacher, batch, {}) == pytest.approx(expected, abs=1e-6)


def test_bui2024_attention_of_a_packed_batch_stays_inside_segments(float64: None) -> None:
    """The published code has no packing: a packed batch gives what its documents give, each padded
    by itself."""
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 1, 2, 4, 4))
    together = {"valid": np.ones((1, 4), bool), "segments": np.array([[1, 1, 2, 2]])}
    apart = {"valid": np.ones((2, 2), bool), "segments": np.ones((2, 2), int)}

    # Both documents become sequences of two tokens without padding.
    def split(scores: np.ndarray) -> Features:
        return Features(scores={1: jnp.concatenate([scores[:, :, :2, :2], scores[:, :, 2:, 2:]])})

    term = get("attention_kl", "bui2024")
    whole = term(
        Features(scores={1: jnp.asarray(student)}),
        Features(scores={1: jnp.asarray(teacher)}),
        together,
        {},
    )
    assert whole == pytest.approx(float(term(split(student), split(teacher), apart, {})))
