"""GLUE from end to end: all nine tasks by every protocol, from files to results, page and
terminal; killed while it fine-tunes, and made in parts."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kdjax.cli.main import main
from kdjax.config.suites import SUITES, result_names
from kdjax.data.tasks.suite import suite_mean
from kdjax.evaluation.finetuning import by_protocol
from kdjax.report.score_tables import ScoreTable
from kdjax.report.study_page import html
from kdjax.report.task_tables import tables
from kdjax.report.terminal import summary
from kdjax.results.runs import finetuned_task
from kdjax.results.store import read_results
from kdjax.results.study import Results
from kdjax.study.runs import runner
from tests.study.conftest import kdjax
from tests.support import glue, small_study

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]

PROTOCOLS = ("probe", "fixed", "grid", "few_shot")
TRIALS = {"fixed": 1, "grid": 2, "few_shot": 2}
"""Trials of a task by each protocol that fine-tunes."""
RESULTS = result_names("glue", ())
ROWS = 8
"""Rows of a dev split."""
PER_MODEL = sum(TRIALS.values()) * len(SUITES["glue"])
RUNS = 2
STARTS = 1
STEPS = 2
BATCH = 8


@dataclass
class Trainings:
    """Counts the trials that are trained, and may stop in the middle of one.

    Attributes:
        names: task's files and trial of each, in the order in which they were begun.
        stop_after: number of trials after which the next one is interrupted; None: none is.
    """

    names: list[str]
    stop_after: int | None = None

    def counted(self, train: Callable[..., Any]) -> Callable[..., Any]:
        """Return the training function, counted."""

        def train_counted(*args: Any) -> Any:
            specs = args[4]
            saved = args[6]
            if self.stop_after is not None and len(self.names) >= self.stop_after:
                raise KeyboardInterrupt
            self.names += [f"{saved.directory}/{spec.name}" for spec in specs]
            return train(*args)

        return train_counted


@pytest.fixture(scope="module")
def trainings() -> Any:
    counter = Trainings([])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_protocol, "train_lanes", counter.counted(by_protocol.train_lanes))
        yield counter


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("recipe")
    files = glue.write_official(here / "glue", train=30, dev=ROWS)
    # Steps of all protocols have batches of one size, so that few programs are compiled.
    few_shot = {"examples": BATCH, "draws": TRIALS["few_shot"], "steps": STEPS}
    return small_study.write(
        here,
        **small_study.shallow(here, head=True),
        arms={"scratch": {}, "minilm": {}},
        budget={"tokens": 3 * 8 * 16},
        seeds=[0],
        train={"batch_size": 8, "evaluations": 1},
        evaluation={
            "mlm_sequences": 8,
            "suite": "glue",
            "glue": str(files),
            "selection": 0.3,
            # And rows one length.
            "seq_len": 8,
            "protocols": list(PROTOCOLS),
            "probe": {"examples": 20, "strengths": [1.0]},
            "finetune": {
                "steps": STEPS,
                "batch_size": BATCH,
                "learning_rates": [1e-3, 1e-2],
                "batch_sizes": [BATCH],
                "epoch_counts": [1],
                "few_shot": few_shot,
            },
            "primary": "grid.glue",
        },
    )


@pytest.fixture(scope="module")
def study(recipe: Path, trainings: Trainings) -> Path:
    out = recipe.parent / "whole"
    ended = kdjax("compare", recipe, "--out", out)
    assert ended.status == 0, ended.err
    return out


@pytest.fixture(scope="module")
def results(study: Path) -> Results:
    return read_results(study / "results.json")


@pytest.fixture(scope="module")
def suite_tables(results: Results) -> dict[str, ScoreTable]:
    return dict(zip(PROTOCOLS, tables(results), strict=True))


def test_every_task_has_an_endpoint_of_each_protocol_and_the_suite_its_mean(
    results: Results,
) -> None:
    names = [endpoint.name for endpoint in results.endpoints]
    expected = itertools.product(PROTOCOLS, (*RESULTS, "glue"))
    assert names == ["mlm_loss", *(f"{protocol}.{name}" for protocol, name in expected)]


def test_mean_of_the_suite_is_that_of_its_scores(results: Results) -> None:
    for run in results.runs:
        for protocol in PROTOCOLS:
            scores = {name: run.metrics[f"{protocol}.{name}"] for name in RESULTS}
            assert run.metrics[f"{protocol}.glue"] == suite_mean("glue", scores)


def test_each_protocol_has_its_trials(results: Results) -> None:
    for run, (protocol, trials) in itertools.product(results.runs, TRIALS.items()):
        for task in SUITES["glue"]:
            finetuned = finetuned_task(run, f"{protocol}.{task.name}")
            assert finetuned is not None
            assert len(finetuned.trials) == trials


def test_untrained_starts_are_fine_tuned_and_the_teacher_is_probed_alone(results: Results) -> None:
    by_name = {(row.name, row.seed): row.metrics for row in results.references}
    assert "few_shot.glue" in by_name["untrained start", 0]
    assert "probe.glue" in by_name["teacher", None]
    assert "fixed.glue" not in by_name["teacher", None]


def test_primary_endpoint_may_be_the_mean_of_the_suite(results: Results) -> None:
    assert results.primary == "grid.glue"
    (tested,) = [row for row in results.verdicts if row.family == "confirmatory"]
    assert (tested.endpoint, {tested.a, tested.b}) == ("grid.glue", {"scratch", "minilm"})


def test_finished_study_is_audited_without_a_difference(study: Path) -> None:
    ended = kdjax("audit", study)
    assert ended.status == 0, ended.out + ended.err


def test_tables_have_the_mean_every_result_and_every_model(
    suite_tables: dict[str, ScoreTable],
) -> None:
    for protocol, table in suite_tables.items():
        names = [column.endpoint for column in table.columns]
        assert names == [f"{protocol}.{name}" for name in ("glue", *RESULTS)]
        assert list(table.arms) == ["scratch", "minilm"]
    assert list(suite_tables["probe"].references) == ["untrained start", "teacher"]
    assert list(suite_tables["grid"].references) == ["untrained start"]


def test_failed_fine_tunings_are_counted_in_cells_and_below_the_table(
    results: Results, suite_tables: dict[str, ScoreTable]
) -> None:
    failed = 0
    table = suite_tables["few_shot"]
    runs = [run for run in results.runs if run.arm == "scratch"]
    for number, column in enumerate(table.columns[1:], start=1):
        task = column.endpoint.replace("mnli-mm", "mnli")
        of_task = 0
        for run in runs:
            finetuned = finetuned_task(run, task)
            assert finetuned is not None
            of_task += finetuned.failed
        of_trials = len(runs) * TRIALS["few_shot"]
        shown = f"{of_task} of {of_trials} failed" in table.arms["scratch"][number].notes
        assert shown == (of_task > 0)
        failed += of_task
    # After so few steps most are no better than the majority class.
    assert failed > 0
    trials = RUNS * len(SUITES["glue"]) * TRIALS["few_shot"]
    assert any(f"Fine-tunings of all runs: {trials}" in remark for remark in table.remarks)


def test_page_and_terminal_name_each_protocol_and_task(
    results: Results, suite_tables: dict[str, ScoreTable]
) -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(summary(results))
    # A caption may take several lines.
    printed = " ".join(console.file.getvalue().split())
    page = html(results)
    for table in suite_tables.values():
        assert table.caption in page
        assert table.caption in printed
    for title in ("GLUE mean", "CoLA", "STS-B", "MNLI-mm", "WNLI"):
        assert title in page
        assert title in printed


@pytest.mark.exhaustive
def test_study_killed_in_fine_tuning_and_made_in_parts_ends_with_the_same_results(
    recipe: Path, study: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [recipe.parent / f"part-{number}" for number in (1, 2)]
    merged = recipe.parent / "merged"
    trainings.names.clear()

    # The first part is interrupted on the way through the tasks of its first model.
    trainings.stop_after = 11
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        main(["train", str(recipe), "--out", str(parts[0]), "--part", "1/2"])
    assert len(trainings.names) == trainings.stop_after
    trainings.stop_after = None
    for number, part in enumerate(parts, start=1):
        ended = kdjax("train", recipe, "--out", part, "--part", f"{number}/2")
        assert ended.status == 0, ended.err
    assert kdjax("merge", *parts, "--out", merged).status == 0

    def no_training(*_: object) -> None:
        pytest.fail("a finished run was trained again")

    monkeypatch.setattr(runner, "train", no_training)
    ended = kdjax("compare", recipe, "--out", merged)
    assert ended.status == 0, ended.err

    # Each trial was trained once.
    assert len(trainings.names) == (RUNS + STARTS) * PER_MODEL
    assert len(set(trainings.names)) == len(trainings.names)
    assert scored(merged) == scored(study)


def scored(out: Path) -> dict[str, Any]:
    """Return what a study's results say of its models, whatever time they took."""
    content = json.loads((out / "results.json").read_text())
    runs: Sequence[dict[str, Any]] = content["runs"]
    names = ("arm", "seed", "metrics", "details", "params_sha256")
    rows = [{name: run[name] for name in names} for run in runs]
    judged = {name: content[name] for name in ("verdicts", "references", "primary", "endpoints")}
    return {"runs": rows, **judged}
