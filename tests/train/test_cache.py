"""Stored teacher outputs: made once, they train as the teacher itself does, at an exact price and a known bias."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdjax import models
from kdjax.config import ArmConfig, CacheConfig, DataConfig, OptimizerConfig, TermConfig
from kdjax.data.cache import Cache, CacheManifest
from kdjax.data.loader import Batches, Corpus
from kdjax.data.prepare import prepare
from kdjax.errors import InputError
from kdjax.models import Model, forward
from kdjax.models.features import Request
from kdjax.parallel.mesh import make_mesh
from kdjax.train import cache
from kdjax.train.arm import Arm, resolve
from kdjax.train.phase import Shape, price
from tests import tiny
from tests.corpora import make_corpus, make_tokenizer

Array = np.ndarray
SHAPE = Shape(batch=8, length=16, slots=3)
STEPS = 10
EXACT = CacheConfig(logits="all", dtype="float32", batch=8)
BOTH = Request(hidden=frozenset({0, 2, 4}), logits=True)
"""What the two arms below ask for together."""
LOGITS = Request(logits=True)
ARMS = {"logit": ArmConfig(), "hidden": ArmConfig(terms=(TermConfig("hidden_mse"),))}


@functools.cache
def teacher(seed: int = 9) -> Model:
    """A teacher that is surer than an untrained one, so that its distributions are not flat."""
    config, params = models.init(tiny.TEACHER, seed)
    head = {**params["mlm"], "norm": {**params["mlm"]["norm"], "scale": 20 * params["mlm"]["norm"]["scale"]}}
    return Model(config, {**params, "mlm": head})


def headless() -> Model:
    return Model(tiny.TEACHER, {name: part for name, part in teacher().params.items() if name != "mlm"})


@dataclasses.dataclass(frozen=True)
class Text:
    """A prepared corpus and the settings it was prepared with."""

    data: DataConfig
    corpus: Corpus

    @property
    def sequences(self) -> int:
        return self.corpus.sequences("train")


def prepared(directory: Path, seed: int = 0) -> Text:
    data = DataConfig(
        files=str(make_corpus(directory / "text.jsonl", 44, seed)),
        length=SHAPE.length,
        slots=SHAPE.slots,
        validation=0.2,
        views=2,
        workers=1,
    )
    prepare(data, make_tokenizer(directory / "tokenizer.json"), directory / "prepared")
    return Text(data, Corpus.open(directory / "prepared"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    """So many training sequences that ten steps pass into their second epoch, and no whole number of batches."""
    made = prepared(tmp_path_factory.mktemp("text"))
    assert 8 < made.sequences < SHAPE.batch * STEPS
    assert 2 * made.sequences % EXACT.batch
    return made


def build(directory: Path, text: Text, request: Request = LOGITS, config: CacheConfig = EXACT, **more: Any) -> Any:
    model = more.pop("teacher", teacher())
    mesh = make_mesh(jax.devices()[:1])
    return cache.build(directory, model, request, config, text.data, text.corpus, mesh, **more)


@pytest.fixture(scope="module")
def exact(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exact cache of what both arms ask for; other tests find it done."""
    directory = tmp_path_factory.mktemp("exact")
    build(directory, text, BOTH)
    return directory


# Training on them.


def arm(name: str, source: str) -> Arm:
    config = dataclasses.replace(ARMS[name], teacher=source)
    # A larger epsilon, or Adam makes steps out of the rounding of gradients that are 0.
    settings = OptimizerConfig(learning_rate=1e-2, eps=1e-3)
    return resolve(name, config, tiny.STUDENT, tiny.TEACHER, settings, EXACT)


def trained(name: str, source: str, stored: Cache | None, text: Text) -> tuple[Any, list[dict[str, float]], Any]:
    """Ten steps: the final parameters, the losses, and what the compiled step took for a teacher."""
    (phase,) = arm(name, source).phases
    program = tiny.program(phase, STEPS, make_mesh(jax.devices()[:1]), SHAPE)
    given = program.place_teacher(teacher().params)
    state = program.start(models.init(tiny.STUDENT, 0).params, seed=3)
    data = text.data
    stream = Batches(
        text.corpus, batch=8, seed=1, rate=data.mask_rate, slots=data.slots, views=data.views, cache=stored
    )
    losses = []
    for _, batch in stream.iterate(0, STEPS):
        state, metrics = program(state, given, batch)
        losses.append({key: float(value) for key, value in metrics.items()})
    return jax.device_get(state.params), losses, given


@pytest.mark.parametrize("name", ARMS)
def test_training_on_an_exact_cache_is_training_with_the_teacher(name: str, text: Text, exact: Path) -> None:
    stored = cache.open_cache(exact, teacher(), arm(name, "cached").stored, EXACT, text.data, text.corpus)
    params, losses, given = trained(name, "cached", stored, text)
    wanted, online, its = trained(name, "online", None, text)
    assert given is None
    assert its is not None
    for one, other in zip(losses, online, strict=True):
        assert one == pytest.approx(other, abs=1e-6, rel=1e-5)
    for (path, leaf), other in zip(jax.tree.leaves_with_path(params), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=0, atol=1e-6, err_msg=jax.tree_util.keystr(path))
    assert losses[-1]["loss"] < losses[0]["loss"]
    before = models.init(tiny.STUDENT, 0).params["layers"]["1"]["ffn"]["up"]["kernel"]
    assert np.abs(params["model"]["layers"]["1"]["ffn"]["up"]["kernel"] - before).max() > 1e-3


@pytest.mark.parametrize("name", ARMS)
def test_a_step_on_stored_outputs_runs_no_teacher(name: str) -> None:
    online, stored = (price(arm(name, source).phases[0], SHAPE) for source in ("online", "cached"))
    assert stored.teacher_forward <= 1e-3 * online.teacher_forward
    assert stored.student_forward == pytest.approx(online.student_forward, rel=1e-3)
    assert online.total - stored.total == pytest.approx(online.teacher_forward, rel=0.01)


# Building them.


def test_every_view_of_every_sequence_is_stored(text: Text, exact: Path) -> None:
    opened = Cache.open(exact)
    assert (opened.manifest.sequences, opened.manifest.views) == (text.sequences, 2)
    hidden, logits, _ = everything(text)
    for view in range(2):
        numbers = np.arange(text.sequences)
        read = opened.read(numbers, np.full_like(numbers, view))
        np.testing.assert_allclose(read["teacher.logits"], logits[view], atol=1e-4)
        np.testing.assert_allclose(read["teacher.hidden.4"], hidden[view], atol=1e-4)
    assert np.abs(logits[0] - logits[1]).max() > 1


@functools.cache
def _seen() -> Callable[..., Any]:
    return jax.jit(lambda p, b: forward(tiny.TEACHER, p, b, BOTH))


def everything(text: Text) -> tuple[Array, Array, Array]:
    """Last hidden states, logits and slot weights of all views `[2, n, …]`, by the teacher itself, a view at a time."""
    data, numbers = text.data, np.arange(text.sequences)
    found = []
    for view in range(2):
        batch = text.corpus.viewed(
            "train", numbers, np.full_like(numbers, view), rate=data.mask_rate, slots=data.slots
        )
        seen = jax.device_get(_seen()(teacher().params, batch))
        found.append((seen.hidden[4], seen.logits, batch["label_weights"]))
    hidden, logits, weights = (np.stack(part) for part in zip(*found, strict=True))
    return hidden, logits, weights


def test_a_build_is_charged_its_passes(text: Text, exact: Path, tmp_path: Path) -> None:
    one = cache.cache_price(tiny.TEACHER, BOTH, SHAPE)
    assert one == pytest.approx(price(arm("logit", "online").phases[0], SHAPE).teacher_forward, rel=0.01)
    passes = int(np.ceil(2 * text.sequences / 8))
    assert cache.passes(text.sequences, 2, 8) == passes
    assert CacheManifest.read(exact).totals == {"flops": passes * one}
    lower = Request(hidden=frozenset({1}))
    cheap = build(tmp_path, text, lower, dataclasses.replace(EXACT, batch=16))
    assert cheap.totals == {
        "flops": int(np.ceil(2 * text.sequences / 16))
        * cache.cache_price(tiny.TEACHER, lower, dataclasses.replace(SHAPE, batch=16))
    }
    assert cheap.totals["flops"] < 0.5 * passes * one


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


class PowerCut(Exception):
    pass


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two passes, so that a tiny cache has several."""
    monkeypatch.setattr(cache, "SHARD_BYTES", 2 * 8 * SAMPLED_BYTES)


SAMPLED = CacheConfig(logits="sampled", k=48, batch=8)
SAMPLED_BYTES = SHAPE.slots * SAMPLED.k * 2


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("where", ["progress", "pass"])
def test_an_interrupted_build_goes_on_to_the_same_bytes(
    where: str, text: Text, whole_in_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def interrupt(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise PowerCut

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        if where == "pass":
            read = Corpus.viewed
            patch.setattr(Corpus, "viewed", lambda *a, **k: (interrupt(), read(*a, **k))[1])
        build(tmp_path, text, config=SAMPLED, progress=interrupt if where == "progress" else None)
    done = sorted(p.name for p in tmp_path.rglob("*.array_record"))
    assert 0 < len(done) < len(list(whole_in_shards.rglob("*.array_record")))
    with pytest.raises(InputError, match="unfinished"):
        cache.open_cache(tmp_path, teacher(), LOGITS, SAMPLED, text.data, text.corpus)
    told: list[tuple[int, int]] = []
    build(tmp_path, text, config=SAMPLED, progress=lambda *values: told.append(values))
    assert told[0][0] == 16 * (len(done) + 1)
    assert told[-1] == (2 * text.sequences, 2 * text.sequences)
    assert contents(tmp_path) == contents(whole_in_shards)


@pytest.fixture(scope="module")
def whole_in_shards(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "SHARD_BYTES", 2 * 8 * SAMPLED_BYTES)
        build(directory, text, config=SAMPLED)
    return directory


def test_devices_change_nothing(text: Text, whole_in_shards: Path, tmp_path: Path) -> None:
    cache.build(tmp_path, teacher(), LOGITS, SAMPLED, text.data, text.corpus, make_mesh())
    one, eight = Cache.open(whole_in_shards), Cache.open(tmp_path)
    assert len(one.manifest.shards) > 3
    assert len(eight.manifest.shards) == 1
    numbers = np.arange(text.sequences)
    for view in (np.zeros_like(numbers), np.ones_like(numbers)):
        ids, its = (opened.read(numbers, view)["teacher.logits.ids"] for opened in (one, eight))
        assert np.mean(ids == its) > 0.999  # where rounding differs, a draw on the edge between two entries may, too


# How far they are off.


def log_softmax(logits: Array) -> Array:
    shifted = np.asarray(logits, np.float64) - np.max(logits, -1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def records(directory: Path, text: Text) -> dict[str, Array]:
    """What is stored, `[2, n, …]`."""
    opened, numbers = Cache.open(directory), np.arange(text.sequences)
    read = [opened.read(numbers, np.full_like(numbers, view)) for view in range(2)]
    return {name: np.stack([one[name] for one in read]) for name in read[0]}


def off(log_p: Array, q: Array) -> dict[str, float]:
    """The means over positions, by their definitions. log_p, q: `[positions, V]`."""
    p = np.exp(log_p)
    return {
        "total_variation": np.abs(p - q).sum(-1).mean() / 2,
        "entropy": -(p * log_p).sum(-1).mean(),
        "entropy_error": (-(q * log_p).sum(-1) + (p * log_p).sum(-1)).mean(),
    }


TOP_K = CacheConfig(logits="top_k", k=3, batch=8)


@pytest.fixture(scope="module")
def top_k(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("top_k")
    build(directory, text, config=TOP_K)
    return directory


def positions(text: Text) -> tuple[Array, Array]:
    """Log-probabilities of all masked positions `[positions, V]`, and where those are among all slots."""
    _, logits, weights = everything(text)
    there = weights > 0
    assert 0 < there.sum() < there.size
    return log_softmax(logits[there]), there


def test_the_bias_of_top_k_is_what_numpy_finds(text: Text, top_k: Path) -> None:
    log_p, there = positions(text)
    stored = records(top_k, text)
    q = np.empty_like(log_p)
    q[:] = np.exp(stored["teacher.logits.log_rest"][there].astype(float))[:, None] / (tiny.VOCABULARY - TOP_K.k)
    ids = stored["teacher.logits.ids"][there].astype(int)
    np.put_along_axis(q, ids, np.exp(stored["teacher.logits.log_probs"][there].astype(float)), axis=1)
    q /= q.sum(-1, keepdims=True)  # float16
    np.testing.assert_array_equal(np.sort(ids), np.sort(np.argsort(-log_p)[:, : TOP_K.k]))
    wanted = {**off(log_p, q), "kl": (np.exp(log_p) * (log_p - np.log(q))).sum(-1).mean()}
    found = cache.bias(CacheManifest.read(top_k))
    assert found == pytest.approx(wanted, rel=1e-3)
    assert found["entropy_error"] > 0.3
    assert found["kl"] > 0.1


def test_the_bias_of_draws_is_what_numpy_finds_and_near_0(text: Text, whole_in_shards: Path) -> None:
    log_p, there = positions(text)
    ids = records(whole_in_shards, text)["teacher.logits.ids"][there]
    q = np.stack([np.bincount(row, minlength=tiny.VOCABULARY) for row in ids]) / SAMPLED.k
    found = cache.bias(CacheManifest.read(whole_in_shards))
    assert found == pytest.approx(off(log_p, q), rel=1e-3, abs=1e-4)
    p = np.exp(log_p)
    variance = (p * log_p**2).sum(-1) - (p * log_p).sum(-1) ** 2
    sigma = np.sqrt(variance.sum() / SAMPLED.k) / len(p)
    assert sigma < 0.03
    assert abs(found["entropy_error"]) < 5 * sigma
    assert found["total_variation"] > 0.05  # a single position's draws are off


def test_whole_logits_have_no_bias(exact: Path) -> None:
    assert cache.bias(CacheManifest.read(exact)) == {}


# What is refused.


def test_a_corpus_without_views_is_refused(text: Text, tmp_path: Path) -> None:
    without = dataclasses.replace(text, data=dataclasses.replace(text.data, views=0))
    with pytest.raises(InputError, match=r"\Adata.views is 0, expected at least 1: stored outputs belong to fixed"):
        build(tmp_path / "cache", without)
    assert not (tmp_path / "cache").exists()


def test_a_teacher_without_a_head_is_refused_where_logits_are_stored(text: Text, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found a teacher without an MLM head, expected one"):
        build(tmp_path / "cache", text, teacher=headless())
    assert not (tmp_path / "cache").exists()


def test_a_pass_that_does_not_split_over_the_devices_is_refused(text: Text, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiple of the 8 devices"):
        cache.build(
            tmp_path / "cache",
            teacher(),
            LOGITS,
            dataclasses.replace(EXACT, batch=12),
            text.data,
            text.corpus,
            make_mesh(),
        )


def test_a_directory_of_another_cache_is_refused(text: Text, top_k: Path) -> None:
    with pytest.raises(InputError, match="was built with cache.k 3, expected 4"):
        build(top_k, text, config=dataclasses.replace(TOP_K, k=4))
    with pytest.raises(InputError, match="was built with encoder "):
        build(top_k, text, config=TOP_K, teacher=teacher(seed=10))


def open_changed(directory: Path, text: Text, **changes: Any) -> Cache:
    """Opens the cache of a recipe that differs in something."""
    data = dataclasses.replace(text.data, **changes.pop("data", {}))
    corpus = changes.pop("corpus", text.corpus)
    model, request, config = (changes.pop(name, own) for name, own in (("teacher", teacher()), ("request", LOGITS), ("config", EXACT)))
    return cache.open_cache(directory, model, request, config, data, corpus)


def test_a_part_of_what_is_stored_may_be_asked_for(text: Text, exact: Path) -> None:
    assert open_changed(exact, text).manifest.views == 2
    assert open_changed(exact, text, request=BOTH).manifest.views == 2
    hidden = Request(hidden=frozenset({2}))
    assert open_changed(exact, text, request=hidden).manifest.views == 2
    assert open_changed(exact, text, request=hidden, teacher=headless()).manifest.views == 2  # a head is not asked for


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data": {"views": 3}}, r"stored for views 2, expected 3\Z"),
        ({"data": {"mask_rate": 0.3}}, r"stored for mask_rate 0.15, expected 0.3\Z"),
        ({"data": {"slots": 2}}, r"stored for slots 3, expected 2\Z"),
        ({"request": Request(hidden=frozenset({1}))}, "holds None, expected Field.*teacher.hidden.1"),
        ({"request": Request(token_logits=True)}, "holds None, expected Field.*teacher.token_logits"),
        ({"config": dataclasses.replace(EXACT, dtype="float16")}, "holds Field.*float32.*, expected Field.*float16"),
        ({"config": TOP_K}, "holds None, expected Field.*teacher.logits.ids"),
    ],
)
def test_other_masks_and_missing_features_are_refused(
    changes: dict[str, Any], complaint: str, text: Text, exact: Path
) -> None:
    with pytest.raises(InputError, match=rf"\A{exact}: {complaint}"):
        open_changed(exact, text, **changes)


def test_another_teacher_is_refused(text: Text, exact: Path) -> None:
    with pytest.raises(InputError, match=rf"\A{exact}: stored for encoder '[0-9a-f]+', expected '[0-9a-f]+'\Z"):
        open_changed(exact, text, teacher=teacher(seed=10))
    head = models.init(tiny.TEACHER, 10).params["mlm"]
    with pytest.raises(InputError, match=rf"\A{exact}: stored for head '"):
        open_changed(exact, text, teacher=Model(tiny.TEACHER, {**teacher().params, "mlm": head}))


def test_another_corpus_is_refused(text: Text, exact: Path, tmp_path: Path) -> None:
    other = prepared(tmp_path, seed=1)
    with pytest.raises(InputError, match=rf"\A{exact}: stored for corpus "):
        open_changed(exact, text, corpus=other.corpus)


def test_draws_at_another_temperature_are_refused(text: Text, whole_in_shards: Path) -> None:
    """Their fields are the same: only what they stand for differs."""
    assert open_changed(whole_in_shards, text, config=SAMPLED).manifest.views == 2
    with pytest.raises(InputError, match=rf"\A{whole_in_shards}: stored for temperature 1.0, expected 2.0\Z"):
        open_changed(whole_in_shards, text, config=dataclasses.replace(SAMPLED, temperature=2.0))
