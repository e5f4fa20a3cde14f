"""Prices of steps, kept between the processes of one run of the tests, as compiled programs are.

`kdjax` keeps them in a process. Here every worker and every command that a test starts asks for the
same few, half a second each.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

from kdjax.budget.price import Price
from kdjax.training import phase_price
from kdjax.training.phase import BatchShape, Phase


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


def key(phase: Phase, shape: BatchShape) -> str | None:
    """Name what has this price; None where it has code of its own."""
    written = io.BytesIO()
    try:
        KeyPickler(written).dump((phase, shape))
    except (Strangers, pickle.PicklingError, AttributeError, TypeError):
        return None
    return hashlib.sha256(written.getvalue()).hexdigest()


def keep() -> None:
    """Read a price that another process of this run has found from its file, from now on."""
    compute_price = phase_price._price

    @functools.cache
    def price(phase: Phase, shape: BatchShape) -> Price:
        name = key(phase, shape)
        if name is None:
            return compute_price(phase, shape)
        path = Path(os.environ["XDG_CACHE_HOME"]) / "prices" / name
        if path.exists():
            return pickle.loads(path.read_bytes())
        computed = compute_price(phase, shape)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(pickle.dumps(computed))
        Path(file.name).replace(path)
        return computed

    phase_price._price = price
