"""A teacher's parameters fitted into a narrower student by truncated singular value decompositions.

The residual stream is projected on the leading right singular vectors of the teacher's word
embedding, P `[D_t, D_s]`: a state h of the teacher is stood for by h P. Within their span P is
turned so that the LayerNorms' scales, on average, stay diagonal, which is all that a LayerNorm of
the student can be; they never do exactly, so features drift apart with depth. What a head does to
the stream are two bilinear forms, of queries with keys and of values with outputs; each becomes its
best approximation of rank d_s (Eckart & Young 1936). Where positions are rotary, queries and keys
keep the head's coordinates, since any other would turn at other speeds: heads are then as wide as
the teacher's, and the form is exact.
Letters: D width, H heads, d head width, F width of the feed-forward block; t teacher, s student.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kdjax.config import ModelConfig
from kdjax.training.starts.importance import largest

Array = np.ndarray
Params = dict[str, Any]


def project(params: Params, teacher_config: ModelConfig, student_config: ModelConfig) -> Params:
    """Project the parameters of a student from those of a teacher with as many layers.

    Where the two have the same width, heads and feed-forward width they are the teacher's own. A
    student with fewer heads keeps those whose values and outputs weigh most, one with a narrower
    feed-forward block the neurons that do.

    Args:
        params: the teacher's parameters, with the layers that are kept and as many positions and
            types as the student has.
        teacher_config: configuration of the teacher.
        student_config: configuration of the student.
    """
    sizes = ("width", "heads", "ffn")
    if all(getattr(student_config, name) == getattr(teacher_config, name) for name in sizes):
        return params

    # P, `[D_t, D_s]`, takes the teacher's residual stream to the student's.
    if student_config.width == teacher_config.width:
        basis = np.eye(teacher_config.width)
    else:
        basis = stream_basis(params, student_config.width)

    # What writes to the stream is multiplied by P, what reads from it by its transpose.
    embeddings = {}
    for name, p in params["embeddings"].items():
        if name == "norm":
            embeddings[name] = _norm(p, basis)
        else:
            embeddings[name] = {"embedding": p["embedding"] @ basis}
    layers = {}
    for number, layer in params["layers"].items():
        layers[number] = {
            "attention": _attention(layer["attention"], basis, teacher_config, student_config),
            "attention_norm": _norm(layer["attention_norm"], basis),
            "ffn": _feed_forward(layer["ffn"], basis, student_config.ffn),
            "ffn_norm": _norm(layer["ffn_norm"], basis),
        }
    projected: Params = {"embeddings": embeddings, "layers": layers}

    # After the last layer
    if "final_norm" in params:
        projected["final_norm"] = _norm(params["final_norm"], basis)
    if "mlm" in params:
        head = params["mlm"]
        dense = {
            "kernel": basis.T @ head["dense"]["kernel"] @ basis,
            "bias": head["dense"]["bias"] @ basis,
        }
        projected["mlm"] = {
            "dense": dense,
            "norm": _norm(head["norm"], basis),
            "bias": head["bias"],
        }
    return projected


def stream_basis(params: Params, width: int) -> Array:
    """Compute P, `[D_t, width]`: the word embedding's leading directions, for the LayerNorms.

    Its columns are orthonormal.
    """
    norms = [params["embeddings"].get("norm"), params.get("final_norm")]
    for layer in params["layers"].values():
        norms += [layer["attention_norm"], layer["ffn_norm"]]
    scales = np.stack([norm["scale"] for norm in norms if norm is not None])
    scale = scales.astype(np.float64).mean(axis=0)
    leading = leading_directions(params["embeddings"]["word"]["embedding"], width)
    # In the eigenvectors of the mean scale, seen from the span, it is diagonal.
    _, turn = np.linalg.eigh(leading.T @ (scale[:, None] * leading))
    return _signed(leading @ turn)


def leading_directions(table: Array, count: int) -> Array:
    """Compute the leading right singular vectors `[D, count]` of a table, with fixed signs."""
    wide = table.astype(np.float64)
    _, vectors = np.linalg.eigh(wide.T @ wide)  # ascending
    return _signed(vectors[:, ::-1][:, :count])


def factors(left: Array, right: Array, rank: int) -> tuple[Array, Array]:
    """Compute the best approximation of left · rightᵀ of a rank, split evenly.

    Args:
        left: matrix `[m, d]`.
        right: matrix `[n, d]`.
        rank: rank of the product, at most d.

    Returns:
        `[m, rank]` and `[n, rank]`, whose product is the truncated singular value decomposition.
    """
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right)
    u, s, vt = np.linalg.svd(r_left @ r_right.T)
    a = q_left @ u[:, :rank]
    b = q_right @ vt[:rank].T
    signs = _signs(a)
    root = np.sqrt(s[:rank])
    return a * signs * root, b * signs * root


def _norm(p: Params, basis: Array) -> Params:
    """Project a LayerNorm to the new basis, keeping the diagonal of its scale."""
    scale = np.einsum("ij,i,ij->j", basis, p["scale"], basis)
    return {"scale": scale, "bias": p["bias"] @ basis}


def _attention(
    p: Params, basis: Array, teacher_config: ModelConfig, student_config: ModelConfig
) -> Params:
    """Project attention's matrices to the new basis, with the student's heads."""
    # Queries, keys and values of each head, with the bias as a last row: [D_s + 1, d_t]
    heads = {}
    for name in ("query", "key", "value"):
        joined = np.vstack([basis.T @ p[name]["kernel"], p[name]["bias"]])
        heads[name] = np.split(joined, teacher_config.heads, axis=1)
    # Each [d_t, D_s]
    outputs = [part @ basis for part in np.split(p["output"]["kernel"], teacher_config.heads)]
    weights = []
    for value, output in zip(heads["value"], outputs, strict=True):
        weights.append(np.linalg.norm(value @ output))

    rank = student_config.head_width
    # Scores are divided by sqrt(d): the student's by less.
    score_scale = (student_config.head_width / teacher_config.head_width) ** 0.25
    parts: dict[str, list[Array]] = {name: [] for name in ("query", "key", "value", "output")}
    for head in largest(weights, student_config.heads):
        query = heads["query"][head]
        key = heads["key"][head]
        if teacher_config.positions == "learned":
            query, key = factors(query, key, rank)
        value, output = factors(heads["value"][head], outputs[head].T, rank)
        parts["query"].append(score_scale * query)
        parts["key"].append(score_scale * key)
        parts["value"].append(value)
        parts["output"].append(output)

    attention: Params = {}
    for name in ("query", "key", "value"):
        joined = np.hstack(parts[name])
        attention[name] = {"kernel": joined[:-1], "bias": joined[-1]}
    bias = p["output"]["bias"] @ basis
    attention["output"] = {"kernel": np.hstack(parts["output"]).T, "bias": bias}
    return attention


def _feed_forward(p: Params, basis: Array, width: int) -> Params:
    """Project a feed-forward block to the new basis, with the neurons that weigh most."""
    up = basis.T @ p["up"]["kernel"]
    down = p["down"]["kernel"] @ basis
    chosen = largest(np.linalg.norm(up, axis=0) * np.linalg.norm(down, axis=1), width)
    return {
        "up": {"kernel": up[:, chosen], "bias": p["up"]["bias"][chosen]},
        "down": {"kernel": down[chosen], "bias": p["down"]["bias"] @ basis},
    }


def _signs(columns: Array) -> Array:
    """Return ±1 for each column, so that its entry of the largest size becomes positive."""
    largest = columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])]
    return np.where(largest < 0, -1.0, 1.0)


def _signed(columns: Array) -> Array:
    """Return columns with fixed signs."""
    signed: Array = columns * _signs(columns)
    return signed
