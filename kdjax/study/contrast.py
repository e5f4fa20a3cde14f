"""`kdjax contrast A B`: differences of differences between two finished studies, printed."""

from __future__ import annotations

import json
from pathlib import Path

from kdjax.errors import InputError
from kdjax.progress import Reporter
from kdjax.report import gaps
from kdjax.report.phrases import listed, say
from kdjax.results.gaps import GapChange
from kdjax.results.store import RESULTS, read_results
from kdjax.results.study import Results
from kdjax.storage.typed_json import to_plain
from kdjax.study.judgement.gaps import contrast_studies, differing_settings


def contrast_command(
    first: Path, second: Path, *, as_json: bool = False, reporter: Reporter | None = None
) -> tuple[GapChange, ...]:
    """Print how the gaps of arms to the baseline arm differ between two studies.

    Args:
        first: directory of one study.
        second: directory of the other.
        as_json: whether to print the tests as JSON, and nothing else.
        reporter: receiver of reports on progress; None: there is none.

    Returns:
        The tests, endpoint by endpoint.

    Raises:
        InputError: a directory holds no results that can be read, or the studies have no baseline
            arm or no endpoint in common.
    """
    names = _names(first, second)
    studies = []
    for directory in (first, second):
        if reporter is not None:
            reporter.stage(f"reading {directory / RESULTS}")
        studies.append(_results(directory))
    if reporter is not None:
        reporter.stage("testing how the gaps differ")
    changes = contrast_studies(studies[0], studies[1], names)
    if as_json:
        print(json.dumps(to_plain(changes), indent=1))
        return changes
    settings = differing_settings(studies[0], studies[1])
    print(say("gap_heading", first=names[0], second=names[1], settings=listed(settings) or "none"))
    endpoints = {endpoint.name: endpoint for endpoint in studies[0].endpoints}
    for change in changes:
        print(gaps.sentence(change, endpoints[change.endpoint]))
    return changes


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Return names of the two studies: their directories' names, where these differ."""
    if first.name != second.name:
        return first.name, second.name
    return str(first), str(second)


def _results(directory: Path) -> Results:
    """Read a finished study's results.

    Raises:
        InputError: there are none, or they cannot be read.
    """
    path = directory / RESULTS
    if not path.exists():
        raise InputError(f"{directory}: holds no {RESULTS}, expected a finished study")
    return read_results(path)
