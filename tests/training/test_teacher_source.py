"""Teacher signals: the teacher inside the step, and what its stored outputs stand for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from kdjax.config import CacheConfig, Schedule
from kdjax.errors import InputError
from kdjax.models import forward
from kdjax.models.features import ATTENTION_FEATURES, FeatureRequest, Features
from kdjax.objectives import get, term
from kdjax.objectives.objective import Objective
from kdjax.training.teacher.source import CachedTeacher, OnlineTeacher, check_readable
from tests.support import tiny

Array = np.ndarray
V = tiny.VOCABULARY
EVERYTHING = FeatureRequest(
    scores=frozenset({2}),
    query=frozenset({1, 4}),
    key=frozenset({4}),
    value=frozenset({3}),
    hidden=frozenset({0, 4}),
    logits=True,
    token_logits=True,
)
LOGITS = FeatureRequest(logits=True)
K = 6


@functools.cache
def seen() -> Features:
    """Compute all that the teacher hands out of a batch."""
    params = tiny.params(tiny.TEACHER, 9)
    return jax.jit(lambda p, b: forward(tiny.TEACHER, p, b, EVERYTHING))(params, tiny.batch())


def cached(request: FeatureRequest = LOGITS, **how: Any) -> CachedTeacher:
    return CachedTeacher(tiny.TEACHER, request, CacheConfig(**{"k": K, "dtype": "float32", **how}))


def through(
    teacher_source: CachedTeacher, features: Features, records: Any
) -> tuple[dict[str, Array], Features]:
    """Return what is stored of features, in its types, and what is read back."""
    dtypes = {
        f.name: f.dtype
        for f in teacher_source.fields(tiny.SHAPE.seq_len, tiny.SHAPE.max_predictions)
    }

    def run(features: Features, records: jax.Array) -> Any:
        stored = {
            name: x.astype(dtypes[name])
            for name, x in teacher_source.encode(features, records).items()
        }
        return stored, teacher_source.read(stored, teacher_source.request)

    return jax.device_get(jax.jit(run)(features, jnp.asarray(records, jnp.int32)))


def softmax(logits: Array) -> Array:
    shifted = np.exp(np.asarray(logits, np.float64) - np.max(logits, -1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def some_logits(*shape: int, spread: float = 2.0, seed: int = 0) -> Array:
    return (spread * np.random.default_rng(seed).standard_normal((*shape, V))).astype(np.float32)


# The teacher inside the step.


def test_online_teacher_is_its_forward_pass() -> None:
    teacher_source = OnlineTeacher(tiny.TEACHER)
    params = tiny.params(tiny.TEACHER, 9)
    actual = jax.jit(teacher_source.forward(EVERYTHING))(params, tiny.batch())
    # Features have the structure that was asked for, and nothing more.
    assert jax.tree.structure(actual) == jax.tree.structure(seen())
    for leaf, expected in zip(jax.tree.leaves(actual), jax.tree.leaves(seen()), strict=True):
        np.testing.assert_array_equal(leaf, expected)
    # What is computed in the step needs no stored field.
    assert teacher_source.fields(12, 3) == ()


def test_online_teacher_takes_head_only_for_logits() -> None:
    teacher_source = OnlineTeacher(tiny.TEACHER)
    assert "mlm" in teacher_source.params(LOGITS)
    assert "mlm" in teacher_source.params(FeatureRequest(token_logits=True))
    assert "mlm" not in teacher_source.params(FeatureRequest(hidden=frozenset({4})))


# What is stored.


@pytest.mark.parametrize("logits", ["all", "top_k", "sampled"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_cached_fields_describe_stored_arrays(logits: str, dtype: str) -> None:
    teacher_source = cached(EVERYTHING, logits=logits, dtype=dtype)
    fields = teacher_source.fields(tiny.SHAPE.seq_len, tiny.SHAPE.max_predictions)
    stored, _ = through(teacher_source, seen(), np.arange(8))
    # Fields are what a reader expects before it opens a file.
    assert {f.name for f in fields} == set(stored)
    for f in fields:
        assert stored[f.name].shape == (8, *f.shape)
        assert stored[f.name].dtype == ("uint16" if f.name.endswith(".ids") else dtype)


def test_cached_ids_of_large_vocabulary_have_32_bits() -> None:
    # The largest id must fit its type.
    for size, dtype in ((2**16, "uint16"), (2**16 + 1, "uint32")):
        large = dataclasses.replace(tiny.TEACHER, vocab_size=size)
        (ids,) = CachedTeacher(large, LOGITS, CacheConfig(logits="sampled", k=4)).fields(12, 3)
        assert ids.dtype == dtype
        assert ids.shape == (3, 4)


def test_cached_features_in_float32_are_exact() -> None:
    _, read = through(cached(EVERYTHING, logits="all"), seen(), np.arange(8))
    assert jax.tree.structure(read) == jax.tree.structure(seen())
    for leaf, expected in zip(jax.tree.leaves(read), jax.tree.leaves(seen()), strict=True):
        np.testing.assert_array_equal(leaf, expected)


@pytest.mark.parametrize("logits", ["all", "top_k", "sampled"])
def test_cached_features_in_float16_are_within_rounding(logits: str) -> None:
    _, read = through(cached(EVERYTHING, logits=logits, dtype="float16"), seen(), np.arange(8))
    for name in (*ATTENTION_FEATURES, "hidden"):
        stored = getattr(read, name)
        its = getattr(seen(), name)
        # Kinds and layers are those asked for.
        assert stored.keys() == its.keys() == getattr(EVERYTHING, name)
        for layer in stored:
            assert stored[layer].dtype == np.float32
            np.testing.assert_array_equal(stored[layer], np.asarray(its[layer]).astype(np.float16))


def test_cached_teacher_reads_requested_features_alone() -> None:
    teacher_source = cached(EVERYTHING, logits="all")
    stored, _ = through(teacher_source, seen(), np.arange(8))
    read = teacher_source.read(stored, FeatureRequest(hidden=frozenset({4})))
    # One array is read, and no other.
    assert read.hidden.keys() == {4}
    assert len(jax.tree.leaves(read)) == 1


# The largest probabilities and the mass of the rest.


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 2e-3)])
def test_top_k_keeps_largest_and_spreads_rest_evenly(dtype: str, tolerance: float) -> None:
    logits = some_logits(8, 3)
    _, read = through(cached(logits="top_k", dtype=dtype), Features(logits=logits), np.arange(8))
    actual = softmax(read.logits).reshape(-1, V)
    p = softmax(logits).reshape(-1, V)
    for q, teacher_probs in zip(actual, p, strict=True):
        # The rest is spread over all other entries, so that the whole is 1.
        largest = np.argsort(-teacher_probs)[:K]
        wanted = np.full(V, (1 - teacher_probs[largest].sum()) / (V - K))
        wanted[largest] = teacher_probs[largest]
        np.testing.assert_allclose(q, wanted, rtol=0, atol=tolerance)
    # The stored numbers are log-probabilities, not merely so up to a constant
    if dtype == "float32":
        np.testing.assert_allclose(np.exp(read.logits.astype(np.float64)).sum(-1), 1, atol=1e-5)


def test_top_k_of_certain_teacher_is_finite() -> None:
    logits = np.full((1, 1, V), -1e5, np.float32)  # beyond float16
    logits[..., 7] = 0
    stored, read = through(
        cached(logits="top_k", k=1, dtype="float16"), Features(logits=logits), [0]
    )
    # The log of nothing would be minus infinity.
    assert np.isfinite(stored["teacher.logits.log_rest"]).all()
    np.testing.assert_allclose(softmax(read.logits)[0, 0], np.eye(V)[7], atol=1e-12)


# Draws.

RECORDS = 512
SLOTS = 4


@functools.cache
def drawn(temperature: float, seed: int = 0) -> tuple[Array, Array, Features]:
    """Draw from one distribution at every slot of many records; return its logits, the draws and
    what is read back."""
    (row,) = some_logits(1, spread=1.5, seed=seed)
    logits = np.broadcast_to(row, (RECORDS, SLOTS, V))
    # One distribution everywhere, so that all draws can be counted together.
    teacher_source = cached(logits="sampled", temperature=temperature)
    stored, read = through(teacher_source, Features(logits=logits), np.arange(RECORDS))
    return row, stored["teacher.logits.ids"], read


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_draws_follow_teacher_distribution(temperature: float) -> None:
    row, ids, _ = drawn(temperature)
    p = softmax(row / temperature)
    counts = np.bincount(ids.ravel(), minlength=V)
    assert counts.sum() == RECORDS * SLOTS * K
    # Draws follow the distribution, and would be told from that at another temperature.
    assert stats.chisquare(counts, p * counts.sum()).pvalue > 1e-3
    others = softmax(row / (3 - temperature))
    assert stats.chisquare(counts, others * counts.sum()).pvalue < 1e-9


def test_decoded_draws_are_their_frequencies() -> None:
    _, ids, read = drawn(2.0)
    shares = np.stack([np.bincount(draws, minlength=V) for draws in ids.reshape(-1, K)]) / K
    np.testing.assert_allclose(softmax(read.logits / 2).reshape(-1, V), shares, atol=1e-6)


def test_draws_of_records_and_slots_are_independent() -> None:
    row, ids, _ = drawn(1.0)
    by_draw = ids.reshape(-1, K)
    # Whole sets of draws hardly ever repeat.
    assert len(np.unique(by_draw, axis=0)) > 0.99 * len(by_draw)
    p = softmax(row)
    same = np.sum(p**2)  # probability that two independent draws agree
    # Neighbouring records, neighbouring slots and neighbouring draws agree as often as chance has
    # it.
    for first, second in ((ids[:-1], ids[1:]), (ids[:, 0], ids[:, 1]), (ids[..., 0], ids[..., 1])):
        agree = np.mean(first == second)
        assert abs(agree - same) < 5 * np.sqrt(same * (1 - same) / first.size)


def test_draws_depend_on_record_number_alone() -> None:
    logits = some_logits(5, 3)
    teacher_source = cached(logits="sampled")
    records = np.array([4, 17, 3, 99, 2**20])
    whole = through(teacher_source, Features(logits=logits), records)[0]["teacher.logits.ids"]
    # The records in another order, one alone, and two.
    for rows in ([3, 0, 1, 4, 2], [2], [2, 4]):
        part = through(teacher_source, Features(logits=logits[rows]), records[rows])[0][
            "teacher.logits.ids"
        ]
        np.testing.assert_array_equal(part, whole[rows])
    # Other numbers have other draws.
    renumbered = through(teacher_source, Features(logits=logits), records + 1)[0][
        "teacher.logits.ids"
    ]
    assert (renumbered != whole).mean() > 0.5


# What a student learns from them.


def gradient(read: Features, student_logits: Array, temperature: float) -> Array:
    """Compute the logit term's gradient with respect to the student's logits `[V]`, the same
    at every position."""
    logit = get("logit", temperature=temperature)
    # The student's logits are the same everywhere, so that the mean is over draws alone.
    places = read.logits.shape

    def loss(x: jax.Array) -> jax.Array:
        return logit(
            Features(logits=jnp.broadcast_to(x, places)),
            read,
            {"label_weights": jnp.ones(places[:2])},
            {},
        )

    return np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(student_logits)), np.float64)


def true_gradient(row: Array, student_logits: Array, temperature: float) -> tuple[Array, Array]:
    """Compute T·(p_s − p_t), and how far the mean over all the draws may be off it: its standard
    deviation."""
    p = softmax(row / temperature)
    q = softmax(student_logits / temperature)
    return temperature * (q - p), temperature * np.sqrt(p * (1 - p) / (K * RECORDS * SLOTS))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradient_from_draws_is_unbiased(temperature: float) -> None:
    row, _, read = drawn(temperature)
    student_logits = some_logits(seed=3)
    wanted, sigma = true_gradient(row, student_logits, temperature)
    assert np.all(np.abs(gradient(read, student_logits, temperature) - wanted) < 5 * sigma)
    assert np.max(np.abs(wanted) / sigma) > 50  # an error of a tenth of it would be seen


def test_gradient_from_top_k_of_flat_teacher_is_biased() -> None:
    """The bias is far above that of all those draws: no number of records averages it away."""
    row, _, _ = drawn(1.0)
    student_logits = some_logits(seed=3)
    _, read = through(cached(logits="top_k"), Features(logits=row[None, None]), [0])
    # A flat teacher has most of its mass in the rest, which top-k spreads evenly.
    wanted, sigma = true_gradient(row, student_logits, 1.0)
    assert np.max(np.abs(gradient(read, student_logits, 1.0) - wanted) / sigma) > 20


# What an objective can read.


MODELS = tiny.STUDENT, tiny.TEACHER


def objective(*terms: Any) -> Objective:
    return Objective(tuple((f"{part.name}_{n}", 1.0, part) for n, part in enumerate(terms)))


@pytest.mark.parametrize("logits", ["top_k", "sampled"])
@pytest.mark.parametrize("k", [V, V + 1])
def test_cache_of_as_many_entries_as_vocabulary_is_refused(logits: Any, k: int) -> None:
    config = CacheConfig(logits=logits, k=k)
    with pytest.raises(
        InputError, match=rf"\Acache.k is {k}, expected fewer than the vocabulary's {V} entries\Z"
    ):
        check_readable(objective(get("logit")), config, *MODELS)
    # One entry fewer is a cache, and without a choice of entries k has no meaning.
    check_readable(objective(get("logit")), CacheConfig(logits=logits, k=V - 1), *MODELS)
    check_readable(objective(get("logit")), CacheConfig(logits="all", k=k), *MODELS)


SCHEDULE = Schedule("linear", ((0.0, 2.0), (1.0, 1.0)))


@pytest.mark.parametrize(
    ("term", "mismatch"),
    [
        (lambda: get("logit"), "1.0"),
        (lambda: get("logit", temperature=3.0), "3.0"),
        (lambda: get("logit", "bui2024"), "1.0"),
        (lambda: get("logit", temperature=SCHEDULE), "Schedule"),
    ],
)
def test_draws_at_other_temperature_than_term_are_refused(
    term: Callable[[], Any], mismatch: str
) -> None:
    config = CacheConfig(logits="sampled", k=4, temperature=2.0)
    with pytest.raises(
        InputError,
        match=rf"\Alogit_1: its temperature is {mismatch}.*, expected cache.temperature, 2: ",
    ):
        check_readable(objective(get("logit", temperature=2.0), term()), config, *MODELS)
    for logits in ("all", "top_k"):  # these stand for the logits themselves
        check_readable(objective(term()), CacheConfig(logits=logits, k=4, temperature=2.0), *MODELS)


@term(student=lambda config: LOGITS, teacher=lambda config: LOGITS)
def no_loss(
    student: Any, teacher: Any, batch: Any, params: Any, *, temperature: float = 1.0
) -> Any:
    return 0.0


def test_draws_temperature_is_free_for_terms_without_logits() -> None:
    config = CacheConfig(logits="sampled", k=4, temperature=2.0)
    # Only the logit term reads draws, and has the cache's temperature.
    others = objective(
        get("mlm"), get("hidden_mse"), get("relation"), get("logit", temperature=2.0)
    )
    check_readable(others, config, *MODELS)


def test_custom_term_temperature_is_its_option() -> None:
    config = CacheConfig(logits="sampled", k=4, temperature=2.0)
    check_readable(
        objective(get("tests.training.test_teacher_source:no_loss", temperature=2.0)),
        config,
        *MODELS,
    )
    with pytest.raises(
        InputError, match=r"no_loss_0: its temperature is 1\.0, expected cache\.temperature, 2"
    ):
        check_readable(
            objective(get("tests.training.test_teacher_source:no_loss")), config, *MODELS
        )


def test_cached_teacher_gives_the_step_no_parameters() -> None:
    assert cached().params(LOGITS) is None
