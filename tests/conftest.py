"""Tests see eight emulated CPU devices; single-device code uses the first.

Compiling is most of what they take, so less is optimised, and what one test or command compiled the others read."""

import atexit
import gc
import os
import shutil
import tempfile

import jaxlib
import pytest

FLAGS = [
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
]
if tuple(map(int, jaxlib.__version__.split(".")[:2])) < (0, 11):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # they take as long as all else in compiling; later always used

os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers and commands have it from the first process
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="kdjax-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def pytest_configure() -> None:
    """Compiled programs are kept, as a command keeps them; memory is not, in a process that runs hundreds of tests."""
    from kdjax import compiled, memory

    compiled.keep()
    memory.keep_freed = lambda: False
    gc.set_threshold(10_000, 50, 1_000_000)  # else walks over all that JAX keeps take a tenth of the time


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """What a file of tests left behind is collected at its end; what stays then stays to the end."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


SYSTEM = ("test_kill.py", "test_hosts.py", "faults", "test_compare.py", "test_arms.py", "test_seeds_at_once.py")
SYSTEM += ("test_budgets.py", "test_compiling.py", "test_sweep.py", "audit", "test_tune.py", "tpu_scripts")
SYSTEM += ("test_docs.py", "benchmarks", "test_compiled.py", "test_memory.py")
SYSTEM += ("test_trained_teacher.py", "test_teacher_cost.py")
"""Files and folders of tests that run whole commands, studies and processes; half of the time is theirs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of whole commands, and puts the longest files first: no worker is left with one at the end."""
    order = [*SYSTEM, "train"]
    for item in items:
        if any(part in SYSTEM for part in item.path.parts):
            item.add_marker(pytest.mark.system)
    items.sort(key=lambda item: min((n for n, part in enumerate(order) if part in item.path.parts), default=len(order)))
