"""A study whose runs are spread over several directories, put together again, is the study made in
one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest

from kdjax.budget.ledger import PhaseSpan
from kdjax.budget.price import Price
from kdjax.study.parts import StudyPart
from kdjax.study.runs import runner
from tests.study.conftest import kdjax
from tests.support import small_study

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]

CHANGES: dict[str, Any] = {
    "arms": {"scratch": {}, "minilm": {}},
    "train": {"batch_size": 8, "evaluations": 1},
    "evaluation": {"mlm_sequences": 16, "tasks": {}},
}
SPENT_BY_THE_CLOCK = ("wall_clock", "hardware", "ledger_sha256")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("recipe")
    teacher = {
        "source": str(small_study.make_teacher(here / "encoder")),
        "architecture": small_study.TEACHER,
    }
    return small_study.write(here, teacher=teacher, **CHANGES)


@pytest.fixture(scope="module")
def parts(recipe: Path) -> list[Path]:
    parts = [recipe.parent / f"part-{number}" for number in (1, 2)]
    for number, part in enumerate(parts, start=1):
        ended = kdjax("train", recipe, "--out", part, "--part", f"{number}/2")
        assert ended.status == 0, ended.err
    return parts


def no_training(*args: object, **kwargs: object) -> None:
    pytest.fail("a finished run was trained again")


def rows(out: Path) -> list[dict[str, Any]]:
    """Return the runs' rows, but for what depends on the time they took."""
    runs: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["runs"]
    for run in runs:
        for name in SPENT_BY_THE_CLOCK:
            del run[name]
    return runs


def test_parts_make_disjoint_runs(parts: list[Path]) -> None:
    for seed, part in enumerate(parts):
        names = {run.name for run in (part / "runs").iterdir()}
        assert names == {f"minilm-seed{seed}", f"scratch-seed{seed}"}
    assert (parts[0] / "references").exists()
    assert not (parts[1] / "references").exists()


def test_merged_parts_equal_the_study_of_one_machine(
    recipe: Path, parts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = recipe.parent / "merged"
    whole = recipe.parent / "whole"
    ended = kdjax("merge", *parts, "--out", merged)
    assert (ended.status, ended.err) == (0, "")
    assert "4 finished runs: minilm-seed0, scratch-seed0, minilm-seed1, scratch-seed1" in ended.out
    # The same study on one machine.
    assert kdjax("compare", recipe, "--out", whole).status == 0
    with monkeypatch.context() as patch:
        patch.setattr(runner, "train", no_training)
        ended = kdjax("compare", recipe, "--out", merged)
    assert ended.status == 0, ended.err
    assert rows(merged) == rows(whole)
    # And what is judged and said of them.
    results = [json.loads((out / "results.json").read_text()) for out in (merged, whole)]
    for name in ("verdicts", "references", "corpus", "teacher", "arms", "budget"):
        assert results[0][name] == results[1][name], name
    assert (merged / "report.html").exists()
    again = kdjax("merge", *parts, "--out", merged)  # changes nothing
    assert again.status == 0
    assert rows(merged) == rows(whole)


def test_merge_skips_unfinished_runs(parts: list[Path], tmp_path: Path) -> None:
    shutil.copytree(parts[1], tmp_path / "part")
    (tmp_path / "part" / "runs" / "scratch-seed1" / "result.json").unlink()
    ended = kdjax("merge", parts[0], tmp_path / "part", "--out", tmp_path / "merged")
    assert ended.status == 0
    assert "3 finished runs" in ended.out
    left = tmp_path / "part" / "runs" / "scratch-seed1"
    assert f"left where they are, 1 unfinished runs: {left}\n" in ended.out
    assert not (tmp_path / "merged" / "runs" / "scratch-seed1").exists()


def edited(part: Path, to: Path, file: str, *keys: str, value: object) -> Path:
    """Copy a part with one value in one of its JSON files changed."""
    shutil.copytree(part, to)
    content = json.loads((to / file).read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (to / file).write_text(json.dumps(content))
    return to


MANIFEST = "runs/minilm-seed1/manifest.json"


@pytest.mark.parametrize(
    ("file", "keys", "value", "says"),
    [
        (
            "study.json",
            ("config", "train", "batch_size"),
            16,
            r"this part's train.batch_size is 16, expected 8, as in .*part-1",
        ),
        (
            "study.json",
            ("costs", "minilm", "upfront"),
            {"x": 1},
            r"this part's minilm.upfront.x is 1, expected None",
        ),
        (
            MANIFEST,
            ("corpus",),
            "0" * 64,
            r"this run's corpus is '0+', expected '.*', as in .*part-1",
        ),
        (
            MANIFEST,
            ("teacher", "source"),
            "x",
            r"this run's teacher.source is 'x', expected .*, as in .*part-1",
        ),
    ],
)
def test_merge_of_parts_of_different_studies_is_refused(
    parts: list[Path], tmp_path: Path, file: str, keys: tuple[str, ...], value: object, says: str
) -> None:
    other = edited(parts[1], tmp_path / "other", file, *keys, value=value)
    ended = kdjax("merge", parts[0], other, "--out", tmp_path / "merged")
    assert ended.status == 2
    assert re.search(says, ended.err), ended.err
    assert not (tmp_path / "merged").exists()


def test_merge_of_a_run_with_two_results_is_refused(parts: list[Path], tmp_path: Path) -> None:
    other = edited(
        parts[1], tmp_path / "other", "runs/minilm-seed1/result.json", "params_sha256", value="0"
    )
    ended = kdjax("merge", *parts, other, "--out", tmp_path / "merged")
    assert ended.status == 2
    assert "ended with other parameters than" in ended.err
    assert not (tmp_path / "merged").exists()


def test_merge_refuses_a_finished_run_that_it_would_pass_over(
    parts: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(parts[1], tmp_path / "part")
    runs = tmp_path / "part" / "runs"
    (runs / "mlm").mkdir()
    (runs / "scratch-seed1").rename(runs / "mlm" / "plain-seed1")
    ended = kdjax("merge", parts[0], tmp_path / "part", "--out", tmp_path / "merged")
    assert ended.status == 2 and ended.err.count("\n") == 1
    assert "mlm/plain-seed1/result.json: a finished run lies here" in ended.err
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("command", ["merge", "compare"])
def test_result_of_another_run_is_refused(
    recipe: Path, parts: list[Path], command: str, tmp_path: Path
) -> None:
    copies = [tmp_path / part.name for part in parts]
    for part, copied in zip(parts, copies, strict=True):
        shutil.copytree(part, copied)
    finished = sorted(path for copied in copies for path in copied.glob("runs/*/result.json"))
    shutil.copy(finished[0], finished[-1])
    if command == "merge":
        ended = kdjax("merge", *copies, "--out", tmp_path / "merged")
    else:
        ended = kdjax("train", recipe, "--out", finished[-1].parents[2], "--part", "2/2")
    assert ended.status == 2, ended.err
    *_, last = ended.err.splitlines()
    assert re.search(r"result\.json: this is the result of \w+, seed \d, expected that of", last)


def test_merge_of_a_directory_without_a_study_is_refused(parts: list[Path], tmp_path: Path) -> None:
    ended = kdjax("merge", parts[0], tmp_path, "--out", tmp_path / "merged")
    assert ended.status == 2
    assert "study.json: no such file" in ended.err
    # Nor is anything written among other files.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    ended = kdjax("merge", *parts, "--out", tmp_path / "mine")
    assert ended.status == 2
    assert "holds files but no study" in ended.err


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_malformed_part_is_refused(recipe: Path, tmp_path: Path, part: str) -> None:
    ended = kdjax("train", recipe, "--out", tmp_path / "out", f"--part={part}")
    assert ended.status == 2
    assert "expected I/N with I from 1 to N" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [[], ["--arm", "scratch"], ["--arm", "scratch", "--seed", "0", "--part", "1/2"]]
)
def test_train_without_one_run_or_a_part_is_refused(
    recipe: Path, tmp_path: Path, words: list[str]
) -> None:
    ended = kdjax("train", recipe, "--out", tmp_path / "out", *words)
    assert ended.status == 2
    assert "expected either --arm and --seed, or --part" in ended.err


def costing(flops: Mapping[str, int]) -> dict[str, tuple[PhaseSpan, ...]]:
    """Return spans of arms whose runs take so many FLOPs."""
    price = Price(1, 1, 0, 0, 0, 0, 0, 0)
    return {arm: (PhaseSpan(price, 0, cost, 128),) for arm, cost in flops.items()}


@pytest.mark.parametrize("count", range(1, 14))
def test_parts_hold_each_run_once_at_similar_cost(count: int) -> None:
    costs = {"scratch": 100, "logit": 164, "tinybert": 162, "minilm": 139}
    spans = costing(costs)
    parts = [
        StudyPart(number, count).select(spans, seeds=range(3)) for number in range(1, count + 1)
    ]
    assert sorted(chain.from_iterable(parts)) == sorted(product(costs, range(3)))
    # No part takes longer than another by more than the dearest run.
    sums = []
    for part in parts:
        sums.append(sum(costs[arm] for arm, _ in part))
    assert max(sums) - min(sums) <= max(costs.values())


def test_parts_of_equal_arms_follow_the_recipe() -> None:
    under_hours: dict[str, tuple[PhaseSpan, ...]] = {"b": (), "a": ()}
    assert StudyPart(1, 2).select(under_hours, seeds=(0, 1)) == [("b", 0), ("a", 0)]


def test_report_of_all_parts_judges_them_and_of_some_says_what_is_missing(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    ended = kdjax("report", parts[0], parts[0], "--out", whole)
    assert ended.status == 0, ended.err
    assert "2 of 4 runs finished" in (whole / "report.html").read_text()
    assert not (whole / "results.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(runner, "train", no_training)
        ended = kdjax("report", *parts, "--out", whole)
    assert ended.status == 0, ended.err
    assert len(rows(whole)) == 4
    assert "in progress" not in (whole / "report.html").read_text()
    assert (whole / "report" / "tables").exists()
