"""Tests that compile for TPUs: slow, and with libtpu, so only `make test-tpu` runs them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.study.conftest import Ended

ROOT = Path(__file__).parents[2]
WANTED = "KDJAX_TEST_TPU"
"""Set by `make test-tpu`: without libtpu there is nothing to skip then, but something wrong."""


@pytest.fixture(scope="session")
def libtpu() -> None:
    if importlib.util.find_spec("libtpu") is None:
        because = "libtpu, which has the TPU compiler, is not installed: make test-tpu"
        pytest.fail(because) if os.environ.get(WANTED) else pytest.skip(because)


def run(*words: str | Path) -> Ended:
    """Run Python as a user does: with none of the settings by which tests compile faster."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XLA_FLAGS", "JAX_PLATFORMS")
    }
    ended = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)
