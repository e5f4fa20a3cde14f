"""The commands of a rehearsal: processes of their own, as a user would start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdjax.errors import InputError

LOOK_SECONDS = 0.005
"""Seconds between looks for a checkpoint."""
CHECKPOINT = "commit_success.txt"
"""File that a checkpoint is whole with."""


@dataclass
class Commands:
    """Runs commands of kdjax, one after another, on this machine's processor.

    Attributes:
        logs: directory of their output.
        devices: number of devices that the processor stands for.
        ran: command lines that were run, in their order.
    """

    logs: Path
    devices: int
    ran: list[str] = field(default_factory=list)

    def run(self, *words: str | Path) -> None:
        """Run a command to its end.

        Raises:
            InputError: it ended with another status than 0: its last line, and where the rest is.
        """
        process, errors = self._start(words)
        self._check(process.wait(), errors)

    def kill_at_checkpoint(self, watched: Sequence[Path], *words: str | Path) -> bool:
        """Run a command and kill it once a checkpoint is there.

        Args:
            watched: directories below which checkpoints are saved.
            words: words of the command.

        Returns:
            Whether it was killed; else it had ended before.

        Raises:
            InputError: it ended by itself with another status than 0.
        """
        process, errors = self._start(words)
        while process.poll() is None:
            if any(_has_checkpoint(directory) for directory in watched):
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(LOOK_SECONDS)
        status = process.wait()
        if status == -signal.SIGKILL:
            return True
        self._check(status, errors)
        return False

    def _start(self, words: Sequence[str | Path]) -> tuple[subprocess.Popen[bytes], Path]:
        """Start `kdjax WORDS`; return the process, and the file of its error output."""
        texts = [str(word) for word in words]
        self.logs.mkdir(parents=True, exist_ok=True)
        self.ran.append(f"kdjax {' '.join(texts)}")
        name = f"{len(self.ran)}-{texts[0]}"
        errors = self.logs / f"{name}.err"
        with (self.logs / f"{name}.out").open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "kdjax", *texts],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        return process, errors

    def _environment(self) -> dict[str, str]:
        """Return this process's variables, with as many devices of the processor as are needed."""
        flags = os.environ.get("XLA_FLAGS", "").split()
        flags = [flag for flag in flags if "host_platform_device_count" not in flag]
        flags.append(f"--xla_force_host_platform_device_count={self.devices}")
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}
        # A rehearsal is of one process, wherever it is started.
        environment.pop("KDJAX_DISTRIBUTED", None)
        return environment

    def _check(self, status: int, errors: Path) -> None:
        """Raise an InputError unless a command ended with 0."""
        if status == 0:
            return
        lines = errors.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        last = lines[-1].removeprefix("kdjax: ")
        raise InputError(f"rehearsal: {self.ran[-1]}: ended with {status}: {last} ({errors})")


def _has_checkpoint(directory: Path) -> bool:
    """Return whether a run's checkpoint is whole below a directory, while others write there."""
    for place, _, files in os.walk(directory):
        if CHECKPOINT in files and "runs" in Path(place).parts:
            return True
    return False
