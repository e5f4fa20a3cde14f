"""Lines name their process where several run as one."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

from kdjax.progress import Reporter
from kdjax.runtime import process_logging

ROOT = Path(__file__).parents[2]

PROCESS = """
import json, sys
from kdjax.runtime import process_logging
process_logging.claim_logging()
import jax, logging, warnings
before = process_logging.prefix()
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from kdjax.progress import Reporter
with Reporter() as reporter:
    reporter.log("all is well")
    reporter.warn("all is not well")
logging.getLogger("orbax").warning("of a library")
warnings.warn("of Python")
process_logging.warn("the end")
print(json.dumps(before))
"""


def test_two_processes_prefix_lines_and_only_the_main_one_logs_progress() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(number)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in processes]
    for number, (out, err) in enumerate(ended):
        assert processes[number].returncode == 0, err
        # Before they have met, nobody asks JAX: they could not meet if its devices had been
        # started.
        assert json.loads(out) == ""
        named = [line for line in err.splitlines() if line.startswith(f"[{number}/2] ")]
        expected = [
            "kdjax: all is not well",
            "orbax: of a library",
            "UserWarning: of Python",
            "kdjax: the end",
        ]
        for text in ["all is well", *expected] if number == 0 else expected:
            assert any(text in line for line in named), (text, err)
        assert ("all is well" in err) == (number == 0)


@pytest.fixture
def third_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: 3)
    monkeypatch.setattr(jax, "process_count", lambda: 8)


def printed(act: object) -> str:
    assert callable(act)
    with contextlib.redirect_stderr(io.StringIO()) as err:
        act()
    return err.getvalue()


def tell() -> None:
    with Reporter() as reporter:
        reporter.log("said")
        reporter.status("shown")
        reporter.warn("warned")


@pytest.mark.usefixtures("third_of_eight")
def test_other_process_prints_only_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdjax.progress.INTERVAL", 0.0)
    assert printed(tell) == "[3/8] kdjax: warned\n"


def test_single_process_prints_without_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdjax.progress.INTERVAL", 0.0)
    assert printed(tell) == "said\nshown\nkdjax: warned\n"


@pytest.mark.usefixtures("third_of_eight")
def test_library_logging_gets_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    process_logging.claim_logging()
    try:
        assert printed(lambda: logging.getLogger("orbax").warning("odd")) == "[3/8] orbax: odd\n"
        assert printed(lambda: logging.getLogger("orbax").info("fine")) == ""
    finally:
        logging.captureWarnings(False)


def test_logging_set_up_before_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = logging.StreamHandler()
    monkeypatch.setattr(logging.root, "handlers", [theirs])
    process_logging.claim_logging()
    assert logging.root.handlers == [theirs]
