"""A place in a bucket that two processes want, by the real client and a server on this machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kdjax.errors import InUse
from kdjax.storage import leases, locks
from kdjax.storage.leases import GcsObjects, GenerationChanged

HOLDER = """
import sys, time
from kdjax.storage import locks
with locks.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_process_is_refused_until_the_lease_of_the_killed_first_one_lapses(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{bucket}/leased"
    words = [sys.executable, "-c", HOLDER, place]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with (
            pytest.raises(InUse, match=rf"{place}: process {process.pid} on host .* since 20"),
            locks.hold(place),
        ):
            pass
        with pytest.raises(InUse), locks.hold(place, "1-of-2"):
            pass
        process.kill()
    with pytest.raises(InUse, match=r"if it was killed, this place is free in \d+ s"):
        leases.check_free(place, ".lock")
    monkeypatch.setattr(leases, "LIFETIME_SECONDS", 0.0)
    with locks.hold(place):
        found = GcsObjects(place).read(".lock")
        assert found is not None and found.content["process"] == os.getpid()
    assert GcsObjects(place).names("") == []


def test_write_that_names_another_generation_changes_nothing(bucket: str) -> None:
    objects = GcsObjects(f"{bucket}/written")
    first = objects.write(".lock", {"n": 1}, 0)
    with pytest.raises(GenerationChanged):
        objects.write(".lock", {"n": 2}, 0)
    second = objects.write(".lock", {"n": 3}, first)
    with pytest.raises(GenerationChanged):
        objects.write(".lock", {"n": 4}, first)
    with pytest.raises(GenerationChanged):
        objects.delete(".lock", first)
    found = objects.read(".lock")
    assert found is not None and found.content == {"n": 3} and found.age < 60
    objects.delete(".lock", second)
    assert objects.read(".lock") is None
