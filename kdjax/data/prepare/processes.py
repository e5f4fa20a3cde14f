"""A function over many jobs, in several processes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from kdjax.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")

AHEAD = 2
"""Jobs taken before there is a worker for them, at most."""


def run(function: Callable[[Job], Result], jobs: Iterator[Job], workers: int) -> Iterator[Result]:
    """Yield the results of all jobs, in any order.

    One job alone, or one worker, needs no other process and gets none.

    Args:
        function: function that does a job; it is sent to the workers.
        jobs: taken one by one, so that few are held.
        workers: number of processes.

    Raises:
        InputError: a process ended early.
    """
    # Two jobs are taken to see whether there is more than one.
    first = list(itertools.islice(jobs, 2))
    jobs = itertools.chain(first, jobs)
    if workers == 1 or len(first) < 2:
        yield from map(function, jobs)
        return
    # Spawned, not forked: the caller may run JAX, whose threads do not survive a fork.
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start
    )
    running: set[Future[Result]] = set()
    try:
        for job in jobs:
            # Full: the next job has to wait until a worker is free.
            if len(running) == workers + AHEAD:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            running.add(pool.submit(function, job))
        yield from (future.result() for future in as_completed(running))
    except BrokenProcessPool:
        raise InputError(
            f"one of {workers} preparing processes ended early: a script calls prepare with "
            "several workers outside `if __name__ == '__main__':`, or memory ran out (fewer "
            "data.workers or smaller data.shard_documents need less); what is finished is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    """Make a worker leave Ctrl-C to its parent, keep to one core, and end with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent ends, also where the parent is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
