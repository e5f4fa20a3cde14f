"""Stored teacher outputs: what building them stores and costs, and which of them are refused."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdjax.config import ArmConfig, OptimizerConfig
from kdjax.data.corpus import Corpus
from kdjax.errors import InputError
from kdjax.models import Model
from kdjax.models.features import FeatureRequest, Features
from kdjax.parallel.layout import Layout
from kdjax.training.arm import resolve
from kdjax.training.phase_price import price
from kdjax.training.teacher.source import CachedTeacher
from kdjax.training.teacher_cache import fill as cache
from kdjax.training.teacher_cache.manifest import CacheManifest
from kdjax.training.teacher_cache.store import Cache
from tests.support import tiny
from tests.support.stored import (
    BOTH,
    EXACT,
    LOGITS,
    SAMPLED,
    SHAPE,
    TEACHER,
    TOP_K,
    Text,
    build,
    everything,
    prepared,
    records,
    teacher,
)

SHARD_BYTES = 2 * SAMPLED.batch_size * SHAPE.max_predictions * SAMPLED.k * 2
"""Two passes, so that a tiny cache of draws has several shards."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    corpus = prepared(tmp_path_factory.mktemp("text"))
    assert 2 * corpus.sequences % EXACT.batch_size  # the last pass is not full
    return corpus


@pytest.fixture(scope="module")
def exact(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exact")
    build(directory, text, BOTH)
    return directory


@pytest.fixture(scope="module")
def draws(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of draws in several shards."""
    directory = tmp_path_factory.mktemp("draws")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "SHARD_BYTES", SHARD_BYTES)
        build(directory, text, config=SAMPLED)
    return directory


@pytest.fixture(scope="module")
def top_k(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("top_k")
    build(directory, text, config=TOP_K)
    return directory


def headless() -> Model:
    return Model(TEACHER, {name: part for name, part in teacher().params.items() if name != "mlm"})


def test_build_stores_every_view_of_every_sequence(text: Text, exact: Path) -> None:
    stored = records(exact, text)
    hidden, logits, _ = everything(text)
    np.testing.assert_allclose(stored["teacher.logits"], logits, atol=1e-4)
    np.testing.assert_allclose(stored["teacher.hidden.2"], hidden, atol=1e-4)
    # Views have other masks, so other logits at the slots.
    assert len(logits[0]) == text.sequences
    assert np.abs(logits[0] - logits[1]).max() > 1


def test_draws_differ_between_records(text: Text, draws: Path) -> None:
    """A record holds the draws of its number, view by view; where rounding differs, one on the
    edge between two entries may, too."""
    _, logits, _ = everything(text)
    teacher_source = CachedTeacher(TEACHER, LOGITS, SAMPLED)
    numbers = np.arange(text.sequences)
    stored = records(draws, text)["teacher.logits.ids"]
    for view in range(2):
        ids = teacher_source.encode(Features(logits=logits[view]), view * text.sequences + numbers)[
            "teacher.logits.ids"
        ]
        assert np.mean(np.asarray(ids) == stored[view]) > 0.999


def test_build_is_charged_its_forward_passes(text: Text, exact: Path, tmp_path: Path) -> None:
    batch_price = cache.cache_price(TEACHER, BOTH, SHAPE)
    arm = resolve("logit", ArmConfig(), tiny.STUDENT, TEACHER, OptimizerConfig())
    # The price of a cache's batch is that of a teacher inside the step.
    assert batch_price == pytest.approx(price(arm.phases[0], SHAPE).teacher_forward, rel=0.01)
    passes = math.ceil(2 * text.sequences / SHAPE.batch_size)
    assert cache.forward_pass_count(text.sequences, 2, SHAPE.batch_size) == passes
    # The last pass is charged whole, though it is not full.
    assert CacheManifest.read(exact).totals == {"flops": passes * batch_price}
    # A lower layer at twice the batch: fewer passes, each of them cheaper a sequence.
    lower = FeatureRequest(hidden=frozenset({1}))
    twice = dataclasses.replace(SHAPE, batch_size=16)
    cheaper = math.ceil(2 * text.sequences / 16) * cache.cache_price(TEACHER, lower, twice)
    assert build(tmp_path, text, lower, dataclasses.replace(EXACT, batch_size=16)).totals == {
        "flops": cheaper
    }
    assert cheaper < passes * batch_price


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in sorted(directory.rglob("*"))
        if p.is_file()
    }


class PowerCut(Exception):
    pass


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SHARD_BYTES", SHARD_BYTES)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("where", ["progress", "pass"])
def test_build_resumed_after_kill_stores_same_bytes(
    where: str, text: Text, draws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fourth call of what is interrupted is a power cut.
    calls = 0

    def interrupt(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise PowerCut

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        # Once while text is read, once between passes.
        if where == "pass":
            read = Corpus.viewed

            def interrupted(*arguments: Any, **options: Any) -> Any:
                interrupt()
                return read(*arguments, **options)

            patch.setattr(Corpus, "viewed", interrupted)
        build(tmp_path, text, config=SAMPLED, progress=interrupt if where == "progress" else None)
    # Some shards are whole, and not all.
    done = sorted(p.name for p in tmp_path.rglob("*.array_record"))
    assert 0 < len(done) < len(list(draws.rglob("*.array_record")))
    # What is unfinished cannot be opened.
    with pytest.raises(InputError, match="unfinished"):
        cache.open_cache(tmp_path, teacher(), LOGITS, SAMPLED, text.data, text.corpus)
    progress: list[tuple[int, int]] = []
    # Building goes on from the whole shards, and ends with the same bytes.
    build(tmp_path, text, config=SAMPLED, progress=lambda *values: progress.append(values))
    assert progress[0][0] == 16 * (len(done) + 1)
    assert progress[-1] == (2 * text.sequences, 2 * text.sequences)
    assert contents(tmp_path) == contents(draws)


def test_build_on_more_devices_stores_same_bytes(text: Text, draws: Path, tmp_path: Path) -> None:
    cache.fill_teacher_cache(
        tmp_path, teacher(), LOGITS, SAMPLED, text.data, text.corpus, Layout.from_config()
    )
    by_one = Cache.open(draws)
    by_eight = Cache.open(tmp_path)
    assert len(by_one.manifest.shards) > 3
    assert len(by_eight.manifest.shards) == 1
    numbers = np.arange(text.sequences)
    for view in (np.zeros_like(numbers), np.ones_like(numbers)):
        # Number of devices and shard size change no record.
        ids = by_one.read(numbers, view)["teacher.logits.ids"]
        its = by_eight.read(numbers, view)["teacher.logits.ids"]
        # Where rounding differs, a draw on the edge between two entries may, too
        assert np.mean(ids == its) > 0.999


def test_build_without_mask_copies_is_refused(text: Text, tmp_path: Path) -> None:
    without = dataclasses.replace(text, data=dataclasses.replace(text.data, mask_copies=0))
    with pytest.raises(
        InputError,
        match=r"\Adata.mask_copies is 0, expected at least 1: stored outputs belong to fixed",
    ):
        build(tmp_path / "cache", without)
    assert not (tmp_path / "cache").exists()


def test_build_of_logits_without_mlm_head_is_refused(text: Text, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found a teacher without an MLM head, expected one"):
        build(tmp_path / "cache", text, teacher=headless())
    assert not (tmp_path / "cache").exists()


def test_build_batch_that_devices_do_not_divide_is_refused(text: Text, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiple of the 8 parts"):
        cache.fill_teacher_cache(
            tmp_path / "cache",
            teacher(),
            LOGITS,
            dataclasses.replace(EXACT, batch_size=12),
            text.data,
            text.corpus,
            Layout.from_config(),
        )


def test_build_in_directory_of_another_cache_is_refused(text: Text, top_k: Path) -> None:
    with pytest.raises(InputError, match=r"was built with cache.k 3, expected 4"):
        build(top_k, text, config=dataclasses.replace(TOP_K, k=4))
    with pytest.raises(InputError, match="was built with encoder "):
        build(top_k, text, config=TOP_K, teacher=teacher(seed=10))


def open_changed(directory: Path, text: Text, **changes: Any) -> Cache:
    """Open the cache of a recipe that differs in something."""
    data = dataclasses.replace(text.data, **changes.pop("data", {}))
    corpus = changes.pop("corpus", text.corpus)
    model = changes.pop("teacher", teacher())
    request = changes.pop("request", LOGITS)
    config = changes.pop("config", EXACT)
    return cache.open_cache(directory, model, request, config, data, corpus)


def test_open_cache_accepts_request_for_part_of_features(text: Text, exact: Path) -> None:
    # All features, some of them, or hidden states alone.
    assert open_changed(exact, text).manifest.views == 2
    assert open_changed(exact, text, request=BOTH).manifest.views == 2
    hidden = FeatureRequest(hidden=frozenset({2}))
    assert open_changed(exact, text, request=hidden).manifest.views == 2
    # A head is not asked for
    assert open_changed(exact, text, request=hidden, teacher=headless()).manifest.views == 2


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data": {"mask_copies": 3}}, r"stored for mask_copies 2, expected 3\Z"),
        ({"data": {"mlm_probability": 0.2}}, r"stored for mlm_probability 0.15, expected 0.2\Z"),
        ({"data": {"max_predictions": 2}}, r"stored for max_predictions 3, expected 2\Z"),
        (
            {"request": FeatureRequest(hidden=frozenset({1}))},
            "holds None, expected Field.*teacher.hidden.1",
        ),
        (
            {"request": FeatureRequest(token_logits=True)},
            "holds None, expected Field.*teacher.token_logits",
        ),
        (
            {"config": dataclasses.replace(EXACT, dtype="float16")},
            "holds Field.*float32.*, expected Field.*float16",
        ),
        ({"config": TOP_K}, r"stored with cache.logits 'all', expected 'top_k'\Z"),
    ],
)
def test_open_cache_with_other_masks_or_missing_features_is_refused(
    changes: dict[str, Any], complaint: str, text: Text, exact: Path
) -> None:
    with pytest.raises(InputError, match=rf"\A{exact}: {complaint}"):
        open_changed(exact, text, **changes)


def test_open_cache_of_another_teacher_is_refused(text: Text, exact: Path) -> None:
    with pytest.raises(
        InputError, match=rf"\A{exact}: stored for encoder '[0-9a-f]+', expected '[0-9a-f]+'\Z"
    ):
        open_changed(exact, text, teacher=teacher(seed=10))
    # The encoder is the same, and the head is not.
    head = tiny.params(TEACHER, 10)["mlm"]
    with pytest.raises(InputError, match=rf"\A{exact}: stored for head '"):
        open_changed(exact, text, teacher=Model(TEACHER, {**teacher().params, "mlm": head}))


def test_open_cache_of_another_corpus_is_refused(text: Text, exact: Path, tmp_path: Path) -> None:
    other = prepared(tmp_path, seed=1)
    with pytest.raises(InputError, match=rf"\A{exact}: stored for corpus "):
        open_changed(exact, text, corpus=other.corpus)


def test_cache_of_subset_serves_its_sequences_and_no_other_subset(
    text: Text, exact: Path, tmp_path: Path
) -> None:
    limit = text.corpus.tokens("train") // 3
    few = dataclasses.replace(text, corpus=text.corpus.limited(limit, 1))
    build(tmp_path, few)
    subset = few.corpus.subset
    assert subset is not None
    # The subset is a real part: neither a handful nor half of the text.
    assert 10 < few.sequences < text.sequences // 2
    _, logits, _ = everything(text)
    np.testing.assert_allclose(
        records(tmp_path, few)["teacher.logits"], logits[:, subset.numbers], atol=1e-4
    )
    # Drawn again by its limit and seed, the subset is the same.
    assert (
        open_changed(tmp_path, text, corpus=text.corpus.limited(limit, 1)).manifest.sequences
        == few.sequences
    )
    # The whole text, another draw, and a larger subset are all other corpora.
    for other in (text.corpus, text.corpus.limited(limit, 2), text.corpus.limited(2 * limit, 1)):
        complaint = f"stored for corpus '{few.corpus.digest}', expected '{other.digest}'"
        with pytest.raises(InputError, match=rf"\A{tmp_path}: {complaint}\Z"):
            open_changed(tmp_path, text, corpus=other)
    # Nor does the whole text's cache serve the subset: its numbers count otherwise.
    with pytest.raises(InputError, match=rf"\A{exact}: stored for corpus "):
        open_changed(exact, few)


def test_open_cache_with_other_meaning_of_entries_is_refused(
    text: Text, draws: Path, top_k: Path
) -> None:
    """The fields are there, but hold draws at another temperature, or the ids of the largest
    probabilities."""
    assert open_changed(draws, text, config=SAMPLED).manifest.views == 2
    with pytest.raises(
        InputError, match=rf"\A{draws}: stored with cache.temperature 1.0, expected 2.0\Z"
    ):
        open_changed(draws, text, config=dataclasses.replace(SAMPLED, temperature=2.0))
    # The ids would be read as draws, with equal weight.
    as_draws = dataclasses.replace(TOP_K, logits="sampled")
    with pytest.raises(
        InputError, match=rf"\A{top_k}: stored with cache.logits 'top_k', expected 'sampled'\Z"
    ):
        open_changed(top_k, text, config=as_draws)
    # What is stored is log-probabilities, at any temperature of a term.
    assert (
        open_changed(top_k, text, config=dataclasses.replace(TOP_K, temperature=2.0)).manifest.views
        == 2
    )
