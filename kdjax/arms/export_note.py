"""What a recipe's reader should know of export before anything is trained."""

from __future__ import annotations

from kdjax.arms.recipe_arms import arms_of
from kdjax.config import Config
from kdjax.models.families.transformers_classes import class_of, settings_to_export


def export_note(config: Config) -> str | None:
    """Return the line on students that `kdjax export` will refuse; None where there are none.

    A student that no class of transformers computes is read by this package alone.

    Args:
        config: a resolved recipe.

    Raises:
        InputError: the recipe's arms are impossible with its models.
    """
    refused = {}
    arms = arms_of(config)
    for name, arm in arms.items():
        if class_of(arm.student_config) is None:
            refused[name] = settings_to_export(arm.student_config)
    if not refused:
        return None
    # Arms may have students of their own; most recipes have one for all.
    students = "the students"
    if len(refused) < len(arms):
        students += f" of {', '.join(refused)}"
    first = next(iter(refused.values()))
    return (
        f"export: no class of transformers computes {students}, and `kdjax export` will refuse "
        f"them; they could leave with {first}"
    )
