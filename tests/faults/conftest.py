"""Faults: limits on files, and a bucket on this machine."""

from __future__ import annotations

import logging
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.faults import runs
from tests.study.conftest import compiled_once

__all__ = ["compiled_once"]


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run without a fault."""
    directory = tmp_path_factory.mktemp("straight")
    runs.straight(directory)
    return directory


@contextmanager
def _limited(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """A limit on files, set by the system: a write that would make one larger does a part of it and then fails."""
    return _limited


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """gs:// with a server of this machine behind it that speaks Google Cloud Storage's protocol."""
    from gcp_storage_emulator.server import create_server

    for name in ("gcsfs", "gcp_storage_emulator"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            environment.setenv(name, f"http://localhost:{port}")
        yield "gs://bucket"
    server.stop()
