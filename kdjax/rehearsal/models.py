"""Smaller models for a recipe's, between which holds what held before: layers that are a whole
multiple, widths and heads that are equal, or larger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdjax.config import ModelConfig

LAYERS = 2
"""The most layers of a student."""
WIDTH = 32
"""Width of the narrowest model; the next wider one has twice as much, and so on."""
HEAD_WIDTH = 16
"""Width of a head where all models' are equally wide."""


@dataclass(frozen=True)
class SmallerModels:
    """The rules by which a recipe's models are made smaller.

    Attributes:
        student: the recipe's student as it is.
        teacher: its teacher as it is.
        others: students of arms that have sizes of their own.
    """

    student: ModelConfig
    teacher: ModelConfig
    others: tuple[ModelConfig, ...] = ()

    @property
    def student_layers(self) -> int:
        """Return the layers of the smaller student."""
        return min(self.student.layers, LAYERS)

    @property
    def teacher_layers(self) -> int:
        """Return the layers of the smaller teacher: twice the student's where they were a whole
        multiple, which the uniform map needs; else more where they were more."""
        before = self.teacher.layers
        students = self.student.layers
        if before == students:
            return self.student_layers
        if before < students:
            return max(1, self.student_layers - 1)
        if before % students == 0:
            return 2 * self.student_layers
        return self.student_layers + 1

    def layers(self, before: int) -> int:
        """Return the layers of a smaller model that had so many."""
        if before == self.student.layers:
            return self.student_layers
        if before == self.teacher.layers:
            return self.teacher_layers
        return max(1, round(before * self.student_layers / self.student.layers))

    def student_layer(self, layer: int, student: ModelConfig) -> int:
        """Return the layer of a smaller student that stands for a layer of the recipe's.

        Args:
            layer: layer of the recipe's student, from 1; 0, the embeddings, stays 0.
            student: configuration of the recipe's student.
        """
        return math.ceil(layer * self.layers(student.layers) / student.layers)

    def teacher_layer(self, layer: int) -> int:
        """Return the layer of the smaller teacher that stands for one; 0 stays."""
        return math.ceil(layer * self.teacher_layers / self.teacher.layers)

    def width(self, before: int) -> int:
        """Return the width of a smaller model that was so wide."""
        widths = sorted({model.width for model in self._models})
        return WIDTH * (1 + widths.index(before))

    def heads(self, model: ModelConfig) -> int:
        """Return the heads of a smaller model."""
        if len({each.head_width for each in self._models}) == 1:
            return self.width(model.width) // HEAD_WIDTH
        counts = sorted({each.heads for each in self._models})
        return 2 << counts.index(model.heads)

    def relation_heads(self, before: int) -> int:
        """Return the relation heads that stand for so many: as many as attention heads where they
        were, else a power of two, which divides every width."""
        if before == self.student.heads:
            return self.heads(self.student)
        return 1 << int(math.log2(min(before, HEAD_WIDTH)))

    def sizes(self, model: ModelConfig) -> dict[str, Any]:
        """Return the settings of the smaller model in place of a model's, by name."""
        width = self.width(model.width)
        return {
            "size": f"{self.layers(model.layers)}x{width}",
            "layers": None,
            "width": None,
            "heads": self.heads(model),
            "ffn": round(model.ffn / model.width * width),
        }

    def pairs(self, before: Sequence[Sequence[int]], student: ModelConfig) -> list[list[int]]:
        """Return the pairs (student layer, teacher layer) that stand for some, each once.

        Args:
            before: pairs between an arm's student and the teacher.
            student: the arm's student as it is.
        """
        after: dict[tuple[int, int], None] = {}
        for student_layer, teacher_layer in before:
            pair = (self.student_layer(student_layer, student), self.teacher_layer(teacher_layer))
            after[pair] = None
        return [list(pair) for pair in after]

    def start_layers(self, before: Sequence[int], student: ModelConfig) -> tuple[int, ...]:
        """Return the teacher layer of each of a smaller student's layers.

        Args:
            before: teacher layer of each of an arm's student's layers.
            student: the arm's student as it is.
        """
        count = self.layers(student.layers)
        step = len(before) / count
        chosen = [before[math.ceil(n * step) - 1] for n in range(1, count + 1)]
        return tuple(self.teacher_layer(layer) for layer in chosen)

    @property
    def _models(self) -> tuple[ModelConfig, ...]:
        return (self.student, self.teacher, *self.others)
