"""Tests that run PyTorch beside kdjax. Only `make test-parity` runs them: the other environments
have no PyTorch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.models.conftest import batch_of, config_with, scrambled

__all__ = ["batch_of", "config_with", "scrambled"]

HERE = Path(__file__).parent

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.parity)
