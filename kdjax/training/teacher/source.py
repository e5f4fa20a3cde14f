"""Where the teacher's features come from: its forward pass inside the step, or its stored outputs.

B batch, S slots, L length, V vocabulary, k entries.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.config import CacheConfig, ComputeConfig, ModelConfig
from kdjax.errors import InputError
from kdjax.models import abstract_params, forward
from kdjax.models.features import ATTENTION_FEATURES, Batch, FeatureRequest, Features
from kdjax.objectives.objective import Objective
from kdjax.objectives.reductions import word_means
from kdjax.training.teacher_cache.manifest import Field

TeacherForward = Callable[[Any, Batch], Features]
"""`(teacher_params, batch)` to the teacher's features."""

_NEVER = -1e30
"""Log-probability of an entry that was not drawn: finite, so that 0 times it is 0 and not NaN."""


class TeacherSource(ABC):
    """Where the teacher's features come from."""

    @abstractmethod
    def params(self, request: FeatureRequest) -> Any:
        """Return the parameters of the teacher that a step is given, as shapes, or None."""

    @abstractmethod
    def fields(self, length: int, slots: int) -> tuple[Field, ...]:
        """Return the fields of a batch that hold stored teacher outputs, for a sequence."""

    @abstractmethod
    def forward(
        self, request: FeatureRequest, compute: ComputeConfig = ComputeConfig()
    ) -> TeacherForward:
        """Build the function that gives the teacher's features, at least those requested."""


OWN_TOKENS = "teacher."
"""Before the names of a batch's arrays that are of a teacher's own tokens."""


@dataclass(frozen=True)
class OnlineTeacher(TeacherSource):
    """The teacher's forward pass inside the step: without dropout, as far as it is needed.

    One that reads tokens of its own gives hidden states of aligned words, `[B, L, D]`: means over
    the tokens of each, of which a row has at most L.

    Attributes:
        teacher_config: configuration of the teacher.
        own_seq_len: tokens of a sequence by the teacher's own tokenizer; 0: it reads the student's
            tokens.
    """

    teacher_config: ModelConfig
    own_seq_len: int = 0

    def params(self, request: FeatureRequest) -> Any:
        """Return its parameters; the MLM head only where logits are asked for."""
        return abstract_params(self.teacher_config, mlm=request.head)

    def fields(self, length: int, slots: int) -> tuple[Field, ...]:
        """Return the teacher's own tokens, where it reads such; else nothing: it runs."""
        if not self.own_seq_len:
            return ()
        tokens = []
        for name in _TOKEN_FIELDS:
            tokens.append(Field(f"{OWN_TOKENS}{name}", "int32", (self.own_seq_len,)))
        return (*word_fields(length), *tokens)

    def forward(
        self, request: FeatureRequest, compute: ComputeConfig = ComputeConfig()
    ) -> TeacherForward:
        """Build one forward pass."""
        if self.own_seq_len:
            return functools.partial(_forward_of_words, self.teacher_config, request, compute)
        return functools.partial(forward, self.teacher_config, request=request, compute=compute)


@dataclass(frozen=True)
class CachedTeacher(TeacherSource):
    """Stored outputs of the teacher. Logits are whole, or stand for a distribution of few entries.

    - `all`: every logit, in the stored dtype.
    - `top_k`: the k largest probabilities and the mass of the rest, which is spread evenly over the
      other entries. Biased: the rest is not even.
    - `sampled`: k draws from the teacher's distribution at `temperature`, each of weight 1/k.
      Unbiased for a cross-entropy and its gradient (random sampling knowledge distillation with
      proposal = target, Anshumann et al. 2025, arXiv 2503.16870).

    Other features are stored as they are: hidden states of a teacher that reads tokens of its own
    by aligned words.

    Attributes:
        teacher_config: configuration of the teacher whose outputs are stored.
        request: features that are stored.
        config: settings of the stored outputs.
        own_seq_len: tokens of a sequence by the teacher's own tokenizer; 0: it reads the student's
            tokens.
    """

    teacher_config: ModelConfig
    request: FeatureRequest
    config: CacheConfig
    own_seq_len: int = 0

    @property
    def online(self) -> OnlineTeacher:
        """Return the teacher whose outputs they are, as it would run."""
        return OnlineTeacher(self.teacher_config, self.own_seq_len)

    def params(self, request: FeatureRequest) -> Any:
        """Return None: the teacher does not run."""
        return None

    def fields(self, length: int, slots: int) -> tuple[Field, ...]:
        """Return the stored arrays, and which words they are of where they are of words."""
        stored = self.stored_fields(length, slots)
        if self.own_seq_len:
            return (*stored, *word_fields(length))
        return stored

    def stored_fields(self, length: int, slots: int) -> tuple[Field, ...]:
        """Return the fields that are stored of a sequence.

        Args:
            length: tokens of the student's sequence.
            slots: masked positions of it.
        """
        # By layer: scores [H, L, L], queries, keys and values [H, L, d], hidden states [L, D]
        teacher_config = self.teacher_config
        shapes = {
            "scores": (teacher_config.heads, length, length),
            "query": (teacher_config.heads, length, teacher_config.head_width),
            "key": (teacher_config.heads, length, teacher_config.head_width),
            "value": (teacher_config.heads, length, teacher_config.head_width),
            "hidden": (length, teacher_config.width),
        }
        stored = []
        for name, shape in shapes.items():
            for layer in sorted(getattr(self.request, name)):
                stored.append(Field(f"teacher.{name}.{layer}", self.config.dtype, shape))
        if self.request.logits:
            stored += self._logit_fields("teacher.logits", slots)
        if self.request.token_logits:
            stored += self._logit_fields("teacher.token_logits", length)
        return tuple(stored)

    def _logit_fields(self, name: str, places: int) -> list[Field]:
        """Return the stored arrays of logits at `places` positions of a sequence."""
        config = self.config
        vocabulary = self.teacher_config.vocab_size
        if config.logits == "all":
            return [Field(name, config.dtype, (places, vocabulary))]
        # Entries of the vocabulary, in as few bytes as they need
        id_type = "uint16" if vocabulary <= 2**16 else "uint32"
        ids = Field(f"{name}.ids", id_type, (places, config.k))
        if config.logits == "sampled":
            return [ids]
        return [
            ids,
            Field(f"{name}.log_probs", config.dtype, (places, config.k)),
            Field(f"{name}.log_rest", config.dtype, (places,)),
        ]

    def forward(
        self, request: FeatureRequest, compute: ComputeConfig = ComputeConfig()
    ) -> TeacherForward:
        """Build the function that reads the stored features out of a batch; no teacher runs."""
        return lambda params, batch: self.read(batch, request)

    def read(self, batch: Batch, request: FeatureRequest) -> Features:
        """Return the features that a batch holds of those requested, in float32."""
        features: dict[str, Any] = {}
        for name in (*ATTENTION_FEATURES, "hidden"):
            layers = {}
            for layer in sorted(getattr(request, name)):
                layers[layer] = batch[f"teacher.{name}.{layer}"].astype(jnp.float32)
            features[name] = layers
        for name in ("logits", "token_logits"):
            if getattr(request, name):
                features[name] = self._decode(f"teacher.{name}", batch)
        return Features(**features)

    def _decode(self, name: str, batch: Batch) -> jax.Array:
        """Decode logits `[B, S, V]` in float32 whose softmax is the stored distribution."""
        if self.config.logits == "all":
            return batch[name].astype(jnp.float32)
        ids = batch[f"{name}.ids"].astype(jnp.int32)
        vocabulary = self.teacher_config.vocab_size
        if self.config.logits == "sampled":
            # How often each entry was drawn
            counts = _each(lambda i: jnp.zeros(vocabulary).at[i].add(1.0))(ids)
            drawn = self.config.temperature * jnp.log(jnp.maximum(counts, 1.0) / self.config.k)
            return jnp.where(counts > 0, drawn, _NEVER)
        # The mass of the rest, spread evenly over the entries that are not stored
        other = batch[f"{name}.log_rest"].astype(jnp.float32) - math.log(vocabulary - self.config.k)
        known = batch[f"{name}.log_probs"].astype(jnp.float32)
        return _each(lambda rest, i, log_p: jnp.full(vocabulary, rest).at[i].set(log_p))(
            other, ids, known
        )

    def encode(self, features: Features, records: jax.Array) -> dict[str, jax.Array]:
        """Encode features as the arrays to store.

        Args:
            features: the teacher's features of `request`.
            records: int32 `[B]`, the number of each sequence's record: the seed of its draws.
        """
        stored = {}
        for name in (*ATTENTION_FEATURES, "hidden"):
            for layer, x in getattr(features, name).items():
                stored[f"teacher.{name}.{layer}"] = x
        for name in ("logits", "token_logits"):
            logits = getattr(features, name)
            if logits is not None:
                stored |= self._encode(f"teacher.{name}", logits.astype(jnp.float32), records)
        return stored

    def _encode(self, name: str, logits: jax.Array, records: jax.Array) -> dict[str, jax.Array]:
        """Encode logits `[B, S, V]` as the arrays to store."""
        config = self.config
        if config.logits == "all":
            return {name: logits}
        if config.logits == "top_k":
            # The mass of the rest is summed without the entries that are kept.
            log_p = jax.nn.log_softmax(logits)
            largest, ids = jax.lax.top_k(log_p, config.k)
            rest = _each(lambda x, i: jax.nn.logsumexp(x.at[i].set(-jnp.inf)))(log_p, ids)
            return {
                f"{name}.ids": ids,
                f"{name}.log_probs": largest,
                f"{name}.log_rest": jnp.maximum(rest, -100.0),
            }

        # Draws by the inverse of the distribution function, a pure function of the record's number
        cumulated = jnp.cumsum(jax.nn.softmax(logits / config.temperature), axis=-1)
        keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(records)
        uniform = jax.vmap(lambda key: jax.random.uniform(key, (logits.shape[1], config.k)))(keys)
        draws = uniform * cumulated[..., -1:]
        ids = _each(lambda c, u: jnp.searchsorted(c, u, side="right"))(cumulated, draws)
        return {f"{name}.ids": jnp.minimum(ids, logits.shape[-1] - 1)}


_TOKEN_FIELDS = ("tokens", "segments", "positions", "words")
"""Arrays of a teacher's own tokens."""


def word_fields(length: int) -> tuple[Field, ...]:
    """Return the fields of a batch that say aligned words, for a sequence.

    Args:
        length: tokens of the student's sequence.
    """
    return (Field("words", "int32", (length,)), Field("word_segments", "int32", (length,)))


def _forward_of_words(
    teacher_config: ModelConfig,
    request: FeatureRequest,
    compute: ComputeConfig,
    params: Any,
    batch: Batch,
) -> Features:
    """Compute the hidden states of a teacher that reads tokens of its own, of each aligned word."""
    teacher_batch = {name: batch[f"{OWN_TOKENS}{name}"] for name in _TOKEN_FIELDS}
    features = forward(teacher_config, params, teacher_batch, request, compute=compute)
    count = batch["words"].shape[1]
    hidden = {}
    for layer, x in features.hidden.items():
        hidden[layer] = word_means(x, teacher_batch["words"], count)
    return Features(hidden=hidden)


def _each(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Return the function applied at every slot of every sequence."""
    at_every: Callable[..., jax.Array] = jax.vmap(jax.vmap(function))
    return at_every


def check_readable(
    objective: Objective,
    config: CacheConfig,
    student_config: ModelConfig,
    teacher_config: ModelConfig,
) -> None:
    """Check that an objective can learn from logits as a cache stores them.

    Args:
        objective: objective of a phase.
        config: settings of the store (`cache`).
        student_config: configuration of the student.
        teacher_config: configuration of the teacher.

    Raises:
        InputError: k is more than the vocabulary, or draws at another temperature than the term's
            that reads them.
    """
    if config.logits != "all" and config.k >= teacher_config.vocab_size:
        raise InputError(
            f"cache.k is {config.k}, "
            f"expected fewer than the vocabulary's {teacher_config.vocab_size} entries"
        )
    if config.logits != "sampled":
        return
    for key, _, term in objective.terms:
        if (
            term.needs(student_config, teacher_config).teacher.head
            and term.temperature != config.temperature
        ):
            raise InputError(
                f"{key}: its temperature is {term.temperature!r}, expected cache.temperature, "
                f"{config.temperature:g}: draws stand for the distribution at the temperature they "
                "were made at"
            )
