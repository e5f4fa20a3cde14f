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

Array = np.ndarray
Params = dict[str, Any]


def project(params: Params, teacher: ModelConfig, student: ModelConfig) -> Params:
    """The parameters of a student, from those of a teacher with as many layers.

    Where the two have the same width, heads and feed-forward width they are the teacher's own. A
    student with fewer heads keeps those whose values and outputs weigh most, one with a narrower
    feed-forward block the neurons that do.

    Args:
        params: the teacher's, with the layers that are kept and as many positions and types as the
            student has.
        teacher: its configuration.
        student: the student's.
    """
    if all(getattr(student, name) == getattr(teacher, name) for name in ("width", "heads", "ffn")):
        return params
    basis = (
        np.eye(teacher.width)
        if student.width == teacher.width
        else stream_basis(params, student.width)
    )

    def norm(p: Params) -> Params:
        """A LayerNorm's scale is diagonal; in the new basis its diagonal is kept."""
        return {
            "scale": np.einsum("ij,i,ij->j", basis, p["scale"], basis),
            "bias": p["bias"] @ basis,
        }

    def layer(p: Params) -> Params:
        return {
            "attention": _attention(p["attention"], basis, teacher, student),
            "attention_norm": norm(p["attention_norm"]),
            "ffn": _feed_forward(p["ffn"], basis, student.ffn),
            "ffn_norm": norm(p["ffn_norm"]),
        }

    embeddings = {
        name: norm(p) if name == "norm" else {"embedding": p["embedding"] @ basis}
        for name, p in params["embeddings"].items()
    }
    made: Params = {
        "embeddings": embeddings,
        "layers": {n: layer(p) for n, p in params["layers"].items()},
    }
    if "final_norm" in params:
        made["final_norm"] = norm(params["final_norm"])
    if "mlm" in params:
        head = params["mlm"]
        dense = {
            "kernel": basis.T @ head["dense"]["kernel"] @ basis,
            "bias": head["dense"]["bias"] @ basis,
        }
        made["mlm"] = {"dense": dense, "norm": norm(head["norm"]), "bias": head["bias"]}
    return made


def stream_basis(params: Params, width: int) -> Array:
    """P, orthonormal columns `[D_t, width]`: the word embedding's leading directions, turned for
    the LayerNorms."""
    norms = [params["embeddings"].get("norm"), params.get("final_norm")]
    norms += [
        layer[name]
        for layer in params["layers"].values()
        for name in ("attention_norm", "ffn_norm")
    ]
    scale = (
        np.stack([norm["scale"] for norm in norms if norm is not None])
        .astype(np.float64)
        .mean(axis=0)
    )
    leading = leading_directions(params["embeddings"]["word"]["embedding"], width)
    _, turn = np.linalg.eigh(leading.T @ (scale[:, None] * leading))
    return _signed(leading @ turn)


def leading_directions(table: Array, count: int) -> Array:
    """The leading right singular vectors of a table `[V, D]`, as orthonormal columns `[D, count]`
    with fixed signs."""
    wide = table.astype(np.float64)
    _, vectors = np.linalg.eigh(wide.T @ wide)  # ascending
    return _signed(vectors[:, ::-1][:, :count])


def factors(left: Array, right: Array, rank: int) -> tuple[Array, Array]:
    """The best approximation of left · rightᵀ of a rank, split evenly.

    Args:
        left: `[m, d]`.
        right: `[n, d]`.
        rank: at most d.

    Returns:
        `[m, rank]` and `[n, rank]`, whose product is the truncated singular value decomposition.
    """
    (q_left, r_left), (q_right, r_right) = np.linalg.qr(left), np.linalg.qr(right)
    u, s, vt = np.linalg.svd(r_left @ r_right.T)
    a = q_left @ u[:, :rank]
    b = q_right @ vt[:rank].T
    signs = _signs(a)
    root = np.sqrt(s[:rank])
    return a * signs * root, b * signs * root


def _attention(p: Params, basis: Array, teacher: ModelConfig, student: ModelConfig) -> Params:
    rank = student.head_width
    of_scores = (student.head_width / teacher.head_width) ** 0.25
    joined = {
        name: np.vstack([basis.T @ p[name]["kernel"], p[name]["bias"]])
        for name in ("query", "key", "value")
    }
    # Each [D_s + 1, d_t]
    heads = {name: np.split(x, teacher.heads, axis=1) for name, x in joined.items()}
    # Each [d_t, D_s]
    outputs = [part @ basis for part in np.split(p["output"]["kernel"], teacher.heads)]
    weights = [np.linalg.norm(v @ o) for v, o in zip(heads["value"], outputs, strict=True)]
    made: dict[str, list[Array]] = {name: [] for name in ("query", "key", "value", "output")}
    for head in _largest(weights, student.heads):
        query = heads["query"][head]
        key = heads["key"][head]
        if teacher.positions == "learned":
            query, key = factors(query, key, rank)
        value, output = factors(heads["value"][head], outputs[head].T, rank)
        # Scores are divided by sqrt(d): the student's by less.
        for name, x in (
            ("query", of_scores * query),
            ("key", of_scores * key),
            ("value", value),
            ("output", output),
        ):
            made[name].append(x)
    linear = {name: np.hstack(made[name]) for name in ("query", "key", "value")}
    return {
        **{name: {"kernel": x[:-1], "bias": x[-1]} for name, x in linear.items()},
        "output": {"kernel": np.hstack(made["output"]).T, "bias": p["output"]["bias"] @ basis},
    }


def _feed_forward(p: Params, basis: Array, width: int) -> Params:
    up = basis.T @ p["up"]["kernel"]
    down = p["down"]["kernel"] @ basis
    kept = _largest(np.linalg.norm(up, axis=0) * np.linalg.norm(down, axis=1), width)
    return {
        "up": {"kernel": up[:, kept], "bias": p["up"]["bias"][kept]},
        "down": {"kernel": down[kept], "bias": p["down"]["bias"] @ basis},
    }


def _largest(weights: Any, count: int) -> list[int]:
    """Where the largest weights are, in their own order; of equal ones the first."""
    return sorted(int(i) for i in np.argsort(-np.asarray(weights), kind="stable")[:count])


def _signs(columns: Array) -> Array:
    """±1 for each column, so that its entry of the largest size becomes positive."""
    return np.where(
        columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])] < 0, -1.0, 1.0
    )


def _signed(columns: Array) -> Array:
    signed: Array = columns * _signs(columns)
    return signed
