"""One run: it spends to the budget, and an interruption changes nothing."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from kdjax import models
from kdjax.config import TrainConfig
from kdjax.errors import InputError
from kdjax.parallel.mesh import make_mesh
from kdjax.train.loop import Leg, Outcome, Progress, train
from kdjax.train.program import Program
from tests import tiny

STEPS = 6
CONFIG = TrainConfig(batch=8, checkpoint_seconds=0.0, log_every=1, evaluations=3)


class Interrupted(Exception):
    pass


@functools.cache
def compiled(learning_rate: float) -> Program:
    """The logit arm with dropout."""
    student = dataclasses.replace(tiny.STUDENT, dropout=0.1)
    phase = tiny.phase("logit", student, learning_rate=learning_rate)
    return tiny.program(phase, STEPS, make_mesh(jax.devices()[:1]))


def run(directory: Path, stop_at: int | None = None, learning_rate: float = 1e-2) -> Outcome:
    """A run, optionally interrupted after a step."""
    program = compiled(learning_rate)
    cost = program.stretch.price

    def watch(progress: Progress) -> None:
        if progress.ledger.steps == stop_at:
            raise Interrupted

    return train(
        [Leg(program, tiny.Batches(), program.place_teacher(models.init(tiny.TEACHER, 9).params))],
        STEPS * cost.total + cost.total // 2,
        start=models.init(program.phase.student, 0).params,
        seed=0,
        config=CONFIG,
        directory=directory,
        evaluate=lambda params: {"mlm_loss": float(np.sum(params["mlm"]["bias"]))},
        watch=watch,
    )


def test_spends_to_the_budget_and_logs_the_curve(tmp_path: Path) -> None:
    outcome = run(tmp_path)
    assert outcome.ledger.steps == STEPS
    assert 0 <= outcome.ledger.remaining < outcome.ledger.total / STEPS
    assert [point["step"] for point in outcome.curve] == [2, 4, 6]
    assert outcome.curve[-1]["flops"] == outcome.ledger.total
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    assert {"mlm", "logit", "grad_norm"} <= lines[0].keys()


@pytest.mark.parametrize("stop_at", [1, 3, 4, STEPS])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, stop_at: int) -> None:
    straight = run(tmp_path / "straight")
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", stop_at)
    resumed = run(tmp_path / "broken")
    assert resumed.params_sha256 == straight.params_sha256
    assert resumed.ledger.spent == straight.ledger.spent
    assert (resumed.ledger.tokens, resumed.ledger.unique_tokens) == (
        straight.ledger.tokens,
        straight.ledger.unique_tokens,
    )
    assert resumed.curve == straight.curve
    read = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("straight", "broken")]
    assert read[0] == read[1]


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    again = run(tmp_path, stop_at=1)  # would raise if any step were taken
    assert again.params_sha256 == first.params_sha256


def test_a_relative_directory_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Interrupted):
        run(Path("run"), stop_at=5)
    assert run(Path("run")).ledger.steps == STEPS


def test_unique_tokens_stop_growing_once_the_corpus_repeats(tmp_path: Path) -> None:
    outcome = run(tmp_path)  # 6 steps of 8 sequences; the corpus has 40
    counts = [tiny.batch(step)["valid"].sum() for step in range(STEPS)]
    assert outcome.ledger.tokens == sum(counts)
    assert outcome.ledger.unique_tokens == sum(counts[:5])


def test_no_checkpoint_holds_the_teacher(tmp_path: Path) -> None:
    run(tmp_path)
    checkpoint = max((tmp_path / "checkpoints").iterdir(), key=lambda p: int(p.name))
    shapes = json.loads((checkpoint / "state" / "_METADATA").read_text())["tree_metadata"]
    stored = {tuple(leaf["value_metadata"].get("write_shape", ())) for leaf in shapes.values()}
    assert (tiny.VOCABULARY, tiny.STUDENT.width) in stored
    assert (tiny.VOCABULARY, tiny.TEACHER.width) not in stored


def test_a_loss_that_is_not_finite_stops_the_run_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the loss is nan at step \d+, expected a finite one"):
        run(tmp_path, learning_rate=1e30)


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, stop_at=5)
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda p: int(p.name))
    data = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    whole = data.read_bytes()
    half = len(whole) // 2
    data.write_bytes(
        whole[:half] if damage == "truncated" else whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]
    )
    with pytest.raises(InputError, match=f"checkpoints/{newest.name}: expected a whole checkpoint"):
        run(tmp_path)
