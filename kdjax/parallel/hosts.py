"""Several processes, one to a host, that run as one: starting together, and agreeing on what each
sees in its own way.

Every process runs the same command and computes the same; the first, the lead, writes what counts.
What a process sees alone (a clock, a file, a signal) decides nothing until all have agreed on it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kdjax.config import first_difference
from kdjax.errors import InputError

VARIABLE = "KDJAX_DISTRIBUTED"
"""1: join the other processes as the cloud's or cluster's environment says. HOST:PORT,COUNT,NUMBER:
join the COUNT processes, of which this is the NUMBER-th from 0, at the lead's address. Empty or not
set: this process is alone."""
HEARTBEAT = 60
"""Seconds after which a process that is silent counts as dead, and all others end."""
_CHUNK = 1024
_GONE = re.compile(
    r"gloo|connection|peer|unavailable|deadline|heartbeat|task|slice|barrier", re.IGNORECASE
)
"""What the errors of transports have in common."""


def start() -> None:
    """Joins the other processes, if `VARIABLE` says so; before any device is asked for.

    Raises:
        InputError: the variable has no such form, or the others cannot be reached.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return
    where: dict[str, Any] = {}
    if text != "1":
        try:
            address, count, number = text.split(",")
            where = {
                "coordinator_address": address,
                "num_processes": int(count),
                "process_id": int(number),
            }
        except ValueError:
            raise InputError(
                f"{VARIABLE} is {text!r}, expected 1 or HOST:PORT,COUNT,NUMBER"
            ) from None
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours
    try:
        jax.distributed.initialize(**where, heartbeat_timeout_seconds=HEARTBEAT)
    except (RuntimeError, ValueError) as e:
        reason = " ".join(str(e).split())[:300]
        raise InputError(
            f"{VARIABLE} is {text!r}: the other processes cannot be joined ({reason})"
        ) from None


def peer_lost(error: BaseException | None) -> bool:
    """Whether an error comes from the devices of a process that is no longer there, as far as can
    be told."""
    while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
        error = error.__cause__ or error.__context__
    return error is not None and jax.distributed.is_initialized() and bool(_GONE.search(str(error)))


def is_multiprocess() -> bool:
    """Whether there are other processes."""
    return int(jax.process_count()) > 1


def is_main_process() -> bool:
    """Whether this process writes what counts."""
    return jax.process_index() == 0


def serialize_on_cpu(results: Any) -> None:
    """Waits for results where devices are emulated: with several processes, two programs that both
    wait for other devices may each hold the threads that the other needs. Real devices take
    programs one after another."""
    if is_multiprocess() and jax.default_backend() == "cpu":
        jax.block_until_ready(results)


def broadcast_from_main(value: Any) -> Any:
    """The lead's value, on every process; all call this at the same point.

    Args:
        value: anything JSON can hold. What the others have is not looked at.
    """
    if not is_multiprocess():
        return value
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    # Few lengths: each is a program of its own
    room = np.zeros(-(-size // _CHUNK) * _CHUNK, np.uint8)
    if is_main_process():
        room[:size] = content
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(room))[:size]).decode())


def all_processes(flag: bool) -> bool:
    """Whether it holds on every process; all call this at the same point."""
    return (
        bool(np.all(multihost_utils.process_allgather(np.int32(flag))))
        if is_multiprocess()
        else flag
    )


def check_same(what: Mapping[str, Any]) -> None:
    """Raises InputError, on every process, where they differ in something.

    Args:
        what: name -> value, anything JSON can hold.
    """
    difference = first_difference(broadcast_from_main(what), json.loads(json.dumps(what)))
    if not all_processes(difference is None):
        found = "on another host"
        if difference:
            name, first, here = difference
            found = f"{name} is {here!r}, on the first host {first!r}"
        raise InputError(
            f"hosts differ: {found}; expected the same recipe, data and software on all"
        )


def process_dir(directory: Path) -> Path:
    """Where this process writes what the lead writes to `directory`: that, or a hidden one beside
    it."""
    return (
        directory
        if is_main_process()
        else directory.with_name(f".{directory.name}.process-{jax.process_index()}")
    )


def shared_dir(directory: Any) -> Any:
    """The lead's name for a path below an `process_dir` directory: where all processes write
    together."""
    parts = [re.sub(r"^\.(.+)\.process-\d+(.*)$", r"\1\2", part) for part in directory.parts]
    return directory if tuple(parts) == directory.parts else type(directory)(*parts)


def to_host(tree: Any) -> Any:
    """Arrays that lie on the devices of all hosts, on this host, as NumPy has them; all call this
    at the same point."""
    return (
        multihost_utils.process_allgather(tree, tiled=True)
        if is_multiprocess()
        else jax.device_get(tree)
    )
