"""No terminal, pipe or disk that output goes to ends a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdjax.storage.files import read_json, write_json

PROGRAM = """
import sys
from pathlib import Path
from kdjax.runtime import standard_streams

with standard_streams.protect_streams() as streams:
    print("mean −1 ± 2 ↑ é \\udce9")
    print("mean −1 ± 2 ↑ é \\udce9", file=sys.stderr)
    for _ in range(20_000):
        print("a line of many")
    failure = streams.output_failure()
    Path(sys.argv[1]).write_text(str(failure and failure.errno))
"""
"""Prints what a terminal may not show, then more than a pipe holds, then ends its work."""


def run(command: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell command in which `$PROGRAM` is the program, and return what came of it."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    words = f"{sys.executable} {program} {tmp_path / 'done'}"
    root = Path(__file__).parents[2]
    env = {**os.environ, "PROGRAM": words, "PYTHONPATH": str(root), **environment}
    return subprocess.run(["bash", "-c", command], env=env, capture_output=True, check=False)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LANG": "C", "LC_ALL": "", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "utf-8"},
    ],
)
def test_what_a_terminal_cannot_show_is_replaced(
    environment: dict[str, str], tmp_path: Path
) -> None:
    ended = run("$PROGRAM", tmp_path, **environment)
    assert ended.returncode == 0
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    line = ended.stderr.decode(encoding).splitlines()[0]
    assert ended.stdout.decode(encoding).splitlines()[0] == line
    # A number keeps its sign; what has nothing like it is a question mark.
    assert line in {
        "mean -1 +/- 2 ^ ? ?",
        "mean -1 ± 2 ^ é ?",
        "mean −1 ± 2 ↑ é ?",
    }
    assert (tmp_path / "done").read_text() == "None"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("redirection", ["", "2>&1"])
def test_closed_pipe_is_quiet_and_the_work_is_done(
    unbuffered: str, redirection: str, tmp_path: Path
) -> None:
    command = f"$PROGRAM {redirection} | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    ended = run(command, tmp_path, PYTHONUNBUFFERED=unbuffered, PYTHONIOENCODING="utf-8")
    assert ended.returncode == 0
    # Of standard error nothing but the program's own line.
    assert len(ended.stderr.splitlines()) == (not redirection)
    assert (tmp_path / "done").read_text() == "None"


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", ">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_output_that_cannot_be_written_is_known_at_the_end(
    redirection: str, tmp_path: Path
) -> None:
    ended = run(f"$PROGRAM {redirection}", tmp_path)
    assert ended.returncode == 0
    assert b"Traceback" not in ended.stderr
    # The file that was opened while output was closed holds what was meant for it alone.
    assert (tmp_path / "done").read_text().isdecimal()


@pytest.mark.parametrize(
    ("redirection", "status", "line"),
    [
        (">/dev/full", 2, "standard output: cannot be written (No space left on device)"),
        (">&-", 2, "standard output: cannot be written (Bad file descriptor)"),
        ("| head -1", 0, ""),
        ("2>&-", 0, ""),
    ],
)
def test_command_that_only_prints_says_that_it_could_not(
    redirection: str, status: int, line: str, tmp_path: Path
) -> None:
    command = f"{sys.executable} -m kdjax --help {redirection}; exit ${{PIPESTATUS[0]}}"
    ended = run(command, tmp_path)
    assert ended.returncode == status
    lines = ended.stderr.decode().splitlines()
    assert len(lines) == bool(line)
    assert all(line in said for said in lines)


def test_files_are_utf8_and_names_that_are_not_come_back(tmp_path: Path) -> None:
    # A path of a Latin-1 file system, as the command line hands it over.
    value = {"files": os.fsdecode(b"caf\xe9.txt"), "note": "±"}
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    assert "±" in (tmp_path / "file.json").read_text(encoding="utf-8")
