"""The entry point of `kdjax`: runs a command, and turns its errors into exit statuses."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from kdjax.cli import command_line
from kdjax.cli.command import Command, Options
from kdjax.errors import InputError, NoHandles, Stopped
from kdjax.parallel.preemption import INTERRUPTED, PREEMPTION
from kdjax.runtime import process_logging, standard_streams
from kdjax.runtime.clock import CLOCK

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How the system says that a disk is full, or a quota or a limit on files used up."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit.

    0: done. 2: bad input, or no room on the disk. 75: told to stop by SIGTERM. 130: interrupted by
    SIGINT. Each but the first with one line that says it; after 75 and 130 the same command goes
    on. A second SIGINT ends the process at once. 1: a bug, with a traceback.

    A reader of the output that goes away early changes nothing. Output that cannot be written is
    one line, and 2 where it is all that the command makes.

    Args:
        arguments: the words after `kdjax`; None: those of this process.
    """
    with standard_streams.protect_streams() as streams:
        writes_files = False
        status: Any = 0
        # Help and the version end within, too, with the status 0.
        try:
            writes_files = _run(arguments)
        except SystemExit as ended:
            status = ended.code
        failure = streams.output_failure()
        if failure is not None:
            process_logging.warn(
                f"standard output: cannot be written ({failure.strerror}), expected a place for "
                "what is printed"
            )
            if not writes_files:
                status = status or 2
    sys.exit(status)


def _run(arguments: Sequence[str] | None) -> bool:
    """Run a command; exit where it does not come to its end.

    Args:
        arguments: the words after `kdjax`; None: those of this process.

    Returns:
        Whether the command writes files, beside which what it prints is nothing new.
    """
    begun = CLOCK.mark()
    # Fewer lines from XLA's and TensorFlow's C++ logs; errors stay.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    process_logging.claim_logging()
    # Whatever ends a command early is one line here, and an exit status; a bug is a traceback.
    try:
        with PREEMPTION.handlers():
            command, options = command_line.read(sys.argv[1:] if arguments is None else arguments)
            options.begun = begun
            if command.check_first is not None and not _is_distributed():
                command.check_first(options)
            if not command.needs_jax or _set_up(command, options):
                command.run(options)
    except Stopped as e:
        process_logging.warn(str(e))
        sys.exit(INTERRUPTED if PREEMPTION.interrupted else e.STATUS)
    except NoHandles as e:
        process_logging.warn(str(e))
        # Threads that wait for a handle would keep the process for ever.
        _exit_now(2, at_once=True)
    except InputError as e:
        process_logging.warn(str(e))
        _exit_now(2)
    except OSError as e:
        if e.errno not in NO_ROOM:
            raise
        file = f"{e.filename}: " if e.filename else ""
        process_logging.warn(f"{file}{e.strerror}; make room, and the same command goes on")
        _exit_now(2)
    except KeyboardInterrupt:
        process_logging.warn("interrupted; the same command goes on from the last checkpoint")
        _exit_now(INTERRUPTED)
    except Exception as e:
        if not _peer_lost(e):
            raise
        process_logging.warn(
            f"another process is gone, or the way to it ({' '.join(str(e).split())[:200]}); the "
            "same command on all hosts goes on from the last checkpoint"
        )
        _exit_now(Stopped.STATUS)
    return hasattr(options, "out")


def _is_distributed() -> bool:
    """Return whether this process is one of several."""
    return bool(os.environ.get("KDJAX_DISTRIBUTED"))


def _set_up(command: Command, options: Options) -> bool:
    """Set up memory, other processes and the compilation cache; return whether to run the command.

    Args:
        command: command to run.
        options: arguments of the command; its output directory becomes this process's own.
    """
    # Work that takes long begins with this; what only prints is done soon.
    if "jax" not in sys.modules and hasattr(options, "out"):
        process_logging.note("loading JAX")
    from kdjax.runtime import memory
    from kdjax.storage import compiled_programs

    # Before JAX first uses a device.
    memory.configure_malloc()
    if _is_distributed():
        from kdjax.parallel import hosts

        # A command that is not written for several processes runs on the first one only.
        hosts.start()
        if command.multiprocess:
            options.out = hosts.process_dir(options.out)
        elif not hosts.is_main_process():
            return False
    compiled_programs.enable_compilation_cache()
    return True


def _peer_lost(error: Exception) -> bool:
    """Return whether an error is that another process is gone."""
    if not _is_distributed():
        return False
    from kdjax.parallel import hosts

    return hosts.peer_lost(error)


def _exit_now(status: int, *, at_once: bool = False) -> NoReturn:
    """Exit with a status, without waiting for other processes.

    Where there are others, Python's usual end would wait for them, which wait for this one.

    Args:
        status: the exit status.
        at_once: whether not to wait for this process's own threads either.
    """
    if at_once or _is_distributed():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
