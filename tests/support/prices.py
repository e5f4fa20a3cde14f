"""Prices of steps, kept between the processes of one run of the tests, as compiled programs are.

`kdjax` keeps them in a process. Here every worker and every command that a test starts asks for the
same few: a second or two for a step of training, five for those of fine-tuning.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdjax.evaluation import mlm_probe
from kdjax.evaluation.finetuning import flops
from kdjax.training import phase_price


class Strangers(Exception):
    """Raised where what is priced has code that is none of kdjax's: its name does not tell what it
    does."""


class KeyPickler(pickle.Pickler):
    """Write out what a price is of; refuse code from anywhere but kdjax."""

    def reducer_override(self, value: Any) -> Any:
        code = value if isinstance(value, type) or callable(value) else type(value)
        if getattr(code, "__module__", "").partition(".")[0] not in (
            "kdjax",
            "builtins",
            "collections",
            "pathlib",
        ):
            raise Strangers(repr(code))
        return NotImplemented


def key(name: str, arguments: tuple[Any, ...]) -> str | None:
    """Name what has this price; None where it has code of its own.

    Args:
        name: name of the function that counts it.
        arguments: what it counts the price of.
    """
    written = io.BytesIO()
    try:
        KeyPickler(written).dump((name, arguments))
    except (Strangers, pickle.PicklingError, AttributeError, TypeError):
        return None
    return hashlib.sha256(written.getvalue()).hexdigest()


def kept(count: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that counts as another does, and reads from its file what another process
    of this run has counted."""

    @functools.cache
    def price(*arguments: Any) -> Any:
        name = key(f"{count.__module__}.{count.__name__}", arguments)
        if name is None:
            return count(*arguments)
        path = Path(os.environ["XDG_CACHE_HOME"]) / "prices" / name
        if path.exists():
            return pickle.loads(path.read_bytes())
        computed = count(*arguments)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(pickle.dumps(computed))
        Path(file.name).replace(path)
        return computed

    return price


def keep() -> None:
    """Keep the prices of steps of training, fine-tuning and probes from now on."""
    phase_price._price = kept(phase_price._price)
    flops._step_flops = kept(flops._step_flops)
    flops._forward_flops = kept(flops._forward_flops)
    mlm_probe._flops = kept(mlm_probe._flops)
