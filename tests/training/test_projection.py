"""Projections: what of a wider teacher a narrower student begins with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.models import Model
from kdjax.training.starts.projection import factors, leading_directions, project, stream_basis
from tests.support import tiny
from tests.training.starts import narrow, start, teacher

Array = np.ndarray


@pytest.mark.parametrize(
    ("rows", "others", "inner", "rank"), [(17, 16, 12, 8), (9, 8, 12, 8), (30, 5, 4, 1)]
)
def test_factors_are_best_approximation_of_rank(
    rows: int, others: int, inner: int, rank: int
) -> None:
    rng = np.random.default_rng(rows)
    left = rng.standard_normal((rows, inner))
    right = rng.standard_normal((others, inner))
    a, b = factors(left, right, rank)
    assert a.shape == (rows, rank)
    assert b.shape == (others, rank)
    # A truncated singular value decomposition is the best approximation of its rank (Eckart-Young).
    u, s, vt = np.linalg.svd(left @ right.T)
    np.testing.assert_allclose(a @ b.T, (u[:, :rank] * s[:rank]) @ vt[:rank], atol=1e-12)
    error = np.linalg.norm(left @ right.T - a @ b.T)
    assert error == pytest.approx(np.sqrt(np.sum(s[rank:] ** 2)), abs=1e-12)
    # The form is shared out evenly: both factors have columns of the same length.
    np.testing.assert_allclose(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0))


def test_leading_directions_are_right_singular_vectors() -> None:
    table = np.random.default_rng(1).standard_normal((53, 24)).astype(np.float32)
    actual = leading_directions(table, 16)
    # Directions are known but for their signs.
    _, _, vt = np.linalg.svd(table.astype(np.float64), full_matrices=False)
    assert actual.shape == (24, 16)
    np.testing.assert_allclose(actual.T @ actual, np.eye(16), atol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(actual * vt[:16].T, axis=0)), 1, atol=1e-9)


def test_leading_directions_have_fixed_signs() -> None:
    """The factors of a form do not depend on how it was factored before."""
    rng = np.random.default_rng(2)
    left = rng.standard_normal((17, 12))
    right = rng.standard_normal((16, 12))
    # Three other factorings of one form: turned, negated, rescaled.
    turn = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    a, b = factors(left, right, 8)
    for pair in ((left @ turn, right @ turn), (-left, -right), (left / 3, 3 * right)):
        for actual, expected in zip(factors(*pair, 8), (a, b), strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-9)
    # The entry of largest magnitude is positive in every column.
    for columns in (a, leading_directions(rng.standard_normal((53, 24)), 16)):
        assert (columns.max(axis=0) == np.abs(columns).max(axis=0)).all()


def test_projected_embeddings_are_coordinates_along_leading_directions() -> None:
    tables = teacher().params["embeddings"]
    projected = start(narrow(width=16), teacher())["embeddings"]
    # Coordinates put back into the teacher's space are what the basis can hold of each row.
    basis = basis_of(teacher().params, 16)
    for name in ("word", "position", "type"):
        np.testing.assert_allclose(
            projected[name]["embedding"] @ basis.T,
            tables[name]["embedding"] @ basis @ basis.T,
            atol=1e-5,
        )


def basis_of(params: Any, count: int) -> Array:
    """Compute the student's basis by another way: a singular value decomposition of the table, then
    one of the mean scale."""
    _, _, vt = np.linalg.svd(
        np.asarray(params["embeddings"]["word"]["embedding"], np.float64), full_matrices=False
    )
    # Those that students start with
    params = {
        **params,
        "layers": {n: params["layers"][n] for n in ("1", "2")},
    }
    # The MLM head's norm lies outside the residual stream.
    norms = [
        p["scale"]
        for path, p in walk(params)
        if path.endswith("norm") and not path.startswith("mlm")
    ]
    # Directions are ordered by how much the norms enlarge them.
    within, _, _ = np.linalg.svd(
        vt[:count] @ np.diag(np.mean(norms, axis=0, dtype=np.float64)) @ vt[:count].T
    )
    basis = vt[:count].T @ within[:, ::-1]
    # Signs are a convention, taken from the function under test.
    return basis * np.sign(np.sum(basis * stream_basis(params, count), axis=0))


def walk(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every mapping below a tree with its dotted path."""
    for name, below in tree.items():
        if isinstance(below, dict):
            where = f"{path}.{name}" if path else name
            yield where, below
            yield from walk(below, where)


def scores_form(attention: Any, head: int, width: int, basis: Array | None = None) -> Array:
    """Compute the bilinear form of a head's scores on states [h, 1], those of the student where a
    basis is given."""
    part = slice(head * width, (head + 1) * width)

    def affine(name: str) -> Array:
        kernel = np.asarray(attention[name]["kernel"], np.float64)
        return np.vstack([kernel, attention[name]["bias"]])[:, part]

    query = affine("query")
    key = affine("key")
    form = query @ key.T / np.sqrt(width)
    return form if basis is None else bordered(basis).T @ form @ bordered(basis)


def output_form(attention: Any, head: int, width: int, basis: Array | None = None) -> Array:
    """Compute what a head makes of a state [h, 1] that it looks at alone."""
    part = slice(head * width, (head + 1) * width)
    # A bias is a row more, for a coordinate that is always 1.
    value = np.vstack(
        [np.asarray(attention["value"]["kernel"], np.float64), attention["value"]["bias"]]
    )[:, part]
    form = value @ np.asarray(attention["output"]["kernel"], np.float64)[part]
    return form if basis is None else bordered(basis).T @ form @ basis


def bordered(basis: Array) -> Array:
    """Give the basis a coordinate of its own for the constant 1 that biases multiply."""
    rows, columns = basis.shape
    whole = np.zeros((rows + 1, columns + 1))
    whole[:rows, :columns] = basis
    whole[rows, columns] = 1
    return whole


def truncated(form: Array, rank: int) -> Array:
    u, s, vt = np.linalg.svd(form, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


@pytest.mark.parametrize("of", [{}, {"heads": 4}], ids=["heads of 12", "heads of 6"])
@pytest.mark.parametrize("form", [scores_form, output_form])
def test_narrower_heads_are_best_approximation_of_teacher(form: Any, of: dict[str, Any]) -> None:
    model = teacher(**of)
    student = narrow(teacher(**of).config, width=16)
    projected = start(student, model)
    basis = basis_of(model.params, 16)
    rank = student.head_width
    # Else there was nothing to approximate.
    assert rank < model.config.head_width
    for layer in ("1", "2"):
        for head in range(student.heads):
            student_form = form(projected["layers"][layer]["attention"], head, rank)
            # The teacher's form in the student's basis, which a truncation approximates best.
            teacher_form = form(
                model.params["layers"][layer]["attention"], head, model.config.head_width, basis
            )
            best = truncated(teacher_form, rank)
            # The truncation loses something, so that the comparison is one.
            assert np.linalg.norm(teacher_form - best) > 1e-2
            np.testing.assert_allclose(student_form, best, atol=1e-5)


@pytest.mark.parametrize("form", [scores_form, output_form])
def test_equally_wide_heads_are_the_heaviest_of_teacher(
    form: Any,
) -> None:
    config, params = teacher(heads=4)
    params = jax.tree.map(np.copy, params)
    # Two heads of four are made heavy, one by its values and one by its output.
    for layer, (by_value, by_output) in (("1", (1, 3)), ("2", (2, 0))):
        attention = params["layers"][layer]["attention"]
        for x in attention["value"].values():
            x[..., 6 * by_value : 6 * by_value + 6] *= 5
        attention["output"]["kernel"][6 * by_output : 6 * by_output + 6] *= 5
    student = narrow(config, width=12, heads=2)
    assert student.head_width == config.head_width
    projected = start(student, Model(config, params))
    basis = basis_of(params, 12)
    # They are taken in the teacher's order.
    for layer, heavy in (("1", (1, 3)), ("2", (0, 2))):
        layer_params = projected["layers"][layer]["attention"]
        its = params["layers"][layer]["attention"]
        for head, other in enumerate(heavy):
            np.testing.assert_allclose(
                form(layer_params, head, 6), form(its, other, 6, basis), atol=1e-5
            )
        # The output's bias is no head's, and only changes basis.
        np.testing.assert_allclose(
            layer_params["output"]["bias"], its["output"]["bias"] @ basis, atol=1e-5
        )


@pytest.mark.parametrize("width", [24, 16])
def test_narrower_feed_forward_block_keeps_heaviest_neurons(width: int) -> None:
    config, params = teacher()
    params = jax.tree.map(np.copy, params)
    # Three neurons weigh by what goes in, two by what comes out.
    heaviest = [0, 7, 8, 30, 47]
    up = params["layers"]["1"]["ffn"]["up"]
    down = params["layers"]["1"]["ffn"]["down"]
    up["kernel"][:, heaviest[:3]] *= 20
    down["kernel"][heaviest[3:]] *= 20
    projected = start(narrow(width=width, ffn=5), Model(config, params))["layers"]["1"]["ffn"]
    # At equal width there is no basis to change to.
    basis = np.eye(24) if width == 24 else basis_of(params, width)
    np.testing.assert_allclose(
        projected["up"]["kernel"], basis.T @ up["kernel"][:, heaviest], atol=1e-5
    )
    np.testing.assert_allclose(projected["up"]["bias"], up["bias"][heaviest], atol=1e-6)
    np.testing.assert_allclose(
        projected["down"]["kernel"], down["kernel"][heaviest] @ basis, atol=1e-5
    )
    np.testing.assert_allclose(projected["down"]["bias"], down["bias"] @ basis, atol=1e-5)


def test_projection_at_equal_width_cuts_feed_forward_block_alone() -> None:
    """Heads may be written in another basis, but compute the same."""
    model = teacher()
    projected = start(narrow(ffn=20), teacher())
    for layer in ("1", "2"):
        layer_params = projected["layers"][layer]
        # What a head computes is compared: its matrices may be written in another basis.
        its = model.params["layers"][layer]
        for head in range(2):
            for form in (scores_form, output_form):
                np.testing.assert_allclose(
                    form(layer_params["attention"], head, 12),
                    form(its["attention"], head, 12),
                    atol=1e-5,
                )
        for name in ("attention_norm", "ffn_norm"):
            np.testing.assert_allclose(layer_params[name]["scale"], its[name]["scale"], atol=1e-6)
            np.testing.assert_allclose(layer_params[name]["bias"], its[name]["bias"], atol=1e-6)
    # Nothing of the rest is touched.
    np.testing.assert_array_equal(
        projected["embeddings"]["word"]["embedding"],
        model.params["embeddings"]["word"]["embedding"],
    )


def test_projected_norms_keep_diagonal() -> None:
    config, teacher_params = teacher(norm="pre")
    projected = start(narrow(config, width=16), Model(config, teacher_params))
    basis = basis_of(teacher_params, 16)
    # Norms of every kind: of the embeddings, the head, the end and a layer.
    norms = [
        (p["embeddings"]["norm"], p["mlm"]["norm"], p["final_norm"], p["layers"]["2"]["ffn_norm"])
        for p in (projected, teacher_params)
    ]
    # A diagonal is all a norm can hold of the scale in the new basis.
    for norm, its in zip(*norms, strict=True):
        np.testing.assert_allclose(
            norm["scale"], np.diag(basis.T @ np.diag(its["scale"]) @ basis), atol=1e-5
        )
        np.testing.assert_allclose(norm["bias"], its["bias"] @ basis, atol=1e-5)


def test_projected_mlm_head_is_teacher_head_in_new_basis() -> None:
    teacher_params = teacher().params
    projected = start(narrow(width=16), teacher())
    basis = basis_of(teacher_params, 16)
    dense = projected["mlm"]["dense"]
    its = teacher_params["mlm"]["dense"]
    # The head's own norm and output bias lie over the vocabulary's side and stay.
    np.testing.assert_allclose(dense["kernel"], basis.T @ its["kernel"] @ basis, atol=1e-5)
    np.testing.assert_allclose(dense["bias"], its["bias"] @ basis, atol=1e-5)
    np.testing.assert_array_equal(projected["mlm"]["bias"], teacher_params["mlm"]["bias"])


def planted(rng: np.random.Generator, plane: Array, rank: int) -> Any:
    """Make a teacher whose states stay in the span of `plane` `[24, 16]`, with heads of an inner
    width of `rank`."""
    config = tiny.TEACHER

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape)

    def heads(rows: int) -> Array:
        """Draw `[rows, 24]`: of each head's 12 columns, combinations of the same `rank`."""
        return np.hstack([normal(rows, rank) @ bases[head] for head in range(config.heads)])

    # Every table and every output of a layer lies in the plane.
    params = jax.tree.map(np.copy, tiny.params(config, 9))
    for table in ("word", "position", "type"):
        rows = params["embeddings"][table]["embedding"].shape[0]
        params["embeddings"][table]["embedding"] = normal(rows, 16) @ plane.T
    for layer in params["layers"].values():
        # A head's queries, keys and values lie in spaces of `rank`, which a narrower head can hold.
        bases = [normal(rank, config.head_width) for _ in range(config.heads)]
        for name in ("query", "key", "value"):
            layer["attention"][name] = {"kernel": plane @ heads(16), "bias": heads(1)[0]}
        layer["attention"]["output"] = {
            "kernel": normal(24, 16) @ plane.T,
            "bias": normal(16) @ plane.T,
        }
        layer["ffn"]["up"] = {"kernel": plane @ normal(16, 48), "bias": normal(48)}
        layer["ffn"]["down"] = {"kernel": normal(48, 16) @ plane.T, "bias": normal(16) @ plane.T}
    return params


def test_projection_of_teacher_that_fits_reproduces_it() -> None:
    """Every linear map of the student does to h P what the teacher's does to h."""
    rng = np.random.default_rng(3)
    plane = np.linalg.qr(rng.standard_normal((24, 16)))[0]
    params = planted(rng, plane, rank=8)
    projected = project(params, tiny.TEACHER, narrow(width=16))
    # The basis is read off the word table, whatever the student chose.
    word = params["embeddings"]["word"]["embedding"]
    basis = np.linalg.lstsq(word, projected["embeddings"]["word"]["embedding"], rcond=None)[0]
    for table in ("word", "position", "type"):
        student_table = projected["embeddings"][table]["embedding"]
        teacher_table = params["embeddings"][table]["embedding"]
        np.testing.assert_allclose(student_table @ basis.T, teacher_table, atol=1e-9)
    # States in the plane lose nothing by the change of basis.
    states = rng.standard_normal((7, 16)) @ plane.T
    for layer in params["layers"]:
        layer_params = projected["layers"][layer]
        its = params["layers"][layer]
        # The first map reads states and gives 48 inner units, which have no basis to change.
        inner = linear(its["ffn"]["up"], states)
        inner_of_student = linear(layer_params["ffn"]["up"], states @ basis)
        np.testing.assert_allclose(inner_of_student, inner, atol=1e-9)

        # The second reads inner units and gives states.
        units = rng.standard_normal((7, 48))
        after = linear(its["ffn"]["down"], units)
        after_of_student = linear(layer_params["ffn"]["down"], units)
        np.testing.assert_allclose(after_of_student @ basis.T, after, atol=1e-9)
        scores_t, context_t = attend(its["attention"], states)
        scores_s, context_s = attend(layer_params["attention"], states @ basis)
        np.testing.assert_allclose(scores_s, scores_t, atol=1e-9)
        np.testing.assert_allclose(context_s @ basis.T, context_t, atol=1e-9)
        # The heads do attend: scores of 0 would agree anyhow.
        assert np.abs(scores_t).max() > 1


def linear(p: Any, x: Array) -> Array:
    return x @ p["kernel"] + p["bias"]


def attend(p: Any, x: Array) -> tuple[Array, Array]:
    """Compute scores of two heads `[2, n, n]` and the output `[n, D]`."""

    def in_heads(name: str) -> Array:
        return np.stack(np.split(linear(p[name], x), 2, axis=1))

    query = in_heads("query")
    key = in_heads("key")
    value = in_heads("value")
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = weights / weights.sum(-1, keepdims=True) @ value
    return scores, linear(p["output"], np.hstack(list(mixed)))
