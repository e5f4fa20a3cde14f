"""Notes which programs are compiled, or read from the cache of compiled ones, in a block."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"
_compiled: list[str] = []


@functools.cache
def _listen() -> None:
    """Begin to note compilations, once a process: JAX keeps its listeners to the end."""

    def note(event: str, seconds: float, **facts: Any) -> None:
        if event == _EVENT:
            _compiled.append(str(facts.get("fun_name", "")))

    jax.monitoring.register_event_duration_secs_listener(note)


@contextmanager
def compilations() -> Iterator[list[str]]:
    """Yield a list that has the names of the programs compiled in the block, when it has ended."""
    _listen()
    before = len(_compiled)
    names: list[str] = []
    yield names
    names += _compiled[before:]
