"""What the student learns from: the teacher run inside the step, or its stored outputs. One
interface for both.

B batch, S slots, L length, V vocabulary, k entries.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.config import CacheConfig, ComputeConfig, ModelConfig
from kdjax.errors import InputError
from kdjax.models import abstract_params, forward
from kdjax.models.features import ATTENTION_FEATURES, FeatureRequest, Features
from kdjax.objectives.objective import Objective
from kdjax.teacher_cache.manifest import Field

Batch = Mapping[str, jax.Array]

_NEVER = -1e30
"""Log-probability of what was not drawn: finite, so that 0 x (it) is 0 and not NaN."""


class TeacherSource(ABC):
    """Where the teacher's features come from."""

    @abstractmethod
    def params(self, request: FeatureRequest) -> Any:
        """The parameters of the teacher that a step is given, as shapes; None: none."""

    @abstractmethod
    def fields(self, length: int, slots: int) -> tuple[Field, ...]:
        """What a batch holds besides its tokens, a sequence at a time."""

    @abstractmethod
    def features(
        self,
        params: Any,
        batch: Batch,
        request: FeatureRequest,
        compute: ComputeConfig = ComputeConfig(),
    ) -> Features:
        """The teacher's features, of which there are at least those requested."""


@dataclass(frozen=True)
class OnlineTeacher(TeacherSource):
    """The teacher's forward pass inside the step: without dropout, as far as it is needed."""

    teacher: ModelConfig

    def params(self, request: FeatureRequest) -> Any:
        """Its parameters; the MLM head only where logits are asked for."""
        return abstract_params(self.teacher, mlm=request.head)

    def fields(self, length: int, slots: int) -> tuple[Field, ...]:
        """Nothing."""
        return ()

    def features(
        self,
        params: Any,
        batch: Batch,
        request: FeatureRequest,
        compute: ComputeConfig = ComputeConfig(),
    ) -> Features:
        """One forward pass."""
        return forward(self.teacher, params, batch, request, compute=compute)


@dataclass(frozen=True)
class CachedTeacher(TeacherSource):
    """Stored outputs of the teacher. Logits are whole, or stand for a distribution of few entries.

    - `all`: every logit, in the stored dtype.
    - `top_k`: the k largest probabilities and the mass of the rest, which is spread evenly over the
      other entries. Biased: the rest is not even.
    - `sampled`: k draws from the teacher's distribution at `temperature`, each of weight 1/k.
      Unbiased for a cross-entropy and its gradient (random sampling knowledge distillation with
      proposal = target, Anshumann et al. 2025, arXiv 2503.16870).

    Other features are stored as they are.

    Attributes:
        teacher: the teacher's configuration.
        request: what is stored.
        config: how.
    """

    teacher: ModelConfig
    request: FeatureRequest
    config: CacheConfig

    def params(self, request: FeatureRequest) -> Any:
        """None: the teacher does not run."""
        return None

    def fields(self, length: int, slots: int) -> tuple[Field, ...]:
        """The stored arrays."""
        wide = self.config.dtype
        number = self.teacher
        shapes = {
            "scores": (number.heads, length, length),
            **dict.fromkeys(("query", "key", "value"), (number.heads, length, number.head_width)),
            "hidden": (length, number.width),
        }
        stored = [
            Field(f"teacher.{name}.{layer}", wide, shape)
            for name, shape in shapes.items()
            for layer in sorted(getattr(self.request, name))
        ]
        for name, places in (("logits", slots), ("token_logits", length)):
            if getattr(self.request, name):
                stored += self._logit_fields(f"teacher.{name}", places)
        return tuple(stored)

    def _logit_fields(self, name: str, places: int) -> list[Field]:
        config = self.config
        vocabulary = self.teacher.vocab_size
        if config.logits == "all":
            return [Field(name, config.dtype, (places, vocabulary))]
        ids = Field(
            f"{name}.ids", "uint16" if vocabulary <= 2**16 else "uint32", (places, config.k)
        )
        if config.logits == "sampled":
            return [ids]
        return [
            ids,
            Field(f"{name}.log_probs", config.dtype, (places, config.k)),
            Field(f"{name}.log_rest", config.dtype, (places,)),
        ]

    def features(
        self,
        params: Any,
        batch: Batch,
        request: FeatureRequest,
        compute: ComputeConfig = ComputeConfig(),
    ) -> Features:
        """Reads them back, in float32."""

        def layers(name: str) -> dict[int, jax.Array]:
            wanted = sorted(getattr(request, name))
            return {layer: batch[f"teacher.{name}.{layer}"].astype(jnp.float32) for layer in wanted}

        return Features(
            **{name: layers(name) for name in (*ATTENTION_FEATURES, "hidden")},
            logits=self._decode("teacher.logits", batch) if request.logits else None,
            token_logits=self._decode("teacher.token_logits", batch)
            if request.token_logits
            else None,
        )

    def _decode(self, name: str, batch: Batch) -> jax.Array:
        """Logits `[B, S, V]` in float32 whose softmax is the stored distribution."""
        if self.config.logits == "all":
            return batch[name].astype(jnp.float32)
        ids = batch[f"{name}.ids"].astype(jnp.int32)
        vocabulary = self.teacher.vocab_size
        if self.config.logits == "sampled":
            counts = _each(lambda i: jnp.zeros(vocabulary).at[i].add(1.0))(ids)
            drawn = self.config.temperature * jnp.log(jnp.maximum(counts, 1.0) / self.config.k)
            return jnp.where(counts > 0, drawn, _NEVER)
        other = batch[f"{name}.log_rest"].astype(jnp.float32) - math.log(vocabulary - self.config.k)
        known = batch[f"{name}.log_probs"].astype(jnp.float32)
        return _each(lambda rest, i, log_p: jnp.full(vocabulary, rest).at[i].set(log_p))(
            other, ids, known
        )

    def encode(self, features: Features, records: jax.Array) -> dict[str, jax.Array]:
        """The stored arrays of features.

        Args:
            features: the teacher's, those of `request`.
            records: int32 `[B]`, the number of each sequence's record: the seed of its draws.
        """
        stored = {
            f"teacher.{name}.{layer}": x
            for name in (*ATTENTION_FEATURES, "hidden")
            for layer, x in getattr(features, name).items()
        }
        for name in ("logits", "token_logits"):
            logits = getattr(features, name)
            if logits is not None:
                stored |= self._encode(f"teacher.{name}", logits.astype(jnp.float32), records)
        return stored

    def _encode(self, name: str, logits: jax.Array, records: jax.Array) -> dict[str, jax.Array]:
        config = self.config
        if config.logits == "all":
            return {name: logits}
        if config.logits == "top_k":
            log_p = jax.nn.log_softmax(logits)
            largest, ids = jax.lax.top_k(log_p, config.k)
            rest = _each(lambda x, i: jax.nn.logsumexp(x.at[i].set(-jnp.inf)))(log_p, ids)
            return {
                f"{name}.ids": ids,
                f"{name}.log_probs": largest,
                f"{name}.log_rest": jnp.maximum(rest, -100.0),
            }
        cumulated = jnp.cumsum(jax.nn.softmax(logits / config.temperature), axis=-1)
        keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(records)
        draws = (
            jax.vmap(lambda key: jax.random.uniform(key, (logits.shape[1], config.k)))(keys)
            * cumulated[..., -1:]
        )
        ids = _each(lambda c, u: jnp.searchsorted(c, u, side="right"))(cumulated, draws)
        return {f"{name}.ids": jnp.minimum(ids, logits.shape[-1] - 1)}


def _each(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The function at every slot of every sequence."""
    at_every: Callable[..., jax.Array] = jax.vmap(jax.vmap(function))
    return at_every


def check_readable(
    objective: Objective, config: CacheConfig, student: ModelConfig, teacher: ModelConfig
) -> None:
    """Whether an objective can learn from logits as a cache stores them.

    Raises:
        InputError: k is more than the vocabulary, or draws at another temperature than the term's
            that reads them.
    """
    if config.logits != "all" and config.k >= teacher.vocab_size:
        raise InputError(
            f"cache.k is {config.k}, expected fewer than the vocabulary's {teacher.vocab_size} "
            "entries"
        )
    if config.logits != "sampled":
        return
    for key, _, term in objective.terms:
        if term.needs(student, teacher).teacher.head and term.temperature != config.temperature:
            raise InputError(
                f"{key}: its temperature is {term.temperature!r}, expected cache.temperature, "
                f"{config.temperature:g}: "
                "draws stand for the distribution at the temperature they were made at"
            )
