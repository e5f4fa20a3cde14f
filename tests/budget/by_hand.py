"""FLOPs of the matmuls of one training step, by hand: sizes in, a number out. Nothing here is from
the package.

A matmul of `[m, k]` with `[k, n]` takes 2mkn FLOPs, 2 a multiply-add. The gradient of either factor
is a matmul of the same three sizes, so a matmul costs 2mkn x (1 + gradients): 2 gradients in a
student, whose word embeddings are trained, so that even the first layer's input has one; 0 in a
teacher; 1 where one factor is frozen or an input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

STUDENT = 2
TEACHER = 0
"""Gradients of a matmul."""

QK = ("query", "key")
QKV = ("query", "key", "value")
SCORES = (*QK, "scores")


class Model(NamedTuple):
    layers: int
    heads: int
    head_width: int
    ffn: int
    vocabulary: int
    gated: bool = False

    @property
    def width(self) -> int:
        return self.heads * self.head_width


class Batch(NamedTuple):
    sequences: int
    length: int
    slots: int

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    @property
    def masked(self) -> int:
        return self.sequences * self.slots


def matmul(m: int, k: int, n: int, gradients: int) -> int:
    return 2 * m * k * n * (1 + gradients)


def pairs_of_positions(model: Model, batch: Batch, gradients: int) -> int:
    """Count each head's `[L, d]` with `[d, L]`, or its `[L, L]` with `[L, d]`: in either order the
    same."""
    return (
        batch.sequences
        * model.heads
        * matmul(batch.length, model.head_width, batch.length, gradients)
    )


def attention_parts(model: Model, batch: Batch, parts: Iterable[str], gradients: int) -> int:
    projection = matmul(batch.tokens, model.width, model.width, gradients)
    scores = pairs_of_positions(model, batch, gradients)
    return sum(scores if part == "scores" else projection for part in parts)


def layer(model: Model, batch: Batch, gradients: int) -> int:
    """Count a whole layer: query, key, value, scores; their mixing of the values, the output; up
    and down, and a gate beside up where there is one."""
    return (
        attention_parts(model, batch, (*QKV, "scores"), gradients)
        + pairs_of_positions(model, batch, gradients)
        + matmul(batch.tokens, model.width, model.width, gradients)
        + (1 + model.gated) * matmul(batch.tokens, model.width, model.ffn, gradients)
        + matmul(batch.tokens, model.ffn, model.width, gradients)
    )


def encoder(model: Model, batch: Batch, whole: int, parts: Iterable[str], gradients: int) -> int:
    """Count `whole` layers, and of the one above them some parts of the attention."""
    return whole * layer(model, batch, gradients) + attention_parts(model, batch, parts, gradients)


def everything(model: Model, batch: Batch, gradients: int) -> int:
    return encoder(model, batch, model.layers, (), gradients)


def up_to(model: Model, batch: Batch, last: int, parts: Iterable[str], gradients: int) -> int:
    """Count some parts of the attention of layer `last`, and all the layers below it."""
    return encoder(model, batch, last - 1, parts, gradients)


def head(model: Model, places: int, gradients: int) -> int:
    """Count the MLM head: its dense layer, and the decoder."""
    return matmul(places, model.width, model.width, gradients) + matmul(
        places, model.width, model.vocabulary, gradients
    )


def projection(student: Model, teacher: Model, batch: Batch, times: int) -> int:
    """Count a learned matrix that takes the student's hidden states to the teacher's width."""
    return times * matmul(batch.tokens, student.width, teacher.width, STUDENT)


def relation(student: Model, teacher: Model, batch: Batch, heads: int) -> int:
    """Count X Xᵀ of both models, joined and split anew into `heads`."""
    regrouped_student = student._replace(heads=heads, head_width=student.width // heads)
    regrouped_teacher = teacher._replace(heads=heads, head_width=teacher.width // heads)
    return pairs_of_positions(regrouped_student, batch, STUDENT) + pairs_of_positions(
        regrouped_teacher, batch, TEACHER
    )


def scratch(student: Model, teacher: Model, batch: Batch) -> int:
    return everything(student, batch, STUDENT) + head(student, batch.masked, STUDENT)


def logit(student: Model, teacher: Model, batch: Batch) -> int:
    """Count both models whole, both heads at the masked slots; comparing two distributions is
    elementwise."""
    target = everything(teacher, batch, TEACHER) + head(teacher, batch.masked, TEACHER)
    return scratch(student, teacher, batch) + target


def distilbert(student: Model, teacher: Model, batch: Batch) -> int:
    """Count both heads at every position, once; the masked slots are looked up in that. The cosine
    is elementwise."""
    student_forward = everything(student, batch, STUDENT) + head(student, batch.tokens, STUDENT)
    return (
        student_forward + everything(teacher, batch, TEACHER) + head(teacher, batch.tokens, TEACHER)
    )


def both_encoders(student: Model, teacher: Model, batch: Batch) -> int:
    return everything(student, batch, STUDENT) + everything(teacher, batch, TEACHER)


def tinybert(student: Model, teacher: Model, batch: Batch) -> int:
    """Count both models; scores come on the way; the embedding output and every layer's are
    projected."""
    return both_encoders(student, teacher, batch) + projection(
        student, teacher, batch, student.layers + 1
    )


def last_hidden(student: Model, teacher: Model, batch: Batch) -> int:
    return both_encoders(student, teacher, batch) + projection(student, teacher, batch, 1)


def at_last(student: Model, teacher: Model, batch: Batch, parts: Iterable[str]) -> int:
    student_forward = up_to(student, batch, student.layers, parts, STUDENT)
    return student_forward + up_to(teacher, batch, teacher.layers, parts, TEACHER)


def attention_transfer(student: Model, teacher: Model, batch: Batch) -> int:
    """Count both models up to the last layer's scores: no values, no output, no feed-forward."""
    return at_last(student, teacher, batch, SCORES)


def minilm_v1(student: Model, teacher: Model, batch: Batch) -> int:
    return at_last(student, teacher, batch, (*QKV, "scores")) + relation(
        student, teacher, batch, student.heads
    )


def minilm(student: Model, teacher: Model, batch: Batch) -> int:
    """Count both models up to the last layer's queries, keys and values. How many heads relate
    makes no difference: 1 here."""
    return at_last(student, teacher, batch, QKV) + 3 * relation(student, teacher, batch, 1)


def minilm_as_run(student: Model, teacher: Model, batch: Batch) -> int:
    return at_last(student, teacher, batch, QKV) + 3 * relation(
        student, teacher, batch, student.heads
    )


def head_on_frozen_encoder(model: Model, batch: Batch) -> int:
    """Count the head alone as trained: the dense layer has no gradient of its input, the decoder
    none of the table."""
    dense = matmul(batch.masked, model.width, model.width, 1)
    return (
        everything(model, batch, TEACHER)
        + dense
        + matmul(batch.masked, model.width, model.vocabulary, 1)
    )


PRESETS: dict[str, tuple[Callable[[Model, Model, Batch], int], ...]] = {
    "scratch": (scratch,),
    "logit": (logit,),
    "tinybert": (tinybert,),
    "minilm": (minilm,),
    "distilbert": (distilbert,),
    "minilm_v1": (minilm_v1,),
    "attention_transfer": (attention_transfer,),
    "attention_mse+hidden_mse": (last_hidden,),
    "attention_kl+hidden_mse": (last_hidden,),
    "two_stage": (scratch, minilm_v1),
    "paper_as_run_scratch": (scratch,),
    "paper_as_run_logit": (logit,),
    "paper_as_run_tinybert": (both_encoders,),
    "paper_as_run_minilm": (minilm_as_run,),
}
"""Of each preset, its phases."""
