"""Which class of transformers stores a model, and config.json and tensors by it, both ways.

| `ModelConfig.family` | `model_type` that is written |
|---|---|
| roberta, xlm-roberta, camembert, distilbert, modernbert | the family's own |
| bert | bert, or the relative that computes the same: roformer, roberta-prelayernorm, … |
| bert, where no relative does | kdjax, which this package alone reads |

A class is written only where its logits are equal (`tests/golden/families.npz`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.models.families import kdjax_format
from kdjax.models.families.bert import BERT
from kdjax.models.families.distilbert import DISTILBERT
from kdjax.models.families.esm import ESM
from kdjax.models.families.megatron_bert import MEGATRON_BERT
from kdjax.models.families.modernbert import MODERNBERT
from kdjax.models.families.naming import Naming, Place, Tensors
from kdjax.models.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from kdjax.models.families.roberta_prelayernorm import ROBERTA_PRELAYERNORM
from kdjax.models.families.roformer import (
    ROFORMER,
    halves_of_neighbours,
    neighbours_of_halves,
)
from kdjax.models.families.stored_class import StoredClass

_ALL = (
    BERT,
    ROBERTA,
    XLM_ROBERTA,
    CAMEMBERT,
    DISTILBERT,
    MODERNBERT,
    ROFORMER,
    ROBERTA_PRELAYERNORM,
    MEGATRON_BERT,
    ESM,
)
CLASSES: dict[str, StoredClass] = {stored.model_type: stored for stored in _ALL}
"""The classes of transformers, by `model_type`."""


def class_of(config: ModelConfig) -> StoredClass | None:
    """Return the class of transformers with a model's logits, or None where there is none."""
    for stored in CLASSES.values():
        if config.family in stored.families and not stored.differences(config):
            return stored
    return None


def check_exportable(config: ModelConfig) -> None:
    """Check that a class of transformers computes a model.

    Raises:
        InputError: no class computes it; the message says what the nearest one would have in place
            of the model's settings, and what to train a student with.
    """
    if class_of(config) is not None:
        return
    stored = _nearest_class(config)
    wanted = []
    for name, expected in stored.differences(config).items():
        wanted.append(f"{name} {expected} in place of {getattr(config, name)!r}")
    raise InputError(
        f"model: no class of transformers computes it; the nearest, {stored.model_type}, has "
        f"{', '.join(wanted)}; train a student with {settings_to_export(config)}"
    )


def settings_to_export(config: ModelConfig) -> str:
    """Return the settings of a recipe by which a student that no class computes would have one.

    Args:
        config: configuration of the student.

    Returns:
        For instance `student.rotary_base: 10000.0, or with student.family: modernbert`.
    """
    settings = []
    for name, expected in _nearest_class(config).differences(config).items():
        settings.append(f"student.{name}: {expected}")
    text = ", ".join(settings)
    # Its class takes any base; its blocks are gated, so it is another model.
    if config.norm == "pre" and config.positions == "rotary" and config.family == "bert":
        text += ", or with student.family: modernbert"
    return text


def _nearest_class(config: ModelConfig) -> StoredClass:
    """Return the class of a model's family that differs least from it."""
    candidates = [stored for stored in CLASSES.values() if config.family in stored.families]
    return min(candidates, key=lambda stored: _distance(stored.differences(config)))


def _distance(differences: dict[str, str]) -> tuple[bool, int]:
    """Return the distance of a class from a model: first in norms and positions."""
    return not differences.keys().isdisjoint({"norm", "positions"}), len(differences)


def to_json(config: ModelConfig, *, mlm: bool) -> dict[str, Any]:
    """Build the content of a model's config.json.

    Args:
        config: configuration of the model to describe.
        mlm: whether the model has an MLM head.
    """
    stored = class_of(config)
    if stored is None:
        return kdjax_format.to_json(config)
    return stored.to_json(config, mlm=mlm)


def from_json(raw: Any, where: object) -> ModelConfig:
    """Read the model that a config.json describes.

    Args:
        raw: content of the file.
        where: the file, for messages.

    Raises:
        InputError: it describes something other than an encoder that this package has.
    """
    model_type = raw.get("model_type") if isinstance(raw, dict) else None
    if model_type == kdjax_format.MODEL_TYPE:
        return kdjax_format.from_json(raw, where)
    # A list or an object cannot be looked up.
    if not isinstance(model_type, str) or model_type not in CLASSES:
        known = ", ".join(repr(name) for name in (*CLASSES, kdjax_format.MODEL_TYPE))
        raise InputError(f"{where}: model_type is {model_type!r:.80}, expected one of {known}")
    return CLASSES[model_type].from_json(raw, where)


def read_params(
    config: ModelConfig, model_type: str, tensors: Tensors, abstract: Any, where: object
) -> Any:
    """Return parameters from a checkpoint's tensors, float32.

    Args:
        config: configuration of the model.
        model_type: the `model_type` of its config.json.
        tensors: tensors under their plain names (`Naming.plain`).
        abstract: the parameters' shapes, with an MLM head where the tensors have one.
        where: the file, for messages.

    Raises:
        InputError: a tensor is missing, unexpected, of another shape than the configuration says,
            or not of finite floating point numbers.
    """
    stored = CLASSES.get(model_type)
    naming = naming_of(model_type)
    used = set()

    def take(path: tuple[Any, ...], expected: jax.ShapeDtypeStruct) -> jax.Array:
        """Return a parameter in its own layout, and mark its tensor as used."""
        place = naming.place(path)
        used.add(place.name)
        before = _rows_before(stored, config, path)
        shape = _stored_shape(place, expected.shape, before)
        tensor = _checked(tensors, place.name, shape, where)
        rows = len(tensor) // place.parts
        array = tensor[place.part * rows + before : (place.part + 1) * rows]
        if place.transposed:
            array = array.T
        if stored is not None and stored.turns_neighbours and _is_turned(path):
            array = halves_of_neighbours(array, config.heads)
        return jnp.asarray(array, jnp.float32)

    params = jax.tree_util.tree_map_with_path(take, abstract)
    unexpected = tensors.keys() - used
    if unexpected:
        raise InputError(
            f"{where}: unexpected tensor {min(unexpected)!r} for {config.layers} layers as "
            "config.json says"
        )
    return params


def write_tensors(config: ModelConfig, params: Any) -> Tensors:
    """Return a model's parameters as the tensors of a checkpoint.

    Args:
        config: configuration of the model.
        params: its parameters.
    """
    stored = class_of(config)
    naming: Naming = stored.naming if stored is not None else kdjax_format.NAMING
    # Parameters that share a tensor, by their place in it
    parts: dict[str, dict[int, np.ndarray]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        place = naming.place(path)
        array = np.asarray(leaf, np.float32)
        if stored is not None and stored.turns_neighbours and _is_turned(path):
            array = neighbours_of_halves(array, config.heads)
        before = _rows_before(stored, config, path)
        if before:
            array = np.concatenate([np.zeros((before, array.shape[1]), np.float32), array])
        if place.transposed:
            array = array.T
        parts.setdefault(place.name, {})[place.part] = array

    tensors = {}
    for name, by_part in parts.items():
        tensors[name] = np.concatenate([by_part[n] for n in sorted(by_part)])
    if stored is not None:
        tensors |= stored.further_tensors(config)
    mlm = "mlm" in params
    # safetensors does not look at strides.
    return {
        naming.full_name(name, mlm=mlm): np.ascontiguousarray(tensor)
        for name, tensor in tensors.items()
    }


def naming_of(model_type: str) -> Naming:
    """Return the names of tensors by the `model_type` of config.json."""
    if model_type == kdjax_format.MODEL_TYPE:
        return kdjax_format.NAMING
    return CLASSES[model_type].naming


def _rows_before(stored: StoredClass | None, config: ModelConfig, path: tuple[Any, ...]) -> int:
    """Return how many rows of no position a parameter's tensor begins with: of the position table
    alone, and where its class has some."""
    if stored is None or not _is_position(path):
        return 0
    return stored.rows_before_positions(config)


def _stored_shape(place: Place, shape: tuple[int, ...], rows_before: int) -> tuple[int, ...]:
    """Return the shape of the tensor that holds a parameter of a shape."""
    if place.transposed:
        shape = shape[::-1]
    first, *rest = shape
    return (first * place.parts + rows_before, *rest)


def _checked(tensors: Tensors, name: str, shape: tuple[int, ...], where: object) -> np.ndarray:
    """Return a tensor.

    Raises:
        InputError: it is missing, of another shape or not of finite floating point numbers.
    """
    if name not in tensors:
        raise InputError(f"{where}: tensor {name!r} is missing")
    tensor = tensors[name]
    if tensor.shape != shape:
        raise InputError(
            f"{where}: tensor {name!r} has the shape {tensor.shape}, config.json says {shape}"
        )
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise InputError(
            f"{where}: tensor {name!r} holds {tensor.dtype}, expected floating point numbers"
        )
    # One that is not finite makes every loss NaN, and is a sign of a damaged file.
    if not np.isfinite(tensor).all():
        raise InputError(f"{where}: tensor {name!r} holds numbers that are not finite")
    return tensor


def _is_turned(path: tuple[Any, ...]) -> bool:
    """Return whether a parameter is of queries or keys, which rotary positions turn."""
    return path[-2].key in ("query", "key")


def _is_position(path: tuple[Any, ...]) -> bool:
    """Return whether a parameter is the table of learned positions."""
    return [key.key for key in path[:2]] == ["embeddings", "position"]
