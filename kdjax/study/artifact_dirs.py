"""Where what a study makes before its runs lies: in its own directory, or beside that of others who
use it too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdjax.config import Config, plain, to_dict
from kdjax.files import digest

MADE = ("data", "texts", "teacher", "cache", "references")
"""The prepared corpus, other texts for evaluation, the teacher with its head, its stored outputs,
and the models measured for reference."""

_REGIME = ("regime", "unique_tokens", "subset_seed")
_LOADING = (
    "mlm_probability",
    "max_predictions",
    "mask_copies",
    "workers",
    "prepared",
)


def places(config: Config, out: Path, shared: Path | None = None) -> dict[str, Path]:
    """What -> its directory.

    Args:
        config: the study's recipe.
        out: the study's directory.
        shared: a directory for several studies. There a name carries a digest of all that its
            content depends on, so studies that differ in something else find the same.
    """
    if shared is None:
        return {name: out / name for name in MADE}
    return {name: shared / f"{name}-{digest(on)[:12]}" for name, on in _depends(config).items()}


def _depends(config: Config) -> dict[str, Any]:
    """What -> the settings its content depends on."""
    whole: dict[str, Any] = plain(to_dict(config))
    text = {
        name: value for name, value in whole["data"].items() if name not in (*_REGIME, *_LOADING)
    }
    corpus = [text, whole["teacher"]["source"]]  # its tokenizer, unless the recipe names one
    # A teacher that is trained here leaves all its checkpoints and each seed in a directory of its
    # own.
    made = {name: value for name, value in whole["teacher"].items() if name != "at"}
    made["train"] = {
        name: value for name, value in whole["teacher"]["train"].items() if name != "seeds"
    }
    used = [whole["data"], whole["teacher"]]
    texts = [text, whole["teacher"]["source"], whole["evaluation"]["texts"]]
    arms = {name: arm for name, arm in whole["arms"].items() if arm["teacher"] == "cached"}
    references = [*used, whole["student"], whole["evaluation"], whole["train"]["batch_size"]]
    return {
        "data": corpus,
        "texts": texts,
        "teacher": [whole["data"], made],
        "cache": [*used, whole["student"], whole["cache"], arms],
        "references": references,
    }
