"""Programs are compiled once."""

from tests.study.conftest import compiled_once

__all__ = ["compiled_once"]
