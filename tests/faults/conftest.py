"""Faults: limits on files, and a bucket on this machine."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.faults import runs
from tests.faults.studies import Machine
from tests.support import limits, small_study


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run without a fault."""
    directory = tmp_path_factory.mktemp("straight")
    runs.straight(directory)
    return directory


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Machine]:
    recipe = small_study.write(
        tmp_path_factory.mktemp("recipe"),
        arms={"scratch": {}},
        seeds=[0],
        budget={"flops": 2.0e7},
        train={
            "batch_size": 8,
            "log": {"every": 1},
            "evaluations": 3,
            "optimizer": {"learning_rate": 1.0e-2},
            # Passed in the first step, and in the last ones
            "checkpoint": {"keep_at_words": [10, 600]},
        },
        evaluation={"mlm_sequences": 16, "tasks": {}},
    )
    return lambda: Machine(recipe, tmp_path_factory.mktemp("machine") / "out")


@pytest.fixture(scope="session")
def straight_study(machine: Callable[[], Machine]) -> dict[str, Any]:
    undisturbed = machine()
    assert undisturbed.compare().status == 0
    return undisturbed.result()


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """A limit on files, set by the system: a write that would make one larger does a part of it and
    then fails."""
    return limits.files_of_at_most


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """A gs:// bucket whose server, on this machine, speaks Google Cloud Storage's protocol."""
    from gcp_storage_emulator.server import create_server

    for name in ("gcsfs", "gcp_storage_emulator"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    _refuse_stale_writes()
    server = create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            environment.setenv(name, f"http://localhost:{port}")
        yield "gs://bucket"
    server.stop()


def _refuse_stale_writes() -> None:
    """Have the emulator do as Cloud Storage does with writes that name a generation.

    A write, or a deletion, of an object that is of another generation is answered with 412.
    """
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import objects
    from gcp_storage_emulator.server import DELETE, HANDLERS, POST

    def checked(handle: Callable[..., Any]) -> Callable[..., Any]:
        def check(request: Any, response: Any, storage: Any, *words: Any, **parameters: Any) -> Any:
            (expected,) = request.query.get("ifGenerationMatch") or (None,)
            name = request.params.get("object_id") or (request.query.get("name") or [""])[0]
            if expected is not None and name:
                try:
                    there = storage.get_file_obj(request.params["bucket_name"], name)["generation"]
                except NotFound:
                    there = "0"
                if there != expected:
                    response.status = HTTPStatus.PRECONDITION_FAILED
                    return None
            return handle(request, response, storage, *words, **parameters)

        return check

    for _, methods in HANDLERS:
        for method, handle in ((POST, objects.insert), (DELETE, objects.delete)):
            if methods.get(method) is handle:
                methods[method] = checked(handle)
