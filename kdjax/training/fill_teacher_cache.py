"""Running the teacher once over all mask views of the training text, and storing what objectives
need of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.budget.price import measure
from kdjax.config import CacheConfig, DataConfig, ModelConfig, plain
from kdjax.data.corpus import Corpus
from kdjax.errors import InputError
from kdjax.models import Model, abstract_params, forward
from kdjax.models.features import FeatureRequest, Features
from kdjax.parallel.layout import Layout
from kdjax.teacher_cache import store as cache
from kdjax.teacher_cache.manifest import CacheManifest, record_bytes
from kdjax.teacher_cache.store import Cache
from kdjax.training.checkpoint import sha256
from kdjax.training.phase import BatchShape
from kdjax.training.teacher_source import CachedTeacher

SHARD_BYTES = 64 * 2**20
"""About as large as a shard gets: what a kill can lose."""


@functools.cache
def cache_price(teacher: ModelConfig, request: FeatureRequest, shape: BatchShape) -> int:
    """FLOPs of one forward pass of the teacher over `shape.batch_size` sequences, by XLA's count.

    Choosing the entries that are kept, a few operations a vocabulary entry, is not in it.
    """
    params = abstract_params(teacher, mlm=request.head)
    return measure(lambda p, b: forward(teacher, p, b, request), params, shape.abstract()).flops


def passes(sequences: int, views: int, batch: int) -> int:
    """How many forward passes store all views of a corpus."""
    return -(-sequences * views // batch)


def build(
    directory: Path,
    teacher: Model,
    request: FeatureRequest,
    config: CacheConfig,
    data: DataConfig,
    corpus: Corpus,
    layout: Layout,
    progress: Callable[[int, int], None] | None = None,
) -> CacheManifest:
    """Stores the teacher's outputs for every view of every training sequence; resumable.

    The manifest's totals have the FLOPs spent (`flops`) and, where logits are not stored whole, how
    far the stored
    distributions are off, as sums over `positions`: `total_variation`; `entropy`, the teacher's
    entropy in nats; `entropy_error`, the mean of −log p_t under the stored distribution minus that
    entropy; `kl`, KL(teacher‖stored), for `top_k`.

    Args:
        directory: where to.
        teacher: the teacher, with an MLM head if the request needs one.
        request: which features.
        config: how they are stored.
        data: the recipe's data settings.
        corpus: the prepared corpus.
        layout: of the devices.
        progress: told records done and records in all.

    Raises:
        InputError: no mask views, a teacher without an MLM head, or a directory that holds
            something else.
    """
    if data.mask_copies < 1:
        raise InputError(
            "data.mask_copies is 0, expected at least 1: stored outputs belong to fixed masks"
        )
    if request.head and "mlm" not in teacher.params:
        raise InputError(
            "cache: found a teacher without an MLM head, expected one; teacher.head.budget fits a "
            "head"
        )
    layout.check_batch(config.batch_size)
    shape = BatchShape(config.batch_size, data.seq_len, data.max_predictions)
    teacher_source = CachedTeacher(teacher.config, request, config)
    fields = teacher_source.fields(data.seq_len, data.max_predictions)
    params = {name: part for name, part in teacher.params.items() if name != "mlm" or request.head}
    flops = cache_price(teacher.config, request, shape)
    run = _program(teacher_source, layout)
    placed = jax.device_put(params, layout.replicated)
    sequences = corpus.sequences("train")

    def make(
        numbers: np.ndarray, views: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, float | int]]:
        made: list[dict[str, np.ndarray]] = []
        totals: dict[str, float | int] = {"flops": 0}
        for start in range(0, len(numbers), config.batch_size):
            chosen = slice(start, start + config.batch_size)
            batch = corpus.viewed(
                "train",
                numbers[chosen],
                views[chosen],
                mlm_probability=data.mlm_probability,
                max_predictions=data.max_predictions,
            )
            rows = len(numbers[chosen])
            whole = {
                name: np.pad(x, ((0, config.batch_size - rows), (0, 0)))
                for name, x in batch.items()
            }
            records = np.resize(
                views[chosen] * sequences + numbers[chosen], config.batch_size
            ).astype(np.int32)
            whole = jax.device_put({**whole, "records": records}, layout.batch_sharding)
            stored, sums = jax.device_get(run(placed, whole))
            made.append({name: x[:rows] for name, x in stored.items()})
            _check_finite(made[-1], config.dtype)
            totals["flops"] += flops
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + float(value)
        return {f.name: np.concatenate([one[f.name] for one in made]) for f in fields}, totals

    per_shard = max(1, SHARD_BYTES // (record_bytes(fields) * config.batch_size))
    return cache.build(
        directory,
        identity=identity(teacher, request, config, data, corpus),
        fields=fields,
        sequences=sequences,
        views=data.mask_copies,
        block=per_shard * config.batch_size,
        make=make,
        progress=progress,
    )


def identity(
    teacher: Model, request: FeatureRequest, config: CacheConfig, data: DataConfig, corpus: Corpus
) -> dict[str, Any]:
    """What stored outputs depend on, as plain values."""
    how = {
        name: value for name, value in asdict(config).items() if name not in ("source", "shared_by")
    }
    unused = {"all": ("k", "temperature"), "top_k": ("temperature",), "sampled": ()}[config.logits]
    asked = {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in vars(request).items()
    }
    return {
        "corpus": corpus.digest,
        "encoder": sha256({name: part for name, part in teacher.params.items() if name != "mlm"}),
        "head": sha256(teacher.params["mlm"]) if request.head else None,
        "mask_copies": data.mask_copies,
        "mlm_probability": data.mlm_probability,
        "max_predictions": data.max_predictions,
        "cache": {name: value for name, value in how.items() if name not in unused},
        "stored": plain(asked),
    }


def open_cache(
    directory: Path,
    teacher: Model,
    request: FeatureRequest,
    config: CacheConfig,
    data: DataConfig,
    corpus: Corpus,
) -> Cache:
    """Opens stored outputs, and checks that they are this teacher's on these masks and hold what is
    asked for.

    Raises:
        InputError: they are not, or the directory is unfinished or damaged.
    """
    opened = Cache.open(directory)
    found = opened.manifest.identity
    wanted = identity(teacher, request, config, data, corpus)
    for name in ("corpus", "encoder", "head", "mask_copies", "mlm_probability", "max_predictions"):
        if found[name] != wanted[name] and wanted[name] is not None:
            raise InputError(
                f"{directory}: stored for {name} {found[name]!r}, expected {wanted[name]!r}"
            )
    # The fields do not show what entries stand for
    for name in ("logits", "temperature") if request.head else ():
        stored = found["cache"].get(name)
        asked = wanted["cache"].get(name)
        if stored != asked:
            raise InputError(
                f"{directory}: stored with cache.{name} {stored!r}, expected {asked!r}"
            )
    there = {f.name: f for f in opened.manifest.fields}
    for f in CachedTeacher(teacher.config, request, config).fields(
        data.seq_len, data.max_predictions
    ):
        if there.get(f.name) != f:
            raise InputError(f"{directory}: holds {there.get(f.name)}, expected {f}")
    return opened


def _check_finite(arrays: Mapping[str, np.ndarray], dtype: str) -> None:
    for name, x in arrays.items():
        if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
            raise InputError(
                f"cache: {name} holds a number that is not finite as {dtype}, expected features "
                "within its range; "
                "set cache.dtype to float32"
            )


def _program(teacher_source: CachedTeacher, layout: Layout) -> Callable[..., Any]:
    """The teacher's forward pass, what is stored of it, and how far that is off; compiled over the
    devices."""
    dtypes = {f.name: f.dtype for f in teacher_source.fields(1, 1)}

    def run(params: Any, batch: Mapping[str, jax.Array]) -> Any:
        with layout.mesh_context():
            features = forward(teacher_source.teacher, params, batch, teacher_source.request)
        stored = {
            name: x.astype(dtypes[name])
            for name, x in teacher_source.encode(features, batch["records"]).items()
        }
        return stored, _off(
            teacher_source,
            features,
            teacher_source.features(None, stored, teacher_source.request),
            batch,
        )

    split = layout.batch_sharding
    everywhere = layout.replicated
    return jax.jit(run, in_shardings=(everywhere, split), out_shardings=(split, everywhere))


def _off(
    teacher_source: CachedTeacher,
    features: Features,
    read: Features,
    batch: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
    """Sums over positions of the differences between the teacher's distributions and the stored
    ones."""
    kind = teacher_source.config.logits
    if kind == "all" or not teacher_source.request.head:
        return {}
    temperature = teacher_source.config.temperature if kind == "sampled" else 1.0
    sums: dict[str, jax.Array] = {}
    for name, weights in (("logits", batch["label_weights"]), ("token_logits", batch["valid"])):
        if getattr(features, name) is None:
            continue
        log_p, log_q = (
            jax.nn.log_softmax(getattr(x, name) / temperature) for x in (features, read)
        )
        p = jnp.exp(log_p)
        q = jnp.exp(log_q)
        counts = weights > 0
        values = {
            "total_variation": jnp.sum(jnp.abs(p - q), -1) / 2,
            "entropy": -jnp.sum(p * log_p, -1),
            "entropy_error": jnp.sum((p - q) * log_p, -1),
            **({"kl": jnp.sum(p * (log_p - log_q), -1)} if kind == "top_k" else {}),
        }
        values["positions"] = jnp.ones_like(values["entropy"])
        for key, value in values.items():
            sums[key] = sums.get(key, jnp.float32(0)) + jnp.sum(jnp.where(counts, value, 0))
    return sums
