"""Masked language modelling on held-out text, on masks that are the same for every run, and beside
a teacher.

Letters in shapes: B batch, S slots, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from kdjax.config import ModelConfig
from kdjax.errors import Diverged, InputError
from kdjax.models import Model, forward
from kdjax.models.features import FeatureRequest
from kdjax.models.ops import kl_of_log_probs, log_softmax
from kdjax.objectives.reductions import require_logits


@dataclass(frozen=True)
class MlmResult:
    """How well a model fills in held-out masks, and how near it is to a teacher there.

    Attributes:
        loss: mean cross-entropy over the masked slots, in nats, weighted by `label_weights`.
        accuracy: share of these slots, with the same weights, whose most probable token is the
            right one.
        count: masked slots with a weight above 0.
        kl: KL(p_t‖p_s) from the teacher's to the model's distribution at temperature 1, in nats,
            the mean over the same slots by the same weights; None without a teacher.
        agreement: share of these slots, with the same weights, where both models' most probable
            tokens are the same; None without a teacher.
    """

    loss: float
    accuracy: float
    count: int
    kl: float | None = None
    agreement: float | None = None


class HeldOut:
    """Held-out batches with fixed masks and, where there is a teacher, its predictions on them.

    The teacher runs once, when something first asks for its predictions. They are kept on the host
    as float32
    log-probabilities, S x V x 4 bytes a sequence: 2.4 MB with 20 slots and 30,522 entries. Every
    measured model then gets them batch by batch; at most two batches of them are on the device at a
    time.

    A mean is over slots, not over batches: a batch counts by the weights it has. A forward pass is
    compiled once per configuration and batch shape, for all runs of a process.

    Attributes:
        batches: the batches.
        shuffled: the same sequences with their visible tokens shuffled, a control
            (`kdjax.evaluation.shuffle`); None where nothing is measured on them.
    """

    def __init__(
        self,
        batches: Iterable[Mapping[str, Any]],
        teacher: Model | None = None,
        shuffled: HeldOut | None = None,
    ):
        """Takes the batches; nothing is computed yet.

        Args:
            batches: MLM batches; unused slots and padded rows have `label_weights` 0.
            teacher: whose predictions models are compared with. One without an MLM head predicts
                nothing, and counts as none.
            shuffled: the same batches with their visible tokens shuffled; None: there are none.
        """
        self.batches = [dict(batch) for batch in batches]
        self.shuffled = shuffled
        self._teacher = teacher if teacher is not None and "mlm" in teacher.params else None

    @property
    def teacher(self) -> MlmResult | None:
        """The teacher's own loss, accuracy and count; None without a teacher or where it has no MLM
        head.

        Raises:
            InputError: no slot has a weight above 0, or the loss is not finite.
        """
        return None if self._teacher is None else self._predictions[0]

    def measure(self, config: ModelConfig, params: Any) -> MlmResult:
        """A model's result on all batches, without dropout; with a teacher also how near it is to
        the teacher.

        Args:
            config: of the model.
            params: its parameters, with an MLM head.

        Raises:
            InputError: no slot has a weight above 0, a result is not finite, or model and teacher
                have vocabularies of different sizes.
        """
        targets: list[NDArray[np.float32]] | list[None] = [None] * len(self.batches)
        if self._teacher is not None:
            found = config.vocab_size
            expected = self._teacher.config.vocab_size
            if found != expected:
                raise InputError(
                    f"held-out KL: the model has {found} vocabulary entries, expected the "
                    f"teacher's {expected}"
                )
            targets = self._predictions[1]
        sums: list[dict[str, jax.Array]] = []
        for batch, target in zip(self.batches, targets, strict=True):
            # One batch ahead: the device does not wait for the host, nor does it hold every batch's
            # targets.
            jax.block_until_ready(sums[-2:-1])
            sums.append(_measure(config, params, batch, target))
        return result_of(sums, "held-out")

    @functools.cached_property
    def _predictions(self) -> tuple[MlmResult, list[NDArray[np.float32]]]:
        """The teacher's result, and its log-probabilities `[B, S, V]` for each batch."""
        assert self._teacher is not None  # nothing asks otherwise
        sums = []
        targets = []
        for batch in self.batches:
            log_probs, part = _predict(*self._teacher, batch)
            targets.append(np.asarray(log_probs, np.float32))
            sums.append(part)
        return result_of(sums, "the teacher's held-out"), targets


def held_out_loss(
    config: ModelConfig, params: Any, batches: Iterable[Mapping[str, Any]]
) -> MlmResult:
    """A model's result on `batches`, beside no teacher; see `HeldOut.measure`."""
    return HeldOut(batches).measure(config, params)


def result_of(sums: list[dict[str, jax.Array]], whose: str) -> MlmResult:
    """Turn the sums of all batches (`over_slots`) into means.

    Args:
        sums: of each batch.
        whose: whose they are, for messages.

    Raises:
        InputError: no slot has a weight above 0, or a mean is not finite.
    """
    parts = jax.device_get(sums)
    if not any(part["count"] for part in parts):
        raise InputError(
            f"{whose} MLM loss: no masked slot in the held-out batches, expected at least one"
        )
    total = {
        name: float(np.sum([part[name] for part in parts], dtype=np.float64)) for name in parts[0]
    }
    means = {
        name: total[name] / total["weight"] for name in total if name not in ("weight", "count")
    }
    for name, label in (("loss", "MLM loss"), ("kl", "KL")):
        if not np.isfinite(means.get(name, 0.0)):
            raise Diverged(
                f"{whose} {label}: found {means[name]}, expected a finite number; the model has "
                "diverged"
            )
    return MlmResult(count=int(total["count"]), **means)


@functools.partial(jax.jit, static_argnums=0)
def _measure(
    config: ModelConfig, params: Any, batch: dict[str, jax.Array], target: jax.Array | None
) -> dict[str, jax.Array]:
    return over_slots(_log_probs(config, params, batch), batch, target)


@functools.partial(jax.jit, static_argnums=0)
def _predict(
    config: ModelConfig, params: Any, batch: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    log_probs = _log_probs(config, params, batch)
    return log_probs, over_slots(log_probs, batch, None)


def _log_probs(config: ModelConfig, params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    return log_softmax(
        require_logits(forward(config, params, batch, FeatureRequest(logits=True)).logits)
    )


def over_slots(
    own: jax.Array, batch: Mapping[str, jax.Array], target: jax.Array | None
) -> dict[str, jax.Array]:
    """Sum loss and accuracy over the slots of a batch by their weights.

    Args:
        own: the model's log-probabilities `[B, S, V]`.
        batch: `labels` and `label_weights`, `[B, S]`.
        target: the teacher's log-probabilities, likewise; None: no teacher.

    Returns:
        Sums: `loss`, `accuracy`, `weight`, `count`; beside a teacher also `kl` and `agreement`.
    """
    labels = batch["labels"]
    weights = batch["label_weights"]

    def summed(values: jax.Array) -> jax.Array:
        # Not `weights * values`: what an unused slot has may be infinite, and 0 times infinity is
        # no number.
        return jnp.sum(jnp.where(weights > 0, weights * values, 0.0))

    best = jnp.argmax(own, -1)
    sums = {
        "loss": summed(-jnp.take_along_axis(own, labels[..., None], -1)[..., 0]),
        "accuracy": summed(best == labels),
        "weight": jnp.sum(weights),
        "count": jnp.sum(weights > 0),
    }
    if target is not None:
        sums |= {
            "kl": summed(kl_of_log_probs(own, target)),
            "agreement": summed(best == jnp.argmax(target, -1)),
        }
    return sums
