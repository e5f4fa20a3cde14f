"""Stored teacher outputs small enough for a test: their corpus, their teacher, and what it makes of
every view."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax import models
from kdjax.config import CacheConfig, DataConfig
from kdjax.data.corpus import Corpus
from kdjax.data.masking import MaskSettings
from kdjax.data.prepare.local import prepare
from kdjax.models import Model, forward
from kdjax.models.features import FeatureRequest
from kdjax.parallel.layout import Layout
from kdjax.training.phase import BatchShape
from kdjax.training.teacher_cache import fill as cache
from kdjax.training.teacher_cache.store import Cache
from tests.support import tiny
from tests.support.corpora import make_corpus, make_tokenizer

Array = np.ndarray
SHAPE = BatchShape(batch_size=8, seq_len=16, max_predictions=3)
TEACHER = dataclasses.replace(tiny.TEACHER, layers=2)
LOGITS = FeatureRequest(logits=True)
BOTH = FeatureRequest(hidden=frozenset({0, 2}), logits=True)
EXACT = CacheConfig(logits="all", dtype="float32", batch_size=8)
TOP_K = CacheConfig(logits="top_k", k=3, batch_size=8)
SAMPLED = CacheConfig(logits="sampled", k=48, batch_size=8)


@functools.cache
def teacher(seed: int = 9) -> Model:
    """Make a teacher that is surer than an untrained one, so that its distributions are not
    flat."""
    config, params = models.init(TEACHER, seed)
    head = {
        **params["mlm"],
        "norm": {**params["mlm"]["norm"], "scale": 20 * params["mlm"]["norm"]["scale"]},
    }
    return Model(config, {**params, "mlm": head})


@dataclasses.dataclass(frozen=True)
class Text:
    """A prepared corpus and the settings it was prepared with."""

    data: DataConfig
    corpus: Corpus

    @property
    def sequences(self) -> int:
        return self.corpus.sequences("train")


def prepared(directory: Path, seed: int = 0) -> Text:
    """Prepare about 65 training sequences under two views; no whole number of batches."""
    data = DataConfig(
        files=str(make_corpus(directory / "text.jsonl", 44, seed)),
        seq_len=SHAPE.seq_len,
        max_predictions=SHAPE.max_predictions,
        validation=0.2,
        mask_copies=2,
        workers=1,
    )
    prepare(data, make_tokenizer(directory / "tokenizer.json"), directory / "prepared")
    return Text(data, Corpus.open(directory / "prepared"))


def build(
    directory: Path,
    text: Text,
    request: FeatureRequest = LOGITS,
    config: CacheConfig = EXACT,
    **more: Any,
) -> Any:
    model = more.pop("teacher", teacher())
    mesh = Layout.from_config(devices=jax.devices()[:1])
    return cache.fill_teacher_cache(
        directory, model, request, config, text.data, text.corpus, mesh, **more
    )


def records(directory: Path, text: Text) -> dict[str, Array]:
    """Read what is stored, `[2, n, …]`."""
    opened = Cache.open(directory)
    numbers = np.arange(text.sequences)
    read = [opened.read(numbers, np.full_like(numbers, view)) for view in range(2)]
    stacked = {}
    for name in read[0]:
        stacked[name] = np.stack([record[name] for record in read])
    return stacked


@functools.cache
def _seen() -> Callable[..., Any]:
    return jax.jit(lambda p, b: forward(TEACHER, p, b, BOTH))


def everything(text: Text) -> tuple[Array, Array, Array]:
    """Compute last hidden states, logits and slot weights of all views `[2, n, …]`, by the teacher
    itself, a view at a time."""
    data = text.data
    numbers = np.arange(text.sequences)
    features = []
    for view in range(2):
        batch = text.corpus.viewed(
            "train",
            numbers,
            np.full_like(numbers, view),
            mask_settings=MaskSettings.from_config(data),
        )
        seen = jax.device_get(_seen()(teacher().params, batch))
        features.append((seen.hidden[2], seen.logits, batch["label_weights"]))
    hidden, logits, weights = zip(*features, strict=True)
    return np.stack(hidden), np.stack(logits), np.stack(weights)
