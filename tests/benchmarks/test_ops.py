"""The benchmark of operations: that it finds both forms, and prints a table."""

from __future__ import annotations

import importlib

import pytest

from benchmarks.ops import REFERENCES, SINGLE, table

pytestmark = pytest.mark.system


@pytest.mark.parametrize("operation", SINGLE)
def test_single_names_two_forms_of_every_operation(operation: str) -> None:
    module_name, name = SINGLE[operation]
    module = importlib.import_module(f"kdjax.models.ops.{module_name}")
    assert getattr(module, name) is not getattr(module, REFERENCES.get(name, "reference"))


def test_table_is_markdown() -> None:
    assert table(["arm", "ratio"], {"scratch": ["1.20"]}) == (
        "| arm | ratio |\n|---|---|\n| scratch | 1.20 |"
    )
