"""What studies in tests share: a command line is run in this process."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdjax.cli.main import main


@dataclass(frozen=True)
class Ended:
    """A command's exit status, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """Return the one line on what is wrong: the last, after those of the command's stages."""
        *stages, line = self.err.splitlines()
        assert line.startswith("kdjax: "), self.err
        assert not any(stage.startswith("kdjax: ") for stage in stages), self.err
        return line


def kdjax(*words: str | Path) -> Ended:
    """Run a command line in this process."""
    out = io.StringIO()
    err = io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return Ended(ended.value.code, out.getvalue(), err.getvalue())
