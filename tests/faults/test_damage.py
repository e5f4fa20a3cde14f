"""Damage on the disk: a study goes on from its newest whole checkpoint and says so; text is made
again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdjax.data.corpus import Corpus
from tests.faults.studies import RUN, Machine, check_same, ended_after
from tests.study.conftest import kdjax

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn")]


def steps(directory: Path) -> list[int]:
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def in_half(checkpoint: Path) -> None:
    """Cut each file with arrays in half."""
    for path in checkpoint.glob("state/**/d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("backup", ["", "kept"])
def test_truncated_newest_checkpoint_resumes_from_the_one_before(
    machine: Callable[[], Machine], straight_study: dict[str, Any], tmp_path: Path, backup: str
) -> None:
    here = machine()
    place = str(tmp_path / backup) if backup else ""
    ended_after(here, 4, place)
    checkpoints = (Path(place) if backup else here.out) / RUN / "checkpoints"
    before, newest = steps(checkpoints)
    in_half(checkpoints / str(newest))

    ended = here.compare(place)
    assert ended.status == 0
    lines = [line for line in ended.err.splitlines() if "damaged" in line]
    assert len(lines) == 1
    assert f"{checkpoints / str(newest)} is damaged (" in lines[0]
    assert lines[0].endswith(f"it is now {newest}.damaged; going on from the one of step {before}")
    check_same(here.result(), straight_study)

    # The ledger says what was lost.
    entries = [
        json.loads(line) for line in (here.out / RUN / "ledger.jsonl").read_text().splitlines()
    ]
    restarts = [entry for entry in entries if entry["event"] == "restart"]
    (restart,) = restarts
    assert restart["ledger"]["phases"] == [before]
    assert restart["lost_steps"] > 0
    assert str(newest) in restart["damaged"][0]
    assert kdjax("audit", here.out).status == 0


def test_truncated_checkpoints_all_are_refused_until_moved_away(
    machine: Callable[[], Machine], straight_study: dict[str, Any]
) -> None:
    here = machine()
    ended_after(here, 4, "")
    checkpoints = here.out / RUN / "checkpoints"
    there = steps(checkpoints)
    for step in there:
        in_half(checkpoints / str(step))
    ended = here.compare()
    assert ended.status == 2
    assert steps(checkpoints) == there
    assert f"{checkpoints}: expected a whole checkpoint, found damaged ones alone" in ended.err
    # Without them the run begins anew.
    checkpoints.rename(here.out / "aside.old")  # as the message says
    assert here.compare().status == 0
    check_same(here.result(), straight_study)
    assert kdjax("audit", here.out).status == 0


def test_damaged_shard_is_prepared_again(
    machine: Callable[[], Machine], straight_study: dict[str, Any]
) -> None:
    """The error for a shard that is damaged while a run reads it is tested in
    tests/data/test_corpus.py."""
    here = machine()
    ended_after(here, 2, "")
    corpus = Corpus.open(here.out / "data")
    (shard,) = (here.out / "data" / "shards").glob("train-*.array_record")
    content = bytearray(shard.read_bytes())
    for tokens, segments in zip(
        *corpus.read("train", np.arange(corpus.sequences("train"))), strict=True
    ):
        place = content.find(tokens.astype("<u2").tobytes() + segments.astype("u1").tobytes())
        assert place > 0
        content[place] ^= 1
    shard.write_bytes(content)
    assert here.compare().status == 0
    check_same(here.result(), straight_study)
