"""The tables of a suite: captions, cells, what stands below them."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from kdjax.config.suites import result_names
from kdjax.evaluation.finetuning import FinetunedTask, FinetuningTrial, Setting
from kdjax.report import sentences, summary, terminal
from kdjax.report.score_tables import ScoreTable, failures
from kdjax.report.task_tables import tables
from kdjax.results.runs import Details, Divergence, RunResult
from kdjax.results.study import Results
from kdjax.results.verdicts import MeasuredEndpoint, PairVerdict
from tests.report import results as made_up

SEEDS = 3
CHOSEN = Setting(1e-3, 32, 2, 100)
OTHER = Setting(1e-4, 32, 2, 100)
FINETUNE = {
    "seeds": 2,
    "learning_rates": [1e-4, 1e-3],
    "batch_sizes": [32],
    "epoch_counts": [2, 4],
    "few_shot": {"examples": 16, "draws": 5},
    "intermediate": "mnli",
}


def trial(setting: Setting, seed: int, failed: bool) -> FinetuningTrial:
    """Return a trial that failed or not."""
    return FinetuningTrial(setting, seed, None, 0.5, {}, failed, None)


def finetuned(task: str, protocol: str, failed: int, intermediate: str = "") -> FinetunedTask:
    """Return a task with two trials that are scored, of which some failed, and a third one."""
    trials = (
        trial(OTHER, 0, failed=True),
        trial(CHOSEN, 0, failed=failed > 0),
        trial(CHOSEN, 1, failed=failed > 1),
    )
    scores = {result: 0.6 for result in result_names("glue", (task,))}
    return FinetunedTask(
        task, protocol, intermediate, CHOSEN, 0.6, {}, scores, scores, trials, failed, 0
    )


def endpoint(protocol: str, result: str) -> MeasuredEndpoint:
    """Return the endpoint of a result of GLUE, or of GLUE's mean."""
    label = f"{'GLUE mean' if result == 'glue' else result}, {protocol}"
    return MeasuredEndpoint(
        f"{protocol}.{result}", label, "accuracy", "higher", protocol, ARMS, 100, 0.5
    )


ARMS = ("scratch", "logit", "tinybert", "minilm")


def details_of(arm: str, protocol: str, results: tuple[str, ...]) -> Details:
    """Return how an arm was fine-tuned: `logit` failed twice on MNLI, once on MRPC."""
    details: Details = {}
    for task in results:
        if task in ("glue", "mnli-mm"):
            continue
        failed = {"mnli": 2, "mrpc": 1}.get(task, 0) if arm == "logit" else 0
        start = "mnli" if task == "mrpc" else ""
        details[f"{protocol}.{task}"] = finetuned(task, protocol, failed, start)
    return details


def study(*protocols: str, tasks: tuple[str, ...] = (), **evaluation: Any) -> Results:
    """Make up a study of GLUE.

    Args:
        protocols: the protocols of the recipe.
        tasks: tasks that are measured; none: all, and the mean.
        evaluation: settings of the evaluation, where others are wanted.
    """
    results = made_up.study(seeds=SEEDS)
    measured = result_names("glue", tasks)
    if not tasks:
        measured = (*measured, "glue")
    settings = {
        **results.config["evaluation"],
        "suite": "glue",
        "protocols": list(protocols),
        "report_on": "unseen",
        "selection": 0.1,
        "finetune": FINETUNE,
        **evaluation,
    }
    runs: list[RunResult] = []
    for run in results.runs:
        metrics: dict[str, float] = {}
        details: Details = {}
        for protocol in protocols:
            metrics |= {f"{protocol}.{result}": 0.6 + run.seed / 10 for result in measured}
            if protocol != "probe":
                details |= details_of(run.arm, protocol, measured)
        runs.append(replace(run, metrics=metrics, details=details))
    endpoints = [endpoint(protocol, result) for protocol in protocols for result in measured]
    verdict = PairVerdict("grid.mrpc", "scratch", "minilm", 0.1, 0.05, 0.15, SEEDS, "BEATS")
    return replace(
        results,
        config={**results.config, "evaluation": settings},
        endpoints=tuple(endpoints),
        runs=tuple(runs),
        verdicts=(verdict,),
    )


def table(protocol: str, **changes: Any) -> ScoreTable:
    """Return the only table of a study of GLUE."""
    (only,) = tables(study(protocol, **changes))
    return only


def cell(table: ScoreTable, arm: str, title: str) -> str:
    """Return an arm's cell: its score, and what stands below it."""
    number = [column.title for column in table.columns].index(title)
    shown = table.arms[arm][number]
    return "|".join((shown.text, *shown.notes))


@pytest.mark.parametrize(
    ("protocol", "caption"),
    [
        ("probe", "GLUE by linear probes on the frozen model, the best layer of each task"),
        ("fixed", "GLUE by fine-tuning with one setting for all tasks, 2 seeds"),
        (
            "grid",
            "GLUE by fine-tuning with the best of 4 settings for each task (2 learning rates x 1 "
            "batch size x 2 numbers of epochs), 2 seeds",
        ),
        ("few_shot", "GLUE by fine-tuning on 16 rows, the mean of 5 draws, 2 seeds"),
    ],
)
def test_caption_names_the_protocol_and_what_it_tries(protocol: str, caption: str) -> None:
    assert table(protocol).caption == caption


def test_each_protocol_has_a_table_in_the_order_of_the_recipe() -> None:
    captions = [made.caption for made in tables(study("grid", "probe"))]
    assert [caption.split(" with ")[0] for caption in captions] == [
        "GLUE by fine-tuning",
        "GLUE by linear probes on the frozen model, the best layer of each task",
    ]


def test_mean_stands_first_and_results_have_their_official_names() -> None:
    titles = [column.title for column in table("fixed").columns]
    assert titles[:3] == ["GLUE mean", "CoLA", "SST-2"]
    assert titles[-4:] == ["MNLI-mm", "QNLI", "RTE", "WNLI"]


def test_part_of_a_suite_has_no_mean_and_says_nothing_of_one() -> None:
    made = table("fixed", tasks=("sst2", "mrpc"))
    assert [column.title for column in made.columns] == ["SST-2", "MRPC"]
    assert not any("mean:" in remark for remark in made.remarks)


def test_study_without_a_suite_has_no_table() -> None:
    assert tables(made_up.study()) == []


def test_cell_has_mean_and_deviation_over_seeds() -> None:
    # 0.6, 0.7 and 0.8.
    assert cell(table("fixed"), "scratch", "SST-2") == "0.700 ± 0.100"


def test_failed_fine_tunings_that_are_scored_are_counted_in_the_cell() -> None:
    made = table("grid")
    assert cell(made, "logit", "MRPC").endswith("|3 of 6 failed")
    # Both results of MNLI are of the same fine-tunings.
    assert cell(made, "logit", "MNLI").endswith("|6 of 6 failed")
    assert cell(made, "logit", "MNLI-mm").endswith("|6 of 6 failed")
    # The mean is of all fine-tunings of its tasks, eight of them.
    assert cell(made, "logit", "GLUE mean").endswith("|9 of 48 failed")


def test_cell_says_who_beats_the_baseline_arm() -> None:
    assert cell(table("grid"), "minilm", "MRPC").endswith("|LOSES")


def test_arm_with_a_diverged_run_has_no_score() -> None:
    results = study("fixed")
    first, *others = results.runs
    runs = (replace(first, diverged=Divergence(3, "loss is nan")), *others)
    (made,) = tables(replace(results, runs=runs))
    assert cell(made, "scratch", "SST-2") == "diverged"
    assert cell(made, "logit", "SST-2") == "0.700 ± 0.100"


@pytest.mark.parametrize("protocol", ["probe", "grid"])
def test_settings_chosen_on_the_reported_rows_are_called_optimistic(protocol: str) -> None:
    remarks = table(protocol, report_on="dev").remarks
    assert "scores are optimistic" in remarks[0]


@pytest.mark.parametrize("protocol", ["fixed", "few_shot"])
def test_one_setting_is_not_called_optimistic(protocol: str) -> None:
    remarks = table(protocol, report_on="dev").remarks
    assert remarks[0] == "Scores are of the official dev rows."


def test_share_of_training_rows_that_settings_are_chosen_on_is_said() -> None:
    remarks = table("grid", selection=0.25).remarks
    assert remarks[0].startswith("Settings are chosen on 25% of the training rows, which are not")


def test_task_left_out_of_the_mean_is_named() -> None:
    assert "Not in the mean: WNLI." in table("probe").remarks


def test_all_trials_are_counted_and_those_that_are_scored() -> None:
    remark = next(text for text in table("grid").remarks if text.startswith("Fine-tunings"))
    # Twelve runs, nine tasks, three trials; two of them scored. logit fails three times a seed.
    assert remark.startswith("Fine-tunings of all runs: 324, of which 216 are scored; 9 of these")


def test_tasks_that_start_from_another_are_named() -> None:
    assert table("grid").remarks[-1] == "Started from the encoder tuned on MNLI: MRPC."


def test_failures_of_a_probe_are_none() -> None:
    assert failures(study("probe").runs, "probe.mrpc") == (0, 0)


def test_tasks_of_a_whole_suite_are_in_no_other_table() -> None:
    names = [shown.name for shown in summary.main_endpoints(study("probe", "fixed"))]
    assert names == ["probe.glue", "fixed.glue"]
    part = study("fixed", tasks=("sst2", "mrpc"))
    assert [shown.name for shown in summary.main_endpoints(part)] == ["fixed.sst2", "fixed.mrpc"]


def test_headline_counts_comparisons_of_the_mean_alone() -> None:
    results = study("grid")
    (on_task,) = results.verdicts
    on_mean = replace(on_task, endpoint="grid.glue", verdict="INCONCLUSIVE")
    said = sentences.headline(replace(results, verdicts=(on_task, on_mean)))
    assert "INCONCLUSIVE in the only comparison" in said


def test_sentence_names_the_mean_by_its_title() -> None:
    results = study("grid")
    (on_task,) = results.verdicts
    of_mean = replace(results, verdicts=(replace(on_task, endpoint="grid.glue"),))
    said = sentences.answers(of_mean)["minilm"].replace("\xa0", " ")
    assert "LOSES on fine-tuning, best of a grid (GLUE mean −0.100" in said


def test_terminal_has_each_protocol_within_80_columns() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(terminal.summary(study("probe", "few_shot")))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("GLUE by linear probes on the frozen model" in line for line in lines)
    assert any("GLUE by fine-tuning on 16 rows" in line for line in lines)
    # Counts stand below the scores, so that these are aligned.
    (failed, *_) = [line for line in lines if "3 of 6 failed" in line]
    assert "±" not in failed
