"""RoFormer (Su et al. 2021, arXiv 2104.09864): BERT with rotary positions of base 10,000.

Its code turns neighbouring coordinates of a head, where this package turns halves: queries' and
keys' coordinates are reordered on the way.
"""

from __future__ import annotations

import numpy as np

from kdjax.config import ModelConfig
from kdjax.models.families.bert import BERT, COPIES, ENCODER, HEAD, LAYER, NOT_READ, POST_NORM
from kdjax.models.families.naming import Naming
from kdjax.models.families.stored_class import BERT_SIZES, NO_DECODER, StoredClass

_SINES = "encoder.embed_positions.weight"


def neighbours_of_halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Reorder queries' or keys' coordinates so that those which turn together are neighbours.

    Args:
        array: a kernel `[D, H d]` or a bias `[H d]`; of each head, coordinate i turns with i + d/2.
        heads: number H of attention heads.

    Returns:
        The same with coordinates i and i + d/2 of a head at 2i and 2i + 1.
    """
    in_halves = array.reshape(*array.shape[:-1], heads, 2, -1)
    return np.ascontiguousarray(in_halves.swapaxes(-1, -2)).reshape(array.shape)


def halves_of_neighbours(array: np.ndarray, heads: int) -> np.ndarray:
    """Reorder queries' or keys' coordinates back: the inverse of `neighbours_of_halves`.

    Args:
        array: a kernel `[D, H d]` or a bias `[H d]`; of each head, coordinates 2i and 2i + 1 turn
            together.
        heads: number H of attention heads.

    Returns:
        The same with coordinates 2i and 2i + 1 of a head at i and i + d/2.
    """
    in_pairs = array.reshape(*array.shape[:-1], heads, -1, 2)
    return np.ascontiguousarray(in_pairs.swapaxes(-1, -2)).reshape(array.shape)


def _sine_table(config: ModelConfig) -> dict[str, np.ndarray]:
    """Compute the table of the rotation that checkpoints hold, `[L, d]`: sines, then cosines."""
    planes = np.arange(config.head_width // 2)
    frequencies = config.rotary_base ** (-2.0 * planes / config.head_width)
    angles = np.arange(config.max_positions)[:, None] * frequencies
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
    return {_SINES: table}


ROFORMER = StoredClass(
    model_type="roformer",
    with_head="RoFormerForMaskedLM",
    without_head="RoFormerModel",
    families=("bert",),
    naming=Naming(
        "roformer.",
        LAYER,
        ("cls.predictions.",),
        {**ENCODER, **POST_NORM, **HEAD},
        COPIES,
        rf"{NOT_READ}|encoder\.embed_positions\.",
    ),
    fixed_settings={**BERT.fixed_settings, "positions": "rotary", "rotary_base": 10000.0},
    minimum=BERT.minimum,
    config_json_defaults={**BERT_SIZES, "vocab_size": 50000, "max_positions": 1536},
    required_values={"rotary_value": False, **NO_DECODER},
    turns_neighbours=True,
    further_tensors=_sine_table,
    has_pooler=False,
)
