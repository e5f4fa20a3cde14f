"""A disk that is full: nothing that was saved is lost, and once there is room the run ends as if
nothing had been."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from kdjax.budget import journal
from kdjax.errors import InputError
from kdjax.training.checkpoints import retry
from tests.faults import runs

pytestmark = pytest.mark.system

Limit = Callable[[int], AbstractContextManager[None]]

WARNING = re.compile(
    r"(?P<run>.*?)(/checkpoints/(?P<failed>\d+) could not| cannot) be written \(File too large\); "
    r"the run goes on without a checkpoint of step (?P<step>\d+), for 3600 s at most"
)


def check_warning(line: str, directory: Path) -> None:
    """Assert that a line is the whole warning, and names the step of the checkpoint that failed."""
    warning = WARNING.fullmatch(line)
    assert warning, line
    assert warning["run"] == str(directory)
    assert warning["failed"] in (None, warning["step"])


def test_run_on_full_disk_continues_without_checkpoints_and_ends_the_same(
    tmp_path: Path, straight: Path, files_of_at_most: Limit
) -> None:
    """No file may grow beyond 700 bytes in steps 2 and 3: neither arrays, nor metrics, nor the
    ledger."""
    warnings: list[str] = []
    with ExitStack() as full:

        def watch(step: int) -> None:
            if step == 2:
                full.enter_context(files_of_at_most(700))
            elif step == 4:
                full.close()

        outcome = runs.run(tmp_path, watch, warnings.append)
    assert warnings
    for line in warnings:
        check_warning(line, tmp_path)
    runs.check_same(outcome, tmp_path, straight)


def test_run_without_patience_stops_on_full_disk_and_resumes(
    tmp_path: Path, straight: Path, files_of_at_most: Limit
) -> None:
    with ExitStack() as full:

        def watch(step: int) -> None:
            if step == 3:
                full.enter_context(files_of_at_most(700))

        with pytest.raises(
            InputError, match=r"File too large.*expected room for it; the same command goes on"
        ):
            runs.run(tmp_path, watch, patience=0.0)
    runs.check_same(runs.run(tmp_path), tmp_path, straight)


def test_last_checkpoint_is_retried_until_there_is_room(
    tmp_path: Path, straight: Path, files_of_at_most: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    warnings: list[str] = []
    with ExitStack() as full:

        def watch(step: int) -> None:
            if step == runs.STEPS:
                full.enter_context(files_of_at_most(700))

        def wait(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 8:
                full.close()  # meanwhile somebody made room

        monkeypatch.setattr(retry.PREEMPTION, "wait", wait)
        outcome = runs.run(tmp_path, watch, warnings.append)
    assert waited == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert warnings
    for line in warnings:
        check_warning(line, tmp_path)
    # The last one is of the last step, whose records found no room.
    assert warnings[-1].startswith(f"{tmp_path} cannot be written")
    assert "a checkpoint of step 6," in warnings[-1]
    runs.check_same(outcome, tmp_path, straight)


def test_journal_entry_cut_short_by_full_disk_is_removed(
    tmp_path: Path, files_of_at_most: Limit
) -> None:
    ledger = runs.run(tmp_path).ledger
    path = tmp_path / "ledger.jsonl"
    before = path.read_bytes()
    opened = journal.Journal(path)
    with files_of_at_most(len(before) + 40), pytest.raises(OSError, match="File too large") as full:
        opened.add("steps", ledger)
    assert full.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    # With room again, the entry is added whole.
    opened.add("steps", ledger)
    assert len(journal.read(path)) == len(opened.entries)


FULL = """
    from pathlib import Path
    from kdjax.storage import compiled_programs
    from kdjax.errors import InputError
    from tests.support import prices
    from tests.faults import runs
    compiled_programs.enable_compilation_cache()
    prices.keep()
    disk = Path("{disk}")
    def fill(step: int) -> None:
        if step == 3:
            with (disk / "filling").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
    try:
        runs.run(disk / "run", fill, patience=0.0)
    except InputError as e:
        print("said:", e)
    (disk / "filling").unlink()
    outcome = runs.run(disk / "run")
    runs.check_same(outcome, disk / "run", Path("{straight}"))
    print("the same")
"""


@pytest.mark.exhaustive
def test_run_on_a_full_file_system_stops_and_resumes(tmp_path: Path) -> None:
    """The file system has 2 MiB, and is mounted where only this test's process sees it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    script = f'mount -t tmpfs -o size=2m none "{disk}"; exec "$@"'
    if subprocess.run([*mount, script, "-", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    program = textwrap.dedent(FULL.format(disk=disk, straight=tmp_path / "straight"))
    ended = subprocess.run(
        [*mount, script, "-", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "could not be written (No space left on device), expected room for it" in ended.stdout, (
        ended.stdout
    )
    assert ended.stdout.endswith("the same\n")
    assert "Traceback" not in ended.stderr
