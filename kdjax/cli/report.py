"""`kdjax report`: write a page again, with its figures and tables as files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from kdjax.cli.command import Command, Options, path_argument
from kdjax.errors import InputError

SECONDS = 5.0
"""Seconds between two looks for new results."""
Stamp = tuple[str, int, int]
"""A file, when it was last written, and its size."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add DIR, --out and --watch."""
    parser.add_argument(
        "directories",
        type=path_argument("DIR"),
        nargs="+",
        metavar="DIR",
        help="of a study, a sweep or a plan; several: of the parts of one study",
    )
    # Only what several directories are merged into: the page of one lies in it.
    parser.add_argument(
        "--out",
        type=path_argument("--out"),
        metavar="DIR",
        help="directory of the whole study, where parts are given",
    )
    parser.add_argument(
        "--watch", action="store_true", help="write it again whenever there are new results"
    )


def run(options: Options) -> None:
    """Write the page; with --watch until the command is interrupted.

    Raises:
        InputError: several directories without --out, or nothing to make a page of.
    """
    from kdjax.parallel.preemption import PREEMPTION

    directories: Sequence[Path] = options.directories
    if len(directories) > 1 and options.out is None:
        raise InputError("--out is missing, expected a directory for the parts together")
    out = options.out or directories[0]
    before: list[Stamp] | None = None
    while True:
        now = _stamps(directories)
        if now != before:
            _report(_write(directories, out))
            before = now
        if not options.watch:
            return
        PREEMPTION.wait(SECONDS)


def _write(directories: Sequence[Path], out: Path) -> list[Path]:
    """Write the page of a study, a sweep or a plan."""
    from kdjax.plan import report as plan_report
    from kdjax.plan.schema import PLAN, Plan
    from kdjax.report.files import write_page
    from kdjax.storage.typed_json import read_typed
    from kdjax.study.rewritten_page import write_parts_page, write_study_page
    from kdjax.sweep import report as sweep_report
    from kdjax.sweep.schema import SWEEP, read_sweep

    if out != directories[0] or len(directories) > 1:
        return write_parts_page(directories, out)
    if (out / SWEEP).exists():
        sweep = read_sweep(out / SWEEP)
        return write_page(lambda: sweep_report.html(sweep), out / "sweep.html")
    if (out / PLAN).exists():
        plan = read_typed(Plan, out / PLAN)
        return write_page(lambda: plan_report.html(plan), out / "plan.html")
    return write_study_page(out)


def _report(files: Sequence[Path]) -> None:
    """Print where the page is, and how many files lie beside it."""
    from kdjax.report.files import DIRECTORY

    page, *others = files
    beside = page.parent / DIRECTORY
    print(f"report: {page}, and {len(others)} files of figures and tables in {beside}", flush=True)


def _stamps(directories: Sequence[Path]) -> list[Stamp]:
    """Return the files that pages are made from, as they are now."""
    from kdjax.plan.schema import PLAN
    from kdjax.results.store import RESULTS
    from kdjax.sweep.schema import SWEEP

    stamps = []
    for directory in directories:
        paths = [directory / name for name in (RESULTS, SWEEP, PLAN)]
        for path in [*paths, *sorted(directory.glob("runs/*/result.json"))]:
            # What is replaced just now is there again at the next look.
            try:
                status = path.stat()
            except OSError:
                continue
            stamps.append((str(path), status.st_mtime_ns, status.st_size))
    return stamps


COMMAND = Command(
    "report",
    "Write the page of a study, a sweep or a plan again, its figures as SVG and PNG, its tables as "
    "CSV, Markdown and LaTeX.",
    run,
    usage="DIR ... [--out DIR] [--watch]",
    add_arguments=add_arguments,
    settings=None,
)
