"""Filling the teacher cache: the teacher runs once over all mask views of the training text, and
what objectives need of it is stored."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.budget.price import count_program_flops
from kdjax.config import CacheConfig, DataConfig, MaskingConfig, ModelConfig, plain
from kdjax.data.corpus import Corpus
from kdjax.data.masking import MaskSettings
from kdjax.errors import InputError
from kdjax.models import Model
from kdjax.models.features import FeatureRequest, Features
from kdjax.parallel.layout import Layout
from kdjax.training.checksum import sha256
from kdjax.training.phase import BatchShape
from kdjax.training.teacher.source import CachedTeacher, OnlineTeacher
from kdjax.training.teacher_cache import store
from kdjax.training.teacher_cache.manifest import CacheManifest, record_bytes
from kdjax.training.teacher_cache.store import Cache

SHARD_BYTES = 64 * 2**20
"""About the size of a shard, which is what a kill can lose."""


@functools.cache
def cache_price(
    teacher_config: ModelConfig,
    request: FeatureRequest,
    batch_shape: BatchShape,
    own_seq_len: int = 0,
) -> int:
    """Count the FLOPs of one forward pass of the teacher over a batch, as XLA does.

    Choosing the entries that are kept, a few operations a vocabulary entry, is not in it.

    Args:
        teacher_config: configuration of the teacher.
        request: outputs that are stored.
        batch_shape: shape of the batch, by the student's tokens.
        own_seq_len: tokens of a sequence by the teacher's own tokenizer; 0: it reads the student's.
    """
    source = OnlineTeacher(teacher_config, own_seq_len)
    batch = batch_shape.with_fields(source.fields(batch_shape.seq_len, batch_shape.max_predictions))
    return count_program_flops(source.forward(request), source.params(request), batch).flops


def forward_pass_count(sequences: int, views: int, batch_size: int) -> int:
    """Count the forward passes that store all views of a corpus.

    Args:
        sequences: training sequences of the corpus.
        views: mask patterns of each.
        batch_size: sequences of a pass.
    """
    return -(-sequences * views // batch_size)


def fill_teacher_cache(
    directory: Path,
    teacher: Model,
    request: FeatureRequest,
    config: CacheConfig,
    data: DataConfig,
    corpus: Corpus,
    layout: Layout,
    progress: Callable[[int, int], None] | None = None,
) -> CacheManifest:
    """Store the teacher's outputs for every view of every training sequence; resumable.

    The manifest's totals have the FLOPs spent (`flops`) and, where logits are not stored whole, how
    far the stored distributions are off, as sums over `positions`: `total_variation`; `entropy`,
    the teacher's entropy in nats; `entropy_error`, the mean of −log p_t under the stored
    distribution minus that entropy; `kl`, KL(teacher‖stored), for `top_k`.

    Args:
        directory: directory of the cache.
        teacher: the teacher, with an MLM head if the request needs one.
        request: features of the teacher to store.
        config: settings of how they are stored.
        data: the recipe's data settings.
        corpus: prepared corpus whose training split is read.
        layout: layout of the devices.
        progress: function called with records done and records in all.

    Raises:
        InputError: no mask views, a teacher without an MLM head, or a directory that holds
            something else.
    """
    # What cannot be stored is refused before anything is computed.
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
    teacher_source = CachedTeacher(teacher.config, request, config, data.own_seq_len)
    fields = teacher_source.stored_fields(data.seq_len, data.max_predictions)
    encoder = _Encoder(teacher, teacher_source, data, corpus, layout)

    # A block is a shard of whole batches.
    per_shard = max(1, SHARD_BYTES // (record_bytes(fields) * config.batch_size))
    return store.build_cache(
        directory,
        identity=identity(teacher, request, config, data, corpus),
        fields=fields,
        sequences=corpus.sequences("train"),
        views=data.mask_copies,
        block=per_shard * config.batch_size,
        make=encoder.encode_block,
        progress=progress,
    )


class _Encoder:
    """The teacher's forward pass over some sequences, and what is stored of it."""

    def __init__(
        self,
        teacher: Model,
        teacher_source: CachedTeacher,
        data: DataConfig,
        corpus: Corpus,
        layout: Layout,
    ):
        config = teacher_source.config
        request = teacher_source.request
        batch_shape = BatchShape(config.batch_size, data.seq_len, data.max_predictions)
        params = dict(teacher.params)
        if not request.head:
            params.pop("mlm", None)
        self._config = config
        self._data = data
        self._corpus = corpus
        self._layout = layout
        own_seq_len = teacher_source.own_seq_len
        self._flops = cache_price(teacher.config, request, batch_shape, own_seq_len)
        self._run = forward_program(teacher_source, layout)
        self._params = jax.device_put(params, layout.replicated)

    def encode_block(
        self, numbers: np.ndarray, views: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, float | int]]:
        """Run the teacher on any number of sequences, a batch after another.

        Args:
            numbers: numbers of the sequences.
            views: number of the view of each.

        Returns:
            The arrays to store, and their part of the manifest's totals.

        Raises:
            InputError: a feature is not finite in the type in which it is stored.
        """
        parts = []
        totals: dict[str, float | int] = {"flops": 0}
        for start in range(0, len(numbers), self._config.batch_size):
            chosen = slice(start, start + self._config.batch_size)
            stored, sums = self.encode(numbers[chosen], views[chosen])
            parts.append(stored)
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + value
        arrays = {}
        for name in parts[0]:
            arrays[name] = np.concatenate([part[name] for part in parts])
        return arrays, totals

    def encode(
        self, numbers: np.ndarray, views: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, float | int]]:
        """Run the teacher on some sequences; return the arrays to store, and their part of totals.

        Args:
            numbers: numbers of the sequences, at most as many as a batch has.
            views: number of the view of each.

        Raises:
            InputError: a feature is not finite in the type in which it is stored.
        """
        batch_size = self._config.batch_size
        rows = len(numbers)
        batch = self._corpus.viewed(
            "train",
            numbers,
            views,
            mask_settings=MaskSettings.from_config(self._data),
        )
        # The last batch is filled up: its further rows are computed and not stored.
        records = views * self._corpus.sequences("train") + numbers
        padded = {name: np.pad(x, ((0, batch_size - rows), (0, 0))) for name, x in batch.items()}
        padded["records"] = np.resize(records, batch_size).astype(np.int32)
        placed = jax.device_put(padded, self._layout.batch_sharding)

        stored, sums = jax.device_get(self._run(self._params, placed))
        stored = {name: x[:rows] for name, x in stored.items()}
        _check_finite(stored, self._config.dtype)
        return stored, {"flops": self._flops, **{name: float(x) for name, x in sums.items()}}


def identity(
    teacher: Model, request: FeatureRequest, config: CacheConfig, data: DataConfig, corpus: Corpus
) -> dict[str, Any]:
    """Return the settings and digests that stored outputs depend on, as plain values.

    Args:
        teacher: the teacher.
        request: outputs that are stored.
        config: settings of the store (`cache`).
        data: settings of the text and its masks.
        corpus: the text.
    """
    # Settings that these logits do not depend on are left out.
    settings = asdict(config)
    del settings["source"]
    del settings["shared_by"]
    if config.logits == "all":
        del settings["k"]
    if config.logits != "sampled":
        del settings["temperature"]
    requested = dict(vars(request))
    for name, layers in requested.items():
        if isinstance(layers, frozenset):
            requested[name] = sorted(layers)
    # Named only where it is not BERT's, so that what was stored before there was a choice counts.
    masking = data.masking.identity()
    return {
        **({"masking": masking} if masking else {}),
        "corpus": corpus.digest,
        "encoder": sha256({name: part for name, part in teacher.params.items() if name != "mlm"}),
        "head": sha256(teacher.params["mlm"]) if request.head else None,
        "mask_copies": data.mask_copies,
        "mlm_probability": data.mlm_probability,
        "max_predictions": data.max_predictions,
        "cache": settings,
        "stored": plain(requested),
    }


def open_cache(
    directory: Path,
    teacher: Model,
    request: FeatureRequest,
    config: CacheConfig,
    data: DataConfig,
    corpus: Corpus,
) -> Cache:
    """Open stored outputs; check that they are this teacher's, on these masks, and hold enough.

    Args:
        directory: directory of the store.
        teacher: the teacher that it must be of.
        request: outputs that it must have.
        config: settings of the store (`cache`).
        data: settings of the text and its masks.
        corpus: the text.

    Raises:
        InputError: they are of another teacher, text or masks, lack features that are asked for, or
            are unfinished or damaged.
    """
    opened = Cache.open(directory)
    # The same teacher, text and masks
    stored = opened.manifest.identity
    expected = identity(teacher, request, config, data, corpus)
    masks = ("mask_copies", "mlm_probability", "max_predictions")
    for name in ("corpus", "encoder", "head", *masks):
        if stored[name] != expected[name] and expected[name] is not None:
            raise InputError(
                f"{directory}: stored for {name} {stored[name]!r}, expected {expected[name]!r}"
            )

    # An identity leaves out what is BERT's.
    masking = MaskingConfig(**stored.get("masking", {}))
    if masking != data.masking:
        raise InputError(
            f"{directory}: stored for masking {asdict(masking)!r}, expected "
            f"{asdict(data.masking)!r}"
        )

    # The fields do not show what entries of logits stand for.
    for name in ("logits", "temperature") if request.head else ():
        stored_setting = stored["cache"].get(name)
        setting = expected["cache"].get(name)
        if stored_setting != setting:
            raise InputError(
                f"{directory}: stored with cache.{name} {stored_setting!r}, expected {setting!r}"
            )

    # All features that are requested, as they would be stored
    stored_fields = {field.name: field for field in opened.manifest.fields}
    teacher_source = CachedTeacher(teacher.config, request, config, data.own_seq_len)
    for field in teacher_source.stored_fields(data.seq_len, data.max_predictions):
        stored_field = stored_fields.get(field.name)
        if stored_field != field:
            raise InputError(f"{directory}: holds {stored_field}, expected {field}")
    return opened


def _check_finite(arrays: Mapping[str, np.ndarray], dtype: str) -> None:
    """Raise InputError where a feature is beyond the range of the type it is stored in."""
    for name, x in arrays.items():
        if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
            raise InputError(
                f"cache: {name} holds a number that is not finite as {dtype}, expected features "
                "within its range; set cache.dtype to float32"
            )


def forward_program(teacher_source: CachedTeacher, layout: Layout) -> Callable[..., Any]:
    """Compile the forward pass: `(params, batch)` to the arrays to store, and their errors."""
    request = teacher_source.request
    dtypes = {field.name: field.dtype for field in teacher_source.stored_fields(1, 1)}
    teacher_forward = teacher_source.online.forward(request)

    def run(params: Any, batch: Mapping[str, jax.Array]) -> Any:
        with layout.mesh_context():
            features = teacher_forward(params, batch)
        # Read back as a step will read it, so that the errors are those of what is stored
        encoded = teacher_source.encode(features, batch["records"])
        stored = {name: x.astype(dtypes[name]) for name, x in encoded.items()}
        decoded = teacher_source.read(stored, request)
        return stored, _errors(teacher_source, features, decoded, batch)

    batch_sharding = layout.batch_sharding
    replicated = layout.replicated
    return jax.jit(
        run,
        in_shardings=(replicated, batch_sharding),
        out_shardings=(batch_sharding, replicated),
    )


def _errors(
    teacher_source: CachedTeacher,
    features: Features,
    decoded: Features,
    batch: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
    """Sum over positions how far the stored distributions are off the teacher's."""
    kind = teacher_source.config.logits
    if kind == "all" or not teacher_source.request.head:
        return {}
    temperature = teacher_source.config.temperature if kind == "sampled" else 1.0
    sums: dict[str, jax.Array] = {}
    for name, weights in (("logits", batch["label_weights"]), ("token_logits", batch["valid"])):
        if getattr(features, name) is None:
            continue
        # p is the teacher's distribution, q the stored one.
        log_p = jax.nn.log_softmax(getattr(features, name) / temperature)
        log_q = jax.nn.log_softmax(getattr(decoded, name) / temperature)
        p = jnp.exp(log_p)
        q = jnp.exp(log_q)
        values = {
            "total_variation": jnp.sum(jnp.abs(p - q), -1) / 2,
            "entropy": -jnp.sum(p * log_p, -1),
            "entropy_error": jnp.sum((p - q) * log_p, -1),
        }
        if kind == "top_k":
            values["kl"] = jnp.sum(p * (log_p - log_q), -1)
        values["positions"] = jnp.ones_like(values["entropy"])
        for key, value in values.items():
            counted = jnp.sum(jnp.where(weights > 0, value, 0))
            sums[key] = sums.get(key, jnp.float32(0)) + counted
    return sums
