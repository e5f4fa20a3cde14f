"""A rehearsal runs the whole path, and says what it ran."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kdjax.config import (
    ArmConfig,
    BudgetConfig,
    Config,
    EvaluationConfig,
    MlmProbeConfig,
    ModelSpec,
    differences,
    plain,
    to_dict,
)
from kdjax.errors import InputError
from kdjax.progress import Reporter
from kdjax.rehearsal.commands import Commands
from kdjax.rehearsal.rehearse import lines_of, rehearse
from tests.study.conftest import kdjax

pytestmark = pytest.mark.system

CONFIG = Config(
    data=replace(Config().data, mask_copies=2),
    student=ModelSpec(size="1x64"),
    teacher=replace(Config().teacher, source="teacher", architecture=ModelSpec(size="2x64")),
    arms={
        "scratch": ArmConfig(),
        "cached": ArmConfig(preset="logit", teacher="cached"),
    },
    budget=BudgetConfig(flops=1e18),
    seeds=(7,),
    evaluation=EvaluationConfig(
        mlm_probe=MlmProbeConfig(tokens=1e6),
        suite="glue",
        glue="glue",
        suite_tasks=("rte",),
        protocols=("probe",),
    ),
)


class InThisProcess(Commands):
    """Runs commands without starting a process for each; nothing is killed."""

    def run(self, *words: str | Path) -> None:
        self.ran.append(" ".join(str(word) for word in words))
        ended = kdjax(*words)
        assert ended.status == 0, ended.err

    def kill_at_checkpoint(self, watched: Sequence[Path], *words: str | Path) -> bool:
        self.run(*words)
        return False


@pytest.mark.usefixtures("one_device")
def test_rehearsal_takes_the_whole_path_and_says_what_it_ran_and_scaled(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Reporter() as reporter:
        rehearsed = rehearse(CONFIG, out, reporter, InThisProcess)
    names = [command.split()[0] for command in rehearsed.commands]
    assert names == ["prepare", "train", "compare", "audit", "train"]
    # Each arm took twelve steps or more, though stored outputs are paid for, and not many more.
    steps = {run["arm"]: run["steps"] for run in rehearsed.results["runs"]}
    assert steps.keys() == {"scratch", "cached"}
    assert 12 <= min(steps.values()) <= max(steps.values()) < 60
    assert rehearsed.is_same
    assert (out / "study" / "report.html").is_file()
    lines = lines_of(CONFIG, rehearsed)
    assert "  seeds" not in " ".join(lines)
    assert "  train.batch_size: 256 -> 8" in lines
    assert any(line.startswith("measured: mlm_loss; mlm_probe; probe on rte") for line in lines)


def test_differences_name_each_setting_that_changed_and_no_other() -> None:
    changed = replace(CONFIG, seeds=(7, 8), budget=BudgetConfig(flops=1e6))
    assert list(differences(plain(to_dict(CONFIG)), plain(to_dict(changed)))) == [
        ("budget.flops", 1e18, 1e6),
        ("seeds", [7], [7, 8]),
    ]


def test_directory_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="is not empty, expected a new or empty directory"):
        rehearse(CONFIG, tmp_path, Reporter())


class Children(Commands):
    """Starts small programs in the place of commands."""

    program = ""

    def _start(self, words: Sequence[str | Path]) -> tuple[subprocess.Popen[bytes], Path]:
        errors = self.logs / "errors"
        self.logs.mkdir(exist_ok=True)
        self.ran.append("kdjax train")
        with errors.open("wb") as err:
            return subprocess.Popen([sys.executable, "-c", self.program], stderr=err), errors


def test_command_is_killed_once_a_checkpoint_is_whole(tmp_path: Path) -> None:
    children = Children(tmp_path / "logs", 1)
    checkpoint = tmp_path / "study" / "runs" / "scratch-seed0" / "checkpoints" / "3"
    children.program = f"""
import pathlib, time
place = pathlib.Path({str(checkpoint)!r})
place.mkdir(parents=True)
(place / "commit_success.txt").write_text("")
time.sleep(600)
"""
    assert children.kill_at_checkpoint([tmp_path / "study"], "train")


def test_command_that_ends_first_was_not_killed_and_one_that_fails_is_named(
    tmp_path: Path,
) -> None:
    children = Children(tmp_path / "logs", 1)
    children.program = ""
    assert not children.kill_at_checkpoint([tmp_path / "study"], "train")
    children.program = "import sys; sys.exit('kdjax: arms is empty')"
    with pytest.raises(InputError, match="kdjax train: ended with 1: arms is empty"):
        children.run("train")


@pytest.mark.exhaustive
def test_command_line_rehearses_by_processes_with_a_kill(tmp_path: Path) -> None:
    from kdjax import recipes

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipes.dump(CONFIG), encoding="utf-8")
    ended = kdjax("rehearse", recipe, "--out", tmp_path / "out", "--price-per-chip-hour", "v5e=2")
    assert ended.status == 0, ended.err
    assert "scratch-seed7 was killed at a checkpoint and went on: its parameters" in ended.out
    assert "at 2 a chip-hour" in ended.out
