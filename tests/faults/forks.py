"""A process that has imported kdjax, and makes processes that run its command from itself: each
starts in no time.

`python -m tests.faults.forks` reads requests, one a line, as JSON. One with `words` starts a
command, which has the variables of `environment` besides, and is answered with the new process's
number. One with `wait` is answered with the exit status of that process (the signal that ended it,
negative) once it has ended.
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
from typing import Any


class Forks:
    """The process that starts others, seen from outside. A context manager: leaving it ends the
    process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._last = 0

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(
        self, words: Sequence[str], errors: Path, environment: Mapping[str, str] | None = None
    ) -> int:
        """Start `kdjax WORDS` and return its process's number.

        Args:
            words: of the command line.
            errors: file for its error output.
            environment: variables that it has besides the server's.
        """
        request = {"words": words, "errors": str(errors), "environment": dict(environment or {})}
        self._last = int(self._ask(request))
        return self._last

    def wait(self, process: int | None = None) -> int:
        """Wait for a process, the one that was started last unless another is named, and return its
        exit status."""
        return int(self._ask({"wait": process or self._last}))

    def _ask(self, request: Mapping[str, Any]) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def run(words: Sequence[str], errors: str, environment: Mapping[str, str]) -> None:
    """Run the command to its end, in the new process."""
    from kdjax.cli.main import main as kdjax

    os.environ.update(environment)
    status = 1
    try:
        descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        kdjax(words)
    except SystemExit as e:
        status = int(e.code or 0)
        leave_together()
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


def leave_together() -> None:
    """Wait for the other processes of a command, as the end of an interpreter does and `os._exit`
    does not."""
    import jax

    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def main() -> None:
    from markupsafe import Markup

    import kdjax.study.compare
    import kdjax.training.records.tensorboard  # noqa: F401
    from kdjax import recipes
    from kdjax.budget import hardware
    from kdjax.parallel import hosts
    from kdjax.report import svg
    from tests.support import prices

    hosts.HEARTBEAT = 15  # seconds: tests wait for a death to be noticed
    hardware.fastest_matmul = lambda device: 1e11  # measuring it takes each process half a second
    svg.render = lambda figure, name, description: Markup()  # so does drawing, and nobody looks
    prices.keep()
    # Built here, all processes have it.
    recipes.parser()

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        number = os.fork()
        if not number:
            run(**request)
        print(number, flush=True)


def ended(process: int) -> bool:
    """Return whether a process that nobody has waited for yet is no more."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


if __name__ == "__main__":
    main()
