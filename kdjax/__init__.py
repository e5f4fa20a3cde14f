"""kdjax: distil or pretrain? Masked language models compared under one exact compute budget."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdjax import api, config, models, objectives
    from kdjax.api import (
        arm,
        compare,
        evaluate,
        flops,
        hours,
        prepare,
        price,
        save,
        tokens,
        train,
    )

__version__ = "0.1.0"

__all__ = [
    "api",
    "arm",
    "compare",
    "config",
    "evaluate",
    "flops",
    "hours",
    "models",
    "objectives",
    "prepare",
    "price",
    "save",
    "tokens",
    "train",
]

_MODULES = ("api", "config", "models", "objectives")


def __getattr__(name: str) -> Any:
    """Import a name of the front door when it is first used, so that `import kdjax` stays quick."""
    if name in _MODULES:
        return importlib.import_module(f"kdjax.{name}")
    if name in __all__:
        return getattr(importlib.import_module("kdjax.api"), name)
    raise AttributeError(f"module 'kdjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
