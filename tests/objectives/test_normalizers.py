"""Counts: the weights with which the losses of a batch's parts make the loss of the whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.objectives import FeatureNeeds, Features, Term, get
from tests.objectives.examples import (
    LENGTH,
    SLOTS,
    STUDENT,
    TEACHER,
    batch_of,
    features,
    packed,
    params_of,
    restricted,
)
from tests.objectives.terms import EXAMPLES, MAPPED

TERMS = {label: example.term for label, example in EXAMPLES.items() if label not in MAPPED}
BY_BATCH = {
    "pearson bui2024": TERMS.pop("pearson bui2024"),
    "pearson mixed": get("pearson", axes="head,key"),
}
FULL = [1] * (LENGTH // 2) + [2] * (LENGTH // 2)


def unequal(lengths: list[tuple[int, int]], weights: list[int]) -> dict[str, np.ndarray]:
    """Make a full sequence and three of two documents each, of these lengths; slots of unequal
    weight."""
    batch = batch_of([FULL, *([1] * a + [2] * b for a, b in lengths)])
    batch["label_weights"] = np.reshape(weights, (-1, SLOTS)).astype(np.float32) / 4
    batch["labels"] = np.abs(batch["labels"])
    return batch


@cache
def valued(term: Term) -> Callable[..., tuple[jax.Array, jax.Array | None]]:
    """Compile loss and count."""
    # Two runs or so each: compiling well would take longer than it saves.
    quickly = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(lambda *args: (term(*args), term.normalizer(args[2])), compiler_options=quickly)


def split(
    term: Term, batch: dict[str, np.ndarray], parts: list[list[int]]
) -> list[tuple[Any, Any]]:
    """Return loss and count of the whole batch, then those of its parts."""
    needs: FeatureNeeds = term.needs(STUDENT, TEACHER)
    student = restricted(features(STUDENT, batch, 1), needs.student)
    teacher = restricted(features(TEACHER, batch, 2), needs.teacher)
    params = params_of(term, STUDENT, TEACHER)

    def part(rows: list[int]) -> tuple[Features, Features, dict[str, np.ndarray]]:
        return jax.tree.map(lambda x: x[np.array(rows)], (student, teacher, batch))

    return [
        valued(term)(student, teacher, batch, params),
        *(valued(term)(*part(rows), params) for rows in parts),
    ]


@pytest.mark.parametrize("label", TERMS)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=3, max_size=3),
    weights=st.lists(st.integers(0, 4), min_size=4 * SLOTS - 1, max_size=4 * SLOTS - 1),
    order=st.permutations(range(4)),
)
@settings(max_examples=5, deadline=None)
def test_losses_of_parts_weighed_by_normalizers_make_the_whole(
    label: str, lengths: list[tuple[int, int]], weights: list[int], order: list[int]
) -> None:
    with jax.enable_x64(True):
        whole, *parts = split(TERMS[label], unequal(lengths, [1, *weights]), [order[:1], order[1:]])
        loss, normalizer = whole
        # The normalizers of the parts add up to that of the whole: nothing is counted twice.
        normalizers = [float(n) for _, n in parts]
        assert normalizer.dtype == np.float32
        assert normalizer.shape == ()
        assert float(normalizer) == sum(normalizers) > 0
        # The weighted mean of the parts' losses is what accumulated gradients amount to.
        joined = sum(
            n * float(value) for n, (value, _) in zip(normalizers, parts, strict=True)
        ) / sum(normalizers)
        assert float(loss) == pytest.approx(joined, rel=1e-9)


@pytest.mark.parametrize("label", BY_BATCH)
def test_term_that_correlates_sequences_or_mixes_means_has_no_normalizer(
    label: str, float64: None
) -> None:
    """Neither rows, pairs nor sequences make the whole of the parts, so that no normaliser is
    right."""
    term = BY_BATCH[label]
    batch = unequal([(8, 0), (3, 1), (1, 1)], [1] * 4 * SLOTS)
    whole, *parts = split(term, batch, [[0], [1, 2, 3]])
    loss, normalizer = whole
    assert normalizer is None
    values = [float(value) for value, _ in parts]
    # The weights that suit other terms do not join these.
    for other_label in ("relation", "attention_mse", "attention_mse bui2024"):
        _, *part_results = split(TERMS[other_label], batch, [[0], [1, 2, 3]])
        joined = np.average(values, weights=[float(n) for _, n in part_results])
        assert float(loss) != pytest.approx(joined, rel=1e-6)


@pytest.mark.parametrize("label", TERMS)
def test_normalizer_of_a_packed_batch_equals_count_by_hand(label: str) -> None:
    batch = jax.tree.map(jnp.asarray, packed())
    assert TERMS[label].normalizer(batch) == EXAMPLES[label].mean_over
