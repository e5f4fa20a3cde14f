"""Masked language modelling on held-out text with fixed masks, also beside a teacher.

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
from kdjax.objectives.logits import common_entries, same_but_for_padding
from kdjax.objectives.reductions import require_logits


@dataclass(frozen=True)
class MlmResult:
    """A model's predictions at held-out masks: their quality, and their distance from a teacher's.

    Attributes:
        loss: mean cross-entropy over the masked slots, in nats, weighted by `label_weights`.
        accuracy: weighted share of the masked slots whose most probable token is the right one.
        count: masked slots with a weight above 0.
        kl: weighted mean over the masked slots of KL(p_t‖p_s), from the teacher's to the model's
            distribution at temperature 1, in nats; None without a teacher.
        agreement: weighted share of the masked slots where teacher and model have the same most
            probable token; None without a teacher.
    """

    loss: float
    accuracy: float
    count: int
    kl: float | None = None
    agreement: float | None = None


class HeldOut:
    """Held-out batches with fixed masks and, where there is a teacher, its predictions on them.

    The teacher runs once, when its predictions are first needed. They stay on the host as float32
    log-probabilities, S x V x 4 bytes a sequence: 2.4 MB with 20 slots and 30,522 entries. Every
    measured model gets them batch by batch; at most two batches are on the device at a time.

    A mean is over slots, not over batches: a batch counts by the weights it has. A forward pass is
    compiled once per configuration and batch shape, for all runs of a process.

    Attributes:
        batches: MLM batches on the host.
        shuffled: copies of the sequences with their visible tokens shuffled, a control
            (`kdjax.evaluation.shuffle`); None where nothing is measured on them.
    """

    def __init__(
        self,
        batches: Iterable[Mapping[str, Any]],
        teacher: Model | None = None,
        shuffled: HeldOut | None = None,
    ):
        """Take the batches; nothing is computed yet.

        Args:
            batches: MLM batches; unused slots and padded rows have `label_weights` 0.
            teacher: model that others are compared with; one without an MLM head predicts nothing,
                and counts as none.
            shuffled: copies of the batches with their visible tokens shuffled, if there are any.
        """
        self.batches = [dict(batch) for batch in batches]
        self.shuffled = shuffled
        self._teacher = None
        if teacher is not None and "mlm" in teacher.params:
            self._teacher = teacher

    @property
    def teacher(self) -> MlmResult | None:
        """Return the teacher's own result; None without a teacher that has an MLM head.

        Raises:
            InputError: no slot has a weight above 0.
            Diverged: the loss is not finite.
        """
        if self._teacher is None:
            return None
        return self._predictions[0]

    def measure(self, config: ModelConfig, params: Any) -> MlmResult:
        """Measure a model on all batches, without dropout, and how near it is to the teacher.

        Args:
            config: configuration of the model.
            params: parameters of the model, with an MLM head.

        Raises:
            InputError: no slot has a weight above 0, or model and teacher have vocabularies of
                different sizes.
            Diverged: a result is not finite.
        """
        targets: list[NDArray[np.float32]] | list[None] = [None] * len(self.batches)
        if self._teacher is not None:
            expected = self._teacher.config.vocab_size
            if not same_but_for_padding(config.vocab_size, expected):
                raise InputError(
                    f"held-out KL: the model has {config.vocab_size} vocabulary entries, expected "
                    f"the teacher's {expected}"
                )
            targets = self._predictions[1]
        sums: list[dict[str, jax.Array]] = []
        for batch, target in zip(self.batches, targets, strict=True):
            # One batch ahead: the device does not wait for the host, nor does it hold every batch's
            # targets.
            jax.block_until_ready(sums[-2:-1])
            sums.append(_measure(config, params, batch, target))
        return means_of_sums(sums, "held-out")

    @functools.cached_property
    def _predictions(self) -> tuple[MlmResult, list[NDArray[np.float32]]]:
        """Compute the teacher's result, and its log-probabilities `[B, S, V]` for each batch."""
        assert self._teacher is not None  # callers have checked
        sums = []
        targets = []
        for batch in self.batches:
            log_probs, batch_sums = predict_teacher(*self._teacher, batch)
            targets.append(np.asarray(log_probs, np.float32))
            sums.append(batch_sums)
        return means_of_sums(sums, "the teacher's held-out"), targets


def held_out_loss(
    config: ModelConfig, params: Any, batches: Iterable[Mapping[str, Any]]
) -> MlmResult:
    """Measure a model on `batches` without a teacher; see `HeldOut.measure`.

    Args:
        config: configuration of the model.
        params: its parameters.
        batches: held-out batches with fixed masks.
    """
    return HeldOut(batches).measure(config, params)


def means_of_sums(sums: list[dict[str, jax.Array]], measured: str) -> MlmResult:
    """Turn the sums of all batches (`sum_over_slots`) into means.

    Args:
        sums: results of `sum_over_slots`, one for each batch.
        measured: name of what was measured, for messages.

    Raises:
        InputError: no slot has a weight above 0.
        Diverged: a mean is not finite.
    """
    batches = jax.device_get(sums)
    if not any(batch["count"] for batch in batches):
        raise InputError(
            f"{measured} MLM loss: no masked slot in the held-out batches, expected at least one"
        )
    total = jax.tree.map(lambda *values: float(np.sum(values, dtype=np.float64)), *batches)
    count = int(total.pop("count"))
    weight = total.pop("weight")
    means = {name: value / weight for name, value in total.items()}
    for name, label in (("loss", "MLM loss"), ("kl", "KL")):
        if not np.isfinite(means.get(name, 0.0)):
            raise Diverged(
                f"{measured} {label}: found {means[name]}, expected a finite number; the model has "
                "diverged"
            )
    return MlmResult(count=count, **means)


@functools.partial(jax.jit, static_argnums=0)
def _measure(
    config: ModelConfig, params: Any, batch: dict[str, jax.Array], target: jax.Array | None
) -> dict[str, jax.Array]:
    """Sum a model's results over a batch; see `sum_over_slots`."""
    return sum_over_slots(_log_probs(config, params, batch), batch, target)


@functools.partial(jax.jit, static_argnums=0)
def predict_teacher(
    config: ModelConfig, params: Any, batch: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Compute the teacher's log-probabilities on a batch, and its own sums.

    Args:
        config: configuration of the teacher.
        params: its parameters.
        batch: a held-out batch.
    """
    log_probs = _log_probs(config, params, batch)
    return log_probs, sum_over_slots(log_probs, batch, None)


def _log_probs(config: ModelConfig, params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    return log_softmax(
        require_logits(forward(config, params, batch, FeatureRequest(logits=True)).logits)
    )


def sum_over_slots(
    log_probs: jax.Array, batch: Mapping[str, jax.Array], target: jax.Array | None
) -> dict[str, jax.Array]:
    """Sum loss and accuracy over the slots of a batch by their weights.

    Args:
        log_probs: `[B, S, V]`: the model's log-probabilities.
        batch: `labels` and `label_weights`, `[B, S]`.
        target: `[B, S, V]`: the teacher's log-probabilities, perhaps with another number of unused
            entries; None without a teacher.

    Returns:
        Sums: `loss`, `accuracy`, `weight`, `count`; beside a teacher also `kl` and `agreement`.
    """
    labels = batch["labels"]
    weights = batch["label_weights"]

    def summed(values: jax.Array) -> jax.Array:
        # Not `weights * values`: what an unused slot has may be infinite, and 0 times infinity is
        # no number.
        return jnp.sum(jnp.where(weights > 0, weights * values, 0.0))

    best = jnp.argmax(log_probs, -1)
    sums = {
        "loss": summed(-jnp.take_along_axis(log_probs, labels[..., None], -1)[..., 0]),
        "accuracy": summed(best == labels),
        "weight": jnp.sum(weights),
        "count": jnp.sum(weights > 0),
    }
    if target is not None:
        # Where one vocabulary is padded, over the entries that both have.
        if log_probs.shape != target.shape:
            log_probs, target = map(log_softmax, common_entries(log_probs, target))
        sums["kl"] = summed(kl_of_log_probs(log_probs, target))
        sums["agreement"] = summed(best == jnp.argmax(target, -1))
    return sums
