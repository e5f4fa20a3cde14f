"""The rules by which parameters are split over the mesh: patterns over their dotted paths."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

from kdjax.errors import InputError

NONE = "none"
Rule = tuple[str, tuple[str, ...]]
RULES: tuple[Rule, ...] = (
    ("*.word.embedding", ("tensor", "fsdp")),  # [V, D]
    ("*.embedding", (NONE, "fsdp")),
    ("*.attention.output.kernel", ("tensor", "fsdp")),  # [H d, D]
    ("*.ffn.down.kernel", ("tensor", "fsdp")),  # [F, D]
    ("*.kernel", ("fsdp", "tensor")),  # [D, H d], [D, F], the MLM head's, projections
    ("*.query.bias", ("tensor",)),
    ("*.key.bias", ("tensor",)),
    ("*.value.bias", ("tensor",)),
    ("*.up.bias", ("tensor",)),
    ("*.gate.bias", ("tensor",)),
    ("*mlm.dense.bias", ("tensor",)),
    ("*mlm.norm.*", ("tensor",)),
    ("*mlm.bias", ("tensor",)),  # [V]
    ("objective.*.bias", ("tensor",)),
)
"""A pattern over a parameter's dotted path -> for each of its axes, the mesh axis that splits it.
The first pattern that matches counts; what none matches is whole on every device, and so is an axis
that the devices do not divide."""


def axes_of(name: str, rules: Sequence[Rule]) -> tuple[str, ...]:
    """Return the mesh axes of the first rule that a parameter's dotted path matches.

    Args:
        name: dotted path of the parameter.
        rules: the rules, in their order.

    Returns:
        One of `fsdp`, `tensor` and `none` for each axis of the parameter; empty where no rule
        matches.
    """
    for pattern, axes in rules:
        if _matches(name, pattern):
            return axes
    return ()


def check_rule(pattern: str, axes: Sequence[str]) -> None:
    """Check that a recipe's rule names axes of the mesh, each at most once.

    Args:
        pattern: the rule's pattern of parameter paths, for the message.
        axes: what the rule names for each axis of a parameter: an axis of the mesh, or none.

    Raises:
        InputError: it names something else, or an axis twice.
    """
    unknown = set(axes) - {"fsdp", "tensor", NONE}
    if unknown:
        raise InputError(
            f"train.mesh.rules.{pattern}: {min(unknown)!r}, expected fsdp, tensor or none"
        )
    named = [axis for axis in axes if axis != NONE]
    if len(set(named)) < len(named):
        raise InputError(
            f"train.mesh.rules.{pattern}: {list(axes)}, expected each axis at most once"
        )


def check_matches(rules: Sequence[Rule], ranks: Mapping[str, int]) -> None:
    """Check that each rule of a recipe is of some parameter, and has its axes.

    Args:
        rules: the recipe's rules.
        ranks: dotted path of each parameter -> its number of axes.

    Raises:
        InputError: a pattern that matches nothing, or a rule with another number of axes.
    """
    for pattern, axes in rules:
        matched = {name: rank for name, rank in ranks.items() if _matches(name, pattern)}
        # Only some arms have projections.
        if not matched and not pattern.startswith("objective"):
            raise InputError(
                f"train.mesh.rules.{pattern}: matches no parameter, expected a pattern over dotted "
                f"paths, such as {next(iter(ranks))}"
            )
        for name, rank in matched.items():
            if rank != len(axes):
                raise InputError(
                    f"train.mesh.rules.{pattern}: {list(axes)}, expected an entry for each of the "
                    f"{rank} axes of {name}"
                )


def _matches(name: str, pattern: str) -> bool:
    """Return whether a parameter's dotted path is one of a pattern's."""
    return fnmatch.fnmatchcase(name, pattern)
