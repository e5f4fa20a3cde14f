"""Pages that a process keeps, in processes of their own: what is set holds for good."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

STEPS = """
import json, resource, sys
import jax, jax.numpy as jnp
from kdjax.runtime import memory

kept = memory.configure_malloc() if sys.argv[1] == "kept" else False
step = jax.jit(lambda x: (x @ x.T @ x).sum())  # 72 MB in between
x = jnp.ones((4243, 8))
for _ in range(2):
    step(x).block_until_ready()
found = []
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(json.dumps([kept, jax.config.read("jax_cpu_enable_async_dispatch"), sorted(found)[2]]))
"""
PAGES = 4243 * 4243 * 4 // os.sysconf("SC_PAGE_SIZE") // 2
"""Half of what a step needs in between."""


def faults(how: str, **environment: str) -> tuple[bool, bool, int]:
    """Return whether memory is said to be kept, whether JAX has threads of its own for steps, and
    the median page faults of a step."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if "MALLOC" not in name and "XLA_FLAGS" not in name
    }
    ended = subprocess.run(
        [sys.executable, "-c", STEPS, how],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    keeps_pages, own_threads, count = json.loads(ended.stdout)
    return keeps_pages, own_threads, count


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives pages back")
def test_configured_malloc_keeps_pages_between_steps() -> None:
    keeps_pages, own_threads, count = faults("kept")
    assert keeps_pages
    assert not own_threads
    assert count < PAGES / 20
    assert faults("given back")[2] > PAGES  # else nothing is shown


def test_malloc_settings_of_the_environment_are_left_alone() -> None:
    keeps_pages, own_threads, _ = faults("kept", MALLOC_MMAP_THRESHOLD_="1000000")
    assert not keeps_pages
    assert own_threads
