"""Compiled programs are kept: the same results from them, and nothing that is wrong with them is an
error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from kdjax import models
from kdjax.parallel.layout import Layout
from kdjax.storage import compiled_programs
from kdjax.storage.compiled_programs import CacheDirectory
from kdjax.training.checksum import sha256
from kdjax.training.program import Program
from tests.study.conftest import kdjax
from tests.support import tiny
from tests.support.compilations import compilations
from tests.support.limits import files_of_at_most

pytestmark = pytest.mark.system

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache home of a user who has compiled nothing yet."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    store = compiled_programs.private_store()
    opener = getattr(store, "get_file_cache", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_MAX_SIZE", raising=False)
    # JAX may have cached something before this test.
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield tmp_path
    # Settings of the process are put back, for the tests after this one.
    if store is not None:
        store.get_file_cache = opener
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def again() -> None:
    """Forget what is in memory, as a new process would have it."""
    compilation_cache.reset_cache()
    jax.clear_caches()


def compile_and_double() -> int:
    again()
    return int(jax.jit(lambda x: 2 * x)(21))


def cached_files(home: Path) -> list[Path]:
    return [path for path in (home / "kdjax" / "compiled").glob("*/*") if path.is_file()]


def train_three_steps() -> dict[str, Any]:
    """Return what a program says of itself, and the parameters after three steps."""
    compilation_cache.reset_cache()
    # A small program: what it says of itself comes from the compiler, too.
    program = Program(
        tiny.phase(student=tiny.SHALLOW_STUDENT),
        tiny.SHAPE,
        Layout.from_config(devices=jax.devices()[:1]),
    )
    teacher = program.place_teacher(None)
    state = program.start(models.init(tiny.SHALLOW_STUDENT, 0).params, seed=0)
    for step in range(3):
        state, metrics = program.step(
            state,
            teacher,
            program.place(tiny.batch(step)),
            tiny.schedule_inputs(program.phase, step, 3),
        )
    return {
        "params": sha256(state.params),
        "loss": float(metrics["loss"]),
        "flops": program.hardware_flops,
        "memory": program.memory,
        "donated": program.text.splitlines()[0].count("alias"),
    }


def test_program_read_from_the_cache_equals_the_compiled_one(home: Path) -> None:
    without = train_three_steps()
    # Nothing is cached before it is asked for.
    assert not cached_files(home)
    compiled_programs.enable_compilation_cache()
    cold = train_three_steps()
    entries = {path: path.stat().st_ino for path in cached_files(home)}
    warm = train_three_steps()
    # Results and facts are the same: compiled without a cache, into it, and read from it.
    assert cold == warm == without
    assert entries
    # Reading does not write an entry anew.
    assert {path: path.stat().st_ino for path in cached_files(home)} == entries


@pytest.mark.parametrize("change", ["no module", "no function"])
def test_jax_without_the_private_store_caches_by_itself(
    home: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = compiled_programs.private_store()
    assert store is not None
    package, _, name = store.__name__.rpartition(".")
    without = None if change == "no module" else ModuleType(store.__name__)
    # As a version of JAX without the module, or without the function, would have it.
    monkeypatch.setitem(sys.modules, store.__name__, without)
    monkeypatch.delattr(sys.modules[package], name)
    assert compiled_programs.private_store() is None
    compiled_programs.enable_compilation_cache()
    assert compile_and_double() == 42
    entries = {path: path.read_bytes() for path in cached_files(home)}
    # JAX caches by its own means, with the same limit.
    assert entries
    assert jax.config.jax_compilation_cache_max_size == compiled_programs.LIMIT
    assert compile_and_double() == 42
    assert set(cached_files(home)) == entries.keys()


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_damaged_entry_is_compiled_again(
    home: Path, damage: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    compiled_programs.enable_compilation_cache()
    assert compile_and_double() == 42
    entries = {path: path.read_bytes() for path in cached_files(home)}
    for path, content in entries.items():
        # The right length with the end zeroed, or something too short.
        if damage is None:
            path.write_bytes(content[:-9] + bytes(9))
        else:
            path.write_bytes(damage)
    assert compile_and_double() == 42
    warnings = capfd.readouterr().err.splitlines()
    assert len(warnings) == len(entries)
    assert all("damaged; deleted and compiled again" in line for line in warnings)
    # The entries are there again, under the same names.
    assert {path: path.read_bytes() for path in cached_files(home)}.keys() == entries.keys()
    # Now it is whole.
    assert compile_and_double() == 42
    assert not capfd.readouterr().err


def test_full_disk_prints_one_warning(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiled_programs.enable_compilation_cache()
    with files_of_at_most(100):
        assert compile_and_double() == 42
    assert (
        capsys.readouterr().err.count("compiled programs are no longer kept (File too large)") == 1
    )
    assert not cached_files(home)


def test_unusable_cache_directory_prints_one_warning(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (home / "kdjax").write_text("a file")
    compiled_programs.enable_compilation_cache()
    assert compile_and_double() == 42
    assert capfd.readouterr().err.count("compiled programs are not kept") == 1


def test_cache_directory_writable_by_others_is_not_used(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (home / "kdjax" / "compiled").mkdir(parents=True)
    (home / "kdjax" / "compiled").chmod(0o777)
    compiled_programs.enable_compilation_cache()
    assert compile_and_double() == 42
    assert not cached_files(home)
    assert "is not this user's alone to write to" in capfd.readouterr().err


@pytest.mark.parametrize("former", ["", "elsewhere"])
def test_cache_directory_set_before_is_left_alone(home: Path, former: str) -> None:
    named = str(home / former) if former else ""
    jax.config.update("jax_compilation_cache_dir", named)
    # An empty name was set by somebody, and means no cache.
    compiled_programs.enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == (named or None)
    assert compile_and_double() == 42
    assert not cached_files(home)


def test_cache_size_zero_disables_the_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "0")
    jax.config.update("jax_compilation_cache_max_size", 0)
    compiled_programs.enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None


def test_full_cache_deletes_the_least_recently_used_entry(tmp_path: Path) -> None:
    """The limit counts the entries of all machines together."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here = CacheDirectory(tmp_path / "a", 3 * (100 + 32))
    there = CacheDirectory(tmp_path / "b", 3 * (100 + 32))
    # Three entries fit, of both machines together.
    there.put("0", bytes(100))
    here.put("1", bytes(100))
    here.put("2", bytes(100))
    # The one of the other machine is the oldest until it is read.
    for name in ("b/0", "a/1", "a/2"):
        os.utime(tmp_path / name, (int(name[-1]), int(name[-1])))
    assert there.get("0") == bytes(100)  # it was used now
    here.put("3", bytes(100))
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == [
        "a/2",
        "a/3",
        "b/0",
    ]
    # What exceeds the limit alone is never kept.
    here.put("too large", bytes(1000))
    assert here.get("too large") is None
    assert here.get("3") == bytes(100)


def test_compilations_are_seen_once_a_program() -> None:
    double = jax.jit(lambda x: 2 * x)
    with compilations() as first:
        double(np.float32(1))
    assert len(first) == 1
    with compilations() as second:
        double(np.float32(2))
    assert second == []


@pytest.mark.parametrize("change", ["flags", "cores"])
def test_cache_directory_differs_between_machines(
    home: Path, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: A CPU\nflags\t\t: sse avx2\n")
    monkeypatch.setattr(compiled_programs, "CPU_INFO", info)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    first = compiled_programs.cache_directory()
    assert compiled_programs.cache_directory() == first
    # A program compiled for one set of instructions may not run on another.
    if change == "flags":
        info.write_text(info.read_text().replace("avx2", "avx2 avx512f"))
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    assert compiled_programs.cache_directory() != first


def test_concurrent_processes_share_the_cache(home: Path) -> None:
    """The processes compile the same programs together, and each gets the right result."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(home)}
    script = (
        "import jax; from kdjax.storage.compiled_programs import enable_compilation_cache; "
        "enable_compilation_cache(); "
        "print(int(jax.jit(lambda x: 3 * x)(14)))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    # No process waits for another or fails.
    assert [process.communicate() for process in started] == [(b"42\n", b"")] * 3
    assert cached_files(home)
    assert all(len(path.name) > 64 for path in cached_files(home))


def test_command_caches_what_it_compiles(home: Path) -> None:
    assert kdjax("audit", home).status == 2
    assert Path(jax.config.jax_compilation_cache_dir).parent == home / "kdjax" / "compiled"
    assert compile_and_double() == 42
    assert cached_files(home)
