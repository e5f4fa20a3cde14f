"""A student's first parameters: random as BERT's, or from the layers of its teacher."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kdjax.config import ModelConfig, StartConfig
from kdjax.errors import InputError, nearest
from kdjax.models import Model, init
from kdjax.objectives.layer_maps import RULES, pairs
from kdjax.training.starts.importance import Importance, calibration_flops, has_known_layers
from kdjax.training.starts.projection import project
from kdjax.training.starts.pruning import prune

START_RULES = tuple(rule for rule in RULES if rule != "last")


def start_layers(
    config: StartConfig, student_config: ModelConfig, teacher_config: ModelConfig
) -> tuple[int, ...]:
    """Return the teacher layer that each student layer starts from.

    Wang et al. 2023 (arXiv 2305.15032) find lower layers much better than upper ones when logits or
    hidden states are learned afterwards, and no difference for attention.

    Args:
        config: settings of the start.
        student_config: configuration of the student.
        teacher_config: configuration of the teacher.

    Raises:
        InputError: an unknown rule, a layer that is not there, or another number of layers than the
            student's.
    """
    layers = config.layers
    if isinstance(layers, str):
        if layers not in START_RULES:
            raise InputError(f"start.layers: unknown rule {layers!r}{nearest(layers, START_RULES)}")
        try:
            return tuple(
                other for _, other in pairs(layers, student_config.layers, teacher_config.layers)
            )
        except InputError as e:
            raise InputError(f"start.{e}") from None
    if len(layers) != student_config.layers:
        raise InputError(
            f"start.layers names {len(layers)} layers, expected one for each of the student's "
            f"{student_config.layers}"
        )
    for layer in layers:
        if not 1 <= layer <= teacher_config.layers:
            raise InputError(
                f"start.layers: teacher layer {layer}, expected 1 to {teacher_config.layers}"
            )
    return layers


def check_start(
    config: StartConfig, student_config: ModelConfig, teacher_config: ModelConfig | None
) -> None:
    """Check a start from settings alone.

    Positions must be of the teacher's kind: its queries and keys have learned to be compared with
    them. Where they are rotary, so must the base be and the width of a head, which together say how
    fast each plane turns.

    Args:
        config: settings of the start.
        student_config: configuration of the student.
        teacher_config: configuration of the teacher.

    Raises:
        InputError: no teacher to start from, or one this student cannot be cut out of.
    """
    if config.source == "random":
        return
    if teacher_config is None:
        raise InputError("start.source is 'teacher', expected a teacher")
    if config.prunes and not has_known_layers(teacher_config):
        raise InputError(
            "start.cut is 'prune' and the teacher's layers are not BERT's, expected 'project'"
        )
    at_most = ["width", "heads", "ffn", "type_vocab_size"]
    equal = ["vocab_size", "norm", "embedding_norm", "gelu", "positions"]
    equal += ["first_norm", "norm_bias", "linear_bias", "decoder_bias", "ffn_gated"]
    if teacher_config.positions == "rotary":
        # A rotation has no table to cut, and its planes turn at speeds that follow from the heads'
        # width.
        equal += ["rotary_base", "local_rotary_base", "head_width"]
    elif config.prunes:
        # Heads are kept whole or not at all.
        equal.append("head_width")
        at_most.append("max_positions")
    else:
        at_most += ["head_width", "max_positions"]

    # A projection narrows the teacher; it cannot widen it, or change what a layer computes.
    for name in at_most:
        size = getattr(student_config, name)
        most = getattr(teacher_config, name)
        if size > most:
            raise InputError(
                f"start from the teacher: the student's {name} is {size}, expected at most its "
                f"{most}"
            )
    for name in equal:
        setting = getattr(student_config, name)
        expected = getattr(teacher_config, name)
        if setting != expected:
            raise InputError(
                f"start from the teacher: the student's {name} is {setting}, expected its "
                f"{expected}"
            )
    if (
        student_config.type_vocab_size == 0 < teacher_config.type_vocab_size
        and student_config.positions == "rotary"
    ):
        raise InputError(
            "start from the teacher: the student's type_vocab_size is 0, expected at least 1: the "
            "teacher's token types have nowhere to go"
        )
    chosen = start_layers(config, student_config, teacher_config)
    _check_kinds(chosen, student_config, teacher_config)
    _check_projection(student_config, teacher_config)


def _check_kinds(
    chosen: tuple[int, ...], student_config: ModelConfig, teacher_config: ModelConfig
) -> None:
    """Check that each layer starts from one that computes the same.

    Raises:
        InputError: a layer sees another window than the teacher's, which has learned to see its
            own; or one has a norm where the other has none.
    """
    for n, layer in enumerate(chosen, start=1):
        half_windows = (student_config.half_window(n), teacher_config.half_window(layer))
        if half_windows[0] != half_windows[1]:
            raise InputError(
                f"start.layers: layer {n} of the student sees {_seen(half_windows[0])}, the "
                f"teacher's {layer} {_seen(half_windows[1])}, expected layers that see the same; "
                "lower takes the teacher's first ones"
            )
        if not student_config.first_norm and (n == 1) != (layer == 1):
            raise InputError(
                f"start.layers: layer {n} of the student from the teacher's {layer}, expected "
                "layer 1 from layer 1 and no other: it alone has no norm before its attention"
            )


def _seen(half_window: int | None) -> str:
    """Return the reach of a layer's attention in words."""
    if half_window is None:
        return "all"
    return f"{half_window} positions to either side"


def _check_projection(student_config: ModelConfig, teacher_config: ModelConfig) -> None:
    """Check that a teacher need not be narrowed, or is one that can be.

    Raises:
        InputError: a narrower start from a teacher with gated blocks or without biases.
    """
    sizes = ("width", "heads", "ffn")
    is_whole = all(getattr(student_config, name) == getattr(teacher_config, name) for name in sizes)
    is_plain = (
        teacher_config.linear_bias and teacher_config.norm_bias and not teacher_config.ffn_gated
    )
    if not is_whole and not is_plain:
        raise InputError(
            "start from the teacher: the student is narrower, expected its width, heads and ffn: "
            "gated blocks and layers without biases are not projected"
        )


def calibration_depth(
    config: StartConfig, student_config: ModelConfig, teacher_config: ModelConfig
) -> int:
    """Count the teacher's layers that calibration runs: up to the last that is kept.

    Args:
        config: settings of the start.
        student_config: configuration of the student.
        teacher_config: configuration of the teacher.
    """
    return max(start_layers(config, student_config, teacher_config))


def start_flops(
    config: StartConfig,
    student_config: ModelConfig,
    teacher_config: ModelConfig | None,
    seq_len: int,
) -> int:
    """Count the FLOPs of making a start: the calibration of one that prunes; others cost none.

    Args:
        config: where the student starts.
        student_config: configuration of the student.
        teacher_config: configuration of the teacher.
        seq_len: tokens of a sequence.
    """
    if not config.prunes or teacher_config is None:
        return 0
    depth = calibration_depth(config, student_config, teacher_config)
    return calibration_flops(teacher_config, depth, config.calibration_sequences, seq_len)


def start_params(
    config: StartConfig,
    student_config: ModelConfig,
    teacher: Model | None,
    seed: int,
    importance: Importance | None = None,
) -> dict[str, Any]:
    """Build the student's parameters before the first step, float32.

    Args:
        config: random, or which of the teacher's layers.
        student_config: configuration of the student.
        teacher: the teacher; needed where the start is from it.
        seed: seed of what is random: everything, or an MLM head that the teacher does not have.
        importance: importances of the teacher's parts, for a start that prunes it.

    Raises:
        InputError: the two models do not allow the start, as in `check_start`, or it prunes and
            nobody has measured importances.
    """
    check_start(config, student_config, teacher.config if teacher else None)
    if config.source == "random" or teacher is None:
        return init(student_config, seed).params

    # The teacher with as many layers, positions and types as the student
    params: dict[str, Any] = jax.tree.map(np.asarray, teacher.params)
    chosen = start_layers(config, student_config, teacher.config)
    layers = {str(n): params["layers"][str(layer)] for n, layer in enumerate(chosen, start=1)}
    embeddings = dict(params["embeddings"])
    if "type" in embeddings and student_config.type_vocab_size == 0:
        # Every token was of the first type: its vector goes with the positions.
        first_type = embeddings.pop("type")["embedding"][0]
        positions = embeddings["position"]["embedding"]
        embeddings["position"] = {"embedding": positions + first_type}
    for name, rows in (
        ("position", student_config.max_positions),
        ("type", student_config.type_vocab_size),
    ):
        if name in embeddings:
            embeddings[name] = {"embedding": embeddings[name]["embedding"][:rows]}
    params = {**params, "layers": layers, "embeddings": embeddings}

    # As narrow as the student, with a head
    if not config.prunes:
        params = project(params, teacher.config, student_config)
    elif importance is None:
        raise InputError("start.cut is 'prune' and no importances are given, expected some")
    else:
        # By the student's numbers of layers, as its parameters are by now
        heads = {n: importance.heads[layer] for n, layer in enumerate(chosen, start=1)}
        units = {n: importance.units[layer] for n, layer in enumerate(chosen, start=1)}
        of_chosen = Importance(heads, units, importance.channels)
        params = prune(params, teacher.config, student_config, of_chosen)
    if "mlm" not in params:
        params["mlm"] = init(student_config, seed).params["mlm"]
    return jax.tree.map(lambda x: np.asarray(x, np.float32), params)  # type: ignore[no-any-return]
