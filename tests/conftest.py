"""Tests see eight emulated CPU devices; single-device code uses the first.

Compiling is most of what they take, so less is optimised, and what one test or command compiled the
others read."""

import atexit
import ctypes
import gc
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jaxlib
import pytest

# How long an example takes is the machine's business.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

FLAGS = [
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    # programs are so small that splitting them costs more than it gives
    "--xla_cpu_parallel_codegen_split_count=1",
]
if tuple(map(int, jaxlib.__version__.split(".")[:2])) < (0, 11):
    # They take as long as all else in compiling; later always used
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")

os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
# Every core has a worker; a second thread for NumPy's small matrices only waits, at full load.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
# Workers and the commands that tests start read the bytecode that one of them has written, whatever
# the user's shell says: making it anew takes each of them seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers and commands have it from the first process
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="kdjax-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

MEMORY_LIMIT = 2**31
"""Bytes of memory above which a worker forgets its compiled programs after a file of tests."""
COLLECTED_EVERY = 2**29
"""Bytes by which a worker's memory grows before it looks for garbage: that takes some seconds each
time."""


memory_when_collected = 0


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs, as a command keeps them, and prices, in each process that runs tests.

    Freed memory is not kept, in a process that runs hundreds of them.
    """
    is_worker = hasattr(config, "workerinput")
    if not is_worker and config.getoption("numprocesses", None):
        config.pluginmanager.register(PeaksOfWorkers())
        return
    from kdjax.runtime import memory
    from kdjax.storage import compiled_programs
    from tests.support import prices

    compiled_programs.enable_compilation_cache()
    memory.configure_malloc = lambda: False
    # Else walks over all that JAX keeps take a tenth of the time
    gc.set_threshold(10_000, 50, 1_000_000)
    prices.keep()


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """Return the path of a tokenizer.json that no other test has."""
    from tests.support.corpora import make_tokenizer

    return make_tokenizer(tmp_path / "tokenizer" / "tokenizer.json")


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Lay figures out and draw none, where nobody looks at the pages of studies: drawing takes a
    tenth of a second each."""
    from kdjax.report import svg

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svg, "render", lambda figure, name, description: "")
        yield


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    """Show studies one device, where meshes are not looked at: programs for eight take longer to
    compile and to run."""
    import jax

    devices = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: devices)
        patch.setattr(jax, "local_devices", lambda backend=None: devices)
        yield


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Collect what files of tests left behind; what stays then stays to the end, unless memory
    grows too large."""
    global memory_when_collected  # noqa: PLW0603
    if nextitem is not None and nextitem.path == item.path:
        return
    in_use = memory_in_use()
    if nextitem is not None and in_use > MEMORY_LIMIT:
        forget_compiled_programs()
    elif in_use < memory_when_collected + COLLECTED_EVERY:
        return
    gc.collect()
    gc.freeze()
    memory_when_collected = memory_in_use()


def memory_in_use() -> int:
    """Return this process's resident memory in bytes; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def forget_compiled_programs() -> None:
    """Drop every compiled program of this process and give the memory back; the compilation cache
    on disk has them."""
    import jax

    gc.unfreeze()
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory() -> dict[str, float]:
    """Return the largest memory so far of this process (`own`) and of any child process (`child`),
    in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = {"own": resource.RUSAGE_SELF, "child": resource.RUSAGE_CHILDREN}
    return {name: unit * resource.getrusage(who).ru_maxrss / 1e9 for name, who in peaks.items()}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send a worker's peak memory to the process that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak_memory"] = peak_memory()


class PeaksOfWorkers:
    """Print how much memory each worker took at its peak."""

    def __init__(self) -> None:
        self._peaks: dict[str, dict[str, float]] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Keep what a worker sent at its end."""
        output = getattr(node, "workeroutput", {})
        if "peak_memory" in output:
            self._peaks[node.gateway.id] = output["peak_memory"]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print one line a worker."""
        for worker, peak in sorted(self._peaks.items()):
            terminalreporter.write_line(
                f"{worker}: at most {peak['own']:.2f} GB of memory, a process it started "
                f"{peak['child']:.2f} GB"
            )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files whose tests are all marked `system` first, then those of training: they take
    longest, and no worker is left with one at the end."""
    # A file with other tests stays whole where it was: its fixtures are made once.
    short_files = {item.path for item in items if item.get_closest_marker("system") is None}

    def place(item: pytest.Item) -> int:
        if item.path not in short_files:
            return 0
        return 1 if "training" in item.path.parts else 2

    # The sort is stable, so that tests of a file stay in their order.
    items.sort(key=place)
