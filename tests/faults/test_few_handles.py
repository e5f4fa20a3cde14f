"""A process that may open few files ends with one line, although its threads wait for a handle."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import small_study

pytestmark = [pytest.mark.system, pytest.mark.exhaustive]


@pytest.mark.parametrize("handles", [16, 24, 32])
def test_study_with_few_file_handles_ends_with_one_line(tmp_path: Path, handles: int) -> None:
    recipe = small_study.write(
        tmp_path, arms={"scratch": {}}, seeds=[0], evaluation={"mlm_sequences": 16}
    )
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "kdjax", "compare", recipe, "--out", tmp_path / "out"),
            *("--train.checkpoint.seconds", "0"),
        ],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (handles, handles)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    last_line = ended.stderr.splitlines()[-1]
    assert "could not be written (Too many open files), expected a higher limit" in last_line
    assert "Traceback" not in ended.stderr
