"""Examples in docstrings, run as they stand."""

from __future__ import annotations

import doctest
from collections.abc import Mapping
from typing import Any


def check_example(documented: Any, names: Mapping[str, Any]) -> None:
    """Run the example in a docstring, and compare what it prints.

    Args:
        documented: a function or a class; without an example it fails.
        names: what the example takes for granted.
    """
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=False)
    (test,) = finder.find(documented, documented.__name__, globs=dict(names))
    assert test.examples
    # Tables are centred, and of them an example shows the ends.
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    said: list[str] = []
    outcome = doctest.DocTestRunner(verbose=False, optionflags=flags).run(test, out=said.append)
    assert outcome.failed == 0, "".join(said)
