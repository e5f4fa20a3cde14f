"""A process that has imported kdjax, and makes processes that run its command from itself: each starts in no time.

`python -m tests.faults.forks` reads a command line a line, as JSON, and answers with the new process's number; an empty
line waits for it and answers with its exit status (the signal that ended it, negative).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType


class Forks:
    """The process, from outside. A context manager: leaving it ends the process."""

    def __init__(self, environment: Mapping[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(self, words: Sequence[str], errors: Path) -> int:
        """Starts `kdjax WORDS` with its error output in a file; its number."""
        return int(self._ask(json.dumps([*words, str(errors)])))

    def wait(self) -> int:
        """The exit status of the process that was started last."""
        return int(self._ask(""))

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def run(words: Sequence[str], errors: str) -> None:
    """In the new process: the command, to its end."""
    from kdjax import cli

    status = 1
    try:
        descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        cli.main(words)
    except SystemExit as e:
        status = int(e.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    import kdjax.study.compare
    import kdjax.train.tensorboard  # noqa: F401
    from kdjax.budget import hardware

    hardware._fastest_matmul = lambda device: 1e11  # measuring it takes each process half a second

    number = 0
    for line in sys.stdin:
        if line.strip():
            *words, errors = json.loads(line)
            number = os.fork()
            if not number:
                run(words, errors)
            print(number, flush=True)
        else:
            print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
