"""Several processes, one to a host, that run as one: starting together, and agreeing on what each
sees in its own way.

Every process runs the same command and computes the same; the main process writes what counts. What
a process sees alone (a clock, a file, a signal) decides nothing until all have agreed on it.
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
join the COUNT processes, of which this is the NUMBER-th from 0, at the main process's address.
Empty or not set: this process is alone."""
HEARTBEAT = 60
"""Seconds after which a process that is silent counts as dead, and all others end."""
_CHUNK = 1024
"""Bytes by which the size of what is broadcast is rounded up: each size compiles a program."""
_PEER_LOST = re.compile(
    r"gloo|connection|peer|unavailable|deadline|heartbeat|task|slice|barrier", re.IGNORECASE
)
"""What the errors of transports have in common."""


def start() -> None:
    """Join the other processes, if `VARIABLE` says so; before any device is asked for.

    Raises:
        InputError: the variable has no such form, or the others cannot be reached.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return
    peers: dict[str, Any] = {}
    if text != "1":
        try:
            address, count, number = text.split(",")
            peers = {
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
        jax.distributed.initialize(**peers, heartbeat_timeout_seconds=HEARTBEAT)
    except (RuntimeError, ValueError) as e:
        reason = " ".join(str(e).split())[:300]
        raise InputError(
            f"{VARIABLE} is {text!r}: the other processes cannot be joined ({reason})"
        ) from None


def peer_lost(error: BaseException | None) -> bool:
    """Return whether an error's message says that it comes from a process that is gone."""
    if not jax.distributed.is_initialized():
        return False
    while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
        error = error.__cause__ or error.__context__
    return error is not None and bool(_PEER_LOST.search(str(error)))


def is_multiprocess() -> bool:
    """Return whether there are other processes."""
    return int(jax.process_count()) > 1


def is_main_process() -> bool:
    """Return whether this process writes what counts."""
    return jax.process_index() == 0


def serialize_on_cpu(results: Any) -> None:
    """Wait for results where several processes run on CPUs.

    With several processes, two programs that both wait for other devices may each hold the threads
    that the other needs. Real devices take programs one after another.
    """
    if is_multiprocess() and jax.default_backend() == "cpu":
        jax.block_until_ready(results)


def broadcast_from_main(value: Any) -> Any:
    """Return the main process's value, on every process; all call this at the same point.

    Args:
        value: anything JSON can hold; what the other processes pass is not looked at.
    """
    if not is_multiprocess():
        return value
    # The size first, so that every process has room for the content.
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = np.zeros(-(-size // _CHUNK) * _CHUNK, np.uint8)
    if is_main_process():
        padded[:size] = content
    received = np.asarray(multihost_utils.broadcast_one_to_all(padded))
    return json.loads(bytes(received[:size]).decode())


def all_processes(flag: bool) -> bool:
    """Return whether a flag is set on every process; all call this at the same point."""
    if not is_multiprocess():
        return flag
    return bool(np.all(multihost_utils.process_allgather(np.int32(flag))))


def check_same(facts: Mapping[str, Any]) -> None:
    """Check that all processes hold the same facts as the main one.

    Args:
        facts: name -> value, anything JSON can hold.

    Raises:
        InputError: one of them differs; on every process.
    """
    difference = first_difference(broadcast_from_main(facts), json.loads(json.dumps(facts)))
    if all_processes(difference is None):
        return
    # A process that does not differ itself only knows that another does.
    where = "on another host"
    if difference:
        name, first, here = difference
        where = f"{name} is {here!r}, on the first host {first!r}"
    raise InputError(f"hosts differ: {where}; expected the same recipe, data and software on all")


def process_dir(directory: Path) -> Path:
    """Return this process's directory for files that the main process writes to another.

    That is the same, or a hidden one next to it.
    """
    if is_main_process():
        return directory
    return directory.with_name(f".{directory.name}.process-{jax.process_index()}")


def shared_dir(directory: Any) -> Any:
    """Return the main process's name for a path below a `process_dir`.

    All processes write to the same files there.
    """
    parts = [re.sub(r"^\.(.+)\.process-\d+(.*)$", r"\1\2", part) for part in directory.parts]
    if tuple(parts) == directory.parts:
        return directory
    return type(directory)(*parts)


def to_host(tree: Any) -> Any:
    """Copy arrays from the devices of all hosts to NumPy arrays on this one.

    All processes call this at the same point.
    """
    if is_multiprocess():
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)
