"""Whole studies, from a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdjax import recipes
from kdjax.config import Config
from kdjax.runtime import standard_streams
from kdjax.storage.paths import local_path
from kdjax.study.compare import compare as run_study


def compare(recipe: str | Path | Config, out: str | Path, overrides: Sequence[str] = ()) -> Any:
    """Run a whole study, or go on with an interrupted one, as `kdjax compare` does.

    Args:
        recipe: a YAML file, or the settings themselves.
        out: directory for the study's results; one that was begun goes on.
        overrides: settings that replace a YAML file's, for instance `["--budget.flops", "1e12"]`.

    Returns:
        What results.json says.

    Raises:
        InputError: anything wrong with the recipe, the text, the teacher or the directory.

    Example:
        >>> results = kdjax.compare("recipe.yaml", "study", ["--seeds", "[0]"])
        2.00e7 FLOPs a run
        ...
        report: study/report.html
        >>> [(run.arm, run.seed) for run in results.runs]
        [('scratch', 0)]
    """
    config = recipe if isinstance(recipe, Config) else recipes.load(recipe, overrides)
    # What the program's terminal cannot show does not lose what was computed.
    with standard_streams.protect_streams():
        return run_study(config, local_path(out, "out"))
