"""What studies in tests share: programs are compiled once, and a command line is run in this process."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from kdjax import cli

CACHE = {
    "jax_compilation_cache_dir": "",
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


def kdjax(*words: str | Path) -> Ended:
    """Runs a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return Ended(ended.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """A cache of compiled programs for this process; as environment variables, for others too."""
    settings = {**CACHE, "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled"))}
    before = {name: getattr(jax.config, name) for name in settings}
    _set(jax.config.update, settings)
    yield {name.upper(): str(value) for name, value in settings.items()}
    _set(jax.config.update, before)


def _set(update: Callable[[str, object], None], settings: Mapping[str, object]) -> None:
    for name, value in settings.items():
        update(name, value)
    compilation_cache.reset_cache()  # it looks at the settings once
