"""All that `kdjax doctor` looks at, in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdjax.config import Config
from kdjax.doctor import devices, hub, machine, software
from kdjax.doctor.finding import Finding
from kdjax.doctor.recipe import recipe


def examine(config: Config | None, out: Path | None) -> Iterator[Finding]:
    """Yield the findings, one after another.

    Args:
        config: resolved recipe whose needs are looked at, too; None: none.
        out: directory that results are to be written to; None: it is not asked about.
    """
    # What everything else stands on comes first.
    yield software.python()
    required = software.requirements()
    yield from required
    yield from devices.versions()
    yield from devices.devices()
    yield from machine.machine()
    yield from machine.disks(out)
    yield machine.compilation_cache()
    yield from software.extras()
    yield from software.data_packages()
    # A recipe is read by packages that may be what is missing.
    if any(finding.state == "problem" for finding in required):
        return
    yield hub.hub()
    if config is not None:
        yield from recipe(config)
