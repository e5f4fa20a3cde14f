"""A run's checkpoints: whole or not there; a damaged one is found out, named, and the one before is
taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.errors import InputError
from kdjax.training.checkpoints.orbax_noise import abandoned_reads
from kdjax.training.checkpoints.storage import (
    CheckpointStorage,
    Restored,
    Unsaved,
)
from kdjax.training.params_file import save_params
from tests.support.limits import files_of_at_most

Change = Callable[[Path], object]


def mesh(*shape: int) -> Mesh:
    axes = ("data", "fsdp", "tensor")[: len(shape)]
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, axes, (AxisType.Auto,) * len(shape), devices=devices)


ONE = NamedSharding(mesh(1), PartitionSpec())


def state(step: int = 0, sharding: NamedSharding = ONE) -> Any:
    """Make a state whose arrays are large enough to have a file of their own."""
    rng = np.random.default_rng(step)
    arrays = {
        "kernel": rng.normal(size=(48, 40)).astype(np.float32),
        "bias": rng.normal(size=64).astype(np.float32),
    }
    return jax.device_put(
        {"params": arrays, "step": np.int32(step)},
        {"params": sharding, "step": replicated(sharding)},
    )


def replicated(sharding: NamedSharding) -> NamedSharding:
    return NamedSharding(sharding.mesh, PartitionSpec())


def like(sharding: NamedSharding = ONE) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0, sharding)
    )


def ledger(steps: int) -> Ledger:
    return replace(Ledger.open(Budget.flops(100)), steps_by_phase=(steps,))


def saved(directory: Path, *steps: int, keep: int = 2) -> None:
    with CheckpointStorage(directory, keep) as checkpoints:
        for step in steps:
            checkpoints.save(state(step), ledger(step), {"ledger.jsonl": f"{step}\n"})


def restored(directory: Path, like: Any) -> Restored | None:
    with CheckpointStorage(directory) as checkpoints:
        return checkpoints.restore(like)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def same(actual: Any, expected: Any) -> bool:
    return bool(
        jax.tree.all(
            jax.tree.map(lambda a, b: (np.asarray(a) == np.asarray(b)).all(), actual, expected)
        )
    )


def test_restore_returns_newest_with_ledger_and_records_and_keeps_as_many_as_asked(
    tmp_path: Path,
) -> None:
    saved(tmp_path, 3, 5, 8, 13, keep=3)
    # Older ones are deleted as newer ones become whole.
    assert names(tmp_path) == {"5", "8", "13"}
    resumed = restored(tmp_path, like())
    assert resumed is not None
    assert same(resumed.state, state(13))
    assert resumed.ledger == ledger(13)
    assert resumed.records == {"ledger.jsonl": "13\n"}
    assert resumed.damaged == []


def test_restore_without_checkpoints_returns_none(tmp_path: Path) -> None:
    assert restored(tmp_path / "none", like()) is None
    assert not (tmp_path / "none").exists()


def test_save_of_donated_state_stores_its_values(tmp_path: Path) -> None:
    use_up = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0)
    # The arrays are used up while the checkpoint is being written.
    with CheckpointStorage(tmp_path) as checkpoints:
        now = state(1)
        checkpoints.save(now, ledger(1))
        jax.block_until_ready(use_up(now))
    resumed = restored(tmp_path, like())
    assert resumed is not None
    assert same(resumed.state, state(1))


@pytest.mark.parametrize("after", [(8,), (2, 4), (2, 2, 2)])
def test_restore_to_another_mesh_keeps_values(tmp_path: Path, after: tuple[int, ...]) -> None:
    saved(tmp_path, 1)
    laid_out = NamedSharding(mesh(*after), PartitionSpec(mesh(*after).axis_names))
    resumed = restored(tmp_path, like(laid_out))
    assert resumed is not None
    assert same(resumed.state, state(1))
    # It comes back as the new mesh lays it out.
    assert resumed.state["params"]["kernel"].sharding == laid_out


def in_half(data: Path) -> None:
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])


def a_bit_flipped(data: Path) -> None:
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


def arrays(checkpoint: Path) -> Path:
    """Find the file with the arrays' content."""
    # Nothing else in a checkpoint is as large.
    return max(
        (path for path in checkpoint.rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )


DAMAGE: dict[str, tuple[Callable[[Path], Path], Change, str]] = {
    "a bit of an array flipped": (
        arrays,
        a_bit_flipped,
        r"the content of \['params'\]\['kernel'\] does not match",
    ),
    "arrays truncated": (arrays, in_half, r'"params.\w+/c/0'),
    "arrays gone": (arrays, Path.unlink, r'"params.\w+/c/0'),
    "account truncated": (
        lambda c: c / "_CHECKPOINT_METADATA",
        in_half,
        "its account does not match its SHA-256",
    ),
    "account altered": (
        lambda c: c / "_CHECKPOINT_METADATA",
        lambda p: p.write_text(p.read_text().replace('"phases": [2]', '"phases": [3]')),
        "its account does not match its SHA-256",
    ),
    "shapes truncated": (lambda c: c / "state" / "_METADATA", in_half, "JSONDecodeError"),
    "index truncated": (
        lambda c: c / "state" / "manifest.ocdbt",
        in_half,
        r'2/state/manifest.ocdbt": Error decoding',
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_restore_past_damaged_checkpoint_names_it_and_takes_one_before(
    tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    where, damage, complaint = DAMAGE[how]
    saved(tmp_path, 1, 2)
    # The newest checkpoint is damaged, and the one before is taken.
    damage(where(tmp_path / "2"))
    resumed = restored(tmp_path, like())
    assert resumed is not None
    assert same(resumed.state, state(1))
    assert resumed.ledger == ledger(1)
    # The user is told which, why, and where it is now.
    (line,) = resumed.damaged
    assert line.startswith(f"{tmp_path / '2'} is damaged (")
    assert line.endswith("; it is now 2.damaged")
    assert re.search(complaint, line)
    # It is kept aside: its name is free for the same step.
    assert names(tmp_path) == {"1", "2.damaged"}
    saved(tmp_path, 2)  # the same step again
    assert names(tmp_path) == {"1", "2", "2.damaged"}
    assert "Traceback" not in capfd.readouterr().err


def test_restore_of_damaged_checkpoints_alone_names_each_and_touches_none(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    # With none left to fall back to, nothing is renamed: the user may still save something.
    for step in "12":
        a_bit_flipped(arrays(tmp_path / step))
    with pytest.raises(
        InputError,
        match=r"found damaged ones alone \(2: the content .*; 1: the content .*move the dir",
    ):
        restored(tmp_path, like())
    assert names(tmp_path) == {"1", "2"}


def test_restore_of_another_model_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    # The same tree with arrays of another width.
    wider = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*x.shape[:-1], 7), x.dtype, sharding=ONE), like()["params"]
    )
    with pytest.raises(InputError, match="expected a whole checkpoint"):
        restored(tmp_path, {**like(), "params": wider})


def test_failed_restore_leaves_no_coroutines(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    wider = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*x.shape[:-1], 7), x.dtype, sharding=ONE), like()["params"]
    )
    with CheckpointStorage(tmp_path) as checkpoints:
        with pytest.raises(InputError):
            checkpoints.restore({**like(), "params": wider})
        # Reads that were abandoned would warn when Python collects them.
        assert abandoned_reads() == []


def test_failed_save_leaves_earlier_checkpoints_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with CheckpointStorage(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step), ledger(step))
        # Two checkpoints are whole before the disk is full.
        checkpoints.wait()
        with (
            files_of_at_most(512),
            pytest.raises(Unsaved, match=r"3 could not be written \(File too large\)"),
        ):
            checkpoints.save(state(3), ledger(3))
            checkpoints.wait()
        # The failed save left the one before as it was.
        resumed = restored(tmp_path, like())
        assert resumed is not None
        assert same(resumed.state, state(2))
        assert resumed.damaged == []
        # Once there is room, saving goes on.
        checkpoints.save(state(3), ledger(3))
    assert names(tmp_path) == {"2", "3"}
    assert not capfd.readouterr().err


def test_save_params_on_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        files_of_at_most(512),
        pytest.raises(InputError, match=r"params.safetensors: cannot be written \(File too large"),
    ):
        save_params(tmp_path / "params.safetensors", {"kernel": np.zeros(4096, np.float32)})
    # No half-written file is left.
    assert names(tmp_path) == set()
