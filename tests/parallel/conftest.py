"""Programs are compiled once, also in processes that tests start."""

from tests.study.conftest import compiled_once

__all__ = ["compiled_once"]
