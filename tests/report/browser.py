"""A headless browser for tests: Playwright with the system's Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

HOW = (
    "install Chromium (apt-get install chromium) and the extra `page` (pip install 'kdjax[page]'); "
    "KDJAX_CHROMIUM names a browser elsewhere"
)
REQUIRED = "KDJAX_TEST_PAGE"
"""Set by `make test-page`: without a browser its tests fail then, and are not skipped."""
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str | None:
    """Return the path of a browser; None where there is none."""
    named = os.environ.get("KDJAX_CHROMIUM")
    paths = [named] if named else [shutil.which(name) for name in _NAMES]
    return next((path for path in paths if path), None)


def unavailable(reason: str) -> None:
    """Skip, or fail where a browser is required."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason}: {HOW}")
    pytest.skip(f"{reason}: {HOW}")


@contextmanager
def browser() -> Iterator[Any]:
    """Start a browser."""
    path = chromium()
    if path is None:
        unavailable("no browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("no Playwright")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        try:
            yield started
        finally:
            started.close()
