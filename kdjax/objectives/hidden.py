"""Learning from the teacher's hidden states.

B batch, L length, n_s and n_t the student's and the teacher's layers, D_s and D_t their widths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from typing_extensions import override

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.models import ops
from kdjax.models.features import Batch, FeatureRequest, Features
from kdjax.objectives import normalizers
from kdjax.objectives.base import FeatureNeeds, Params, TeacherTerm, check_equal
from kdjax.objectives.layer_maps import LayerMap, Pairs, last, pairs, read_map
from kdjax.objectives.reductions import mean, mse

_SHORTEST = 1e-16
"""Squared length below which a vector has no direction: its cosine with another is 0."""


@dataclass(frozen=True)
class Cosine(TeacherTerm):
    """1 − cos(h_s, h_t) of the last hidden states, mean over valid positions.

    DistilBERT, Sanh et al. 2019, arXiv 1910.01108. The widths must be equal.
    """

    name: ClassVar[str] = "cosine"

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        check_equal("hidden units", student_config.width, teacher_config.width)
        return _hidden_needs(((student_config.layers, teacher_config.layers),))

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of valid positions."""
        return normalizers.valid_positions(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        products = _direction(last(student.hidden)) * _direction(last(teacher.hidden))
        return mean(1 - jnp.sum(products, axis=-1), batch["valid"])


@dataclass(frozen=True)
class HiddenMse(TeacherTerm):
    """Σ_m MSE(h_s^m W + b, h_t^g(m)) over m = 0…n_s, 0 the embedding output; mean over valid
    positions and width.

    TinyBERT, Jiao et al. 2020, arXiv 1909.10351: L_hidn and L_embd, and L_model with λ = 1. One
    learned W `[D_s, D_t]` with bias is shared by all m, as in the authors' code, and is used even
    where the widths are equal.
    """

    name: ClassVar[str] = "hidden_mse"

    layers: LayerMap = "uniform"
    """The map g; it takes 0 to 0, `last` and explicit pairs aside."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", read_map(self.layers))

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        return _hidden_needs(
            pairs(self.layers, student_config.layers, teacher_config.layers, embeddings=True)
        )

    def init(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None, seed: int
    ) -> dict[str, Any]:
        """Return W and b: `kernel` `[D_s, D_t]`, `bias` `[D_t]`.

        Raises:
            InputError: there is no teacher.
        """
        return _projection(student_config.width, _present(teacher_config).width, seed)

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of valid positions."""
        return normalizers.valid_positions(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        where = batch["valid"][..., None]
        # The last layers are the largest ones present (`Term`).
        mapped = pairs(self.layers, max(student.hidden), max(teacher.hidden), embeddings=True)
        losses = [
            mse(_project(student.hidden[student_layer], params), teacher.hidden[layer], where)
            for student_layer, layer in mapped
        ]
        return sum(losses[1:], start=losses[0])


@dataclass(frozen=True)
class HiddenMseBui2024(TeacherTerm):
    """MSE of the last hidden states over all B·L·D elements, padding included.

    The published code of arXiv 2404.19319 (`hidden_mse`): no projection, so the widths must be
    equal.
    """

    name: ClassVar[str] = "hidden_mse"

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        check_equal("hidden units", student_config.width, teacher_config.width)
        return _hidden_needs(((student_config.layers, teacher_config.layers),))

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of sequences."""
        return normalizers.sequences(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        return mse(last(student.hidden), last(teacher.hidden))


@dataclass(frozen=True)
class HiddenCls(TeacherTerm):
    """MSE(h_s W + b, h_t) of the last hidden states at position 0 of each segment, mean over
    segments and width.

    The [CLS] transfer among the strategies of arXiv 2404.19319, by its intent: the published code
    compares another axis. W is there only where the widths differ.
    """

    name: ClassVar[str] = "hidden_cls"

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        return _hidden_needs(((student_config.layers, teacher_config.layers),))

    def init(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None, seed: int
    ) -> dict[str, Any]:
        """Return W and b where the widths differ: `kernel` `[D_s, D_t]`, `bias` `[D_t]`.

        Raises:
            InputError: there is no teacher.
        """
        width = _present(teacher_config).width
        if student_config.width == width:
            return {}
        return _projection(student_config.width, width, seed)

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of segments."""
        return normalizers.count_true(_segment_starts(batch))

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        hidden = last(student.hidden)
        # Without parameters the widths are equal.
        if params:
            hidden = _project(hidden, params)
        return mse(hidden, last(teacher.hidden), _segment_starts(batch)[..., None])


@dataclass(frozen=True)
class HiddenConcat(TeacherTerm):
    """MSE([h_s^1 … h_s^n_s] W + b, [h_t^1 … h_t^n_t]), all layers joined along their features.

    Mean over valid positions and the n_t·D_t joined features. One of the strategies of arXiv
    2404.19319, by its intent: the published code cannot run. W is `[n_s·D_s, n_t·D_t]`, learned.
    """

    name: ClassVar[str] = "hidden_concat"

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        return FeatureNeeds(_all_layers(student_config), _all_layers(teacher_config))

    def init(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None, seed: int
    ) -> dict[str, Any]:
        """Return W and b: `kernel` `[n_s·D_s, n_t·D_t]`, `bias` `[n_t·D_t]`.

        Raises:
            InputError: there is no teacher.
        """
        teacher_config = _present(teacher_config)
        return _projection(
            student_config.layers * student_config.width,
            teacher_config.layers * teacher_config.width,
            seed,
        )

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of valid positions."""
        return normalizers.valid_positions(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        return mse(_project(_joined(student), params), _joined(teacher), batch["valid"][..., None])


def _hidden_needs(mapped: Pairs) -> FeatureNeeds:
    student_layers = frozenset(pair[0] for pair in mapped)
    teacher_layers = frozenset(pair[1] for pair in mapped)
    return FeatureNeeds(
        FeatureRequest(hidden=student_layers), FeatureRequest(hidden=teacher_layers)
    )


def _all_layers(config: ModelConfig) -> FeatureRequest:
    return FeatureRequest(hidden=frozenset(range(1, config.layers + 1)))


def _present(teacher_config: ModelConfig | None) -> ModelConfig:
    if teacher_config is None:
        raise InputError("a projection to the teacher's width, expected a teacher")
    return teacher_config


def _projection(width: int, target: int, seed: int) -> dict[str, Any]:
    """Draw a linear layer as BERT's start: truncated normal of standard deviation 0.02, bias 0."""
    draw = jax.nn.initializers.truncated_normal(stddev=0.02)
    kernel = draw(jax.random.key(seed), (width, target), jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros(target, jnp.float32)}


def _project(hidden: jax.Array, params: Params) -> jax.Array:
    projected: jax.Array = ops.at_least_float32(hidden) @ params["kernel"] + params["bias"]
    return projected


def _joined(features: Features) -> jax.Array:
    # Without the embedding output, which another term may have asked for.
    layers = [layer for layer in sorted(features.hidden) if layer > 0]
    return jnp.concatenate([features.hidden[layer] for layer in layers], axis=-1)


def _direction(x: jax.Array) -> jax.Array:
    """Scale vectors to length 1; 0 stays 0."""
    x = ops.at_least_float32(x)
    squared_length = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    # Bounded below, so that the gradient at 0 is finite.
    return x * jax.lax.rsqrt(jnp.maximum(squared_length, _SHORTEST))


def _segment_starts(batch: Batch) -> jax.Array:
    """Return whether a position is the first of a segment, bool `[B, L]`."""
    segments = batch["segments"]
    # No segment has the number -1: a sequence's first position starts one.
    before = jnp.pad(segments[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    return (segments != before) & batch["valid"]
