"""What the report shows of labelled tasks: a table of scores for each protocol of a suite, and how
the settings of fine-tuning came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdjax.config.finetune import grid_size
from kdjax.config.suites import LEFT_OUT, SUITE_TITLES, result_names, title_of
from kdjax.evaluation.finetuning.results import FinetunedTask
from kdjax.report import numbers, summary
from kdjax.report.phrases import counted, listed, say, sentence
from kdjax.results.runs import ReferenceModel, RunResult, diverged_arms, finetuned_task
from kdjax.results.study import Results
from kdjax.results.verdicts import Endpoint, MeasuredEndpoint


@dataclass(frozen=True)
class TaskColumn:
    """The head of a column of scores.

    Attributes:
        endpoint: the endpoint.
        title: the task's official name, or the suite's with its mean.
        baseline: score of always saying the most frequent class, or a constant.
    """

    endpoint: MeasuredEndpoint
    title: str
    baseline: str


@dataclass(frozen=True)
class TaskCell:
    """An arm's score on a task.

    Attributes:
        text: mean and standard deviation over seeds.
        note: how many fine-tunings failed, and whether the arm beats the baseline arm.
    """

    text: str
    note: str


@dataclass(frozen=True)
class TaskTable:
    """A suite under one protocol.

    Attributes:
        caption: the suite and the protocol.
        columns: the suite's mean, where all of its tasks are measured, then its results.
        arms: arm -> a cell for each column.
        references: model for reference -> a cell for each column.
        remarks: what was tried, chosen and counted, in sentences.
    """

    caption: str
    columns: tuple[TaskColumn, ...]
    arms: dict[str, list[TaskCell]]
    references: dict[str, list[TaskCell]]
    remarks: list[str]


def tables(results: Results) -> list[TaskTable]:
    """Return a table for each protocol by which a suite was measured; none without a suite.

    Args:
        results: the content of results.json.
    """
    evaluation = results.config["evaluation"]
    suite = evaluation.get("suite", "")
    if not suite:
        return []
    made = []
    for protocol in evaluation["protocols"]:
        columns = _columns(results, suite, protocol)
        if columns:
            made.append(_table(results, suite, protocol, columns))
    return made


def _columns(results: Results, suite: str, protocol: str) -> tuple[TaskColumn, ...]:
    """Return the columns of a suite's table: its mean, then each result in the suite's order."""
    by_name = {endpoint.name: endpoint for endpoint in results.endpoints}
    columns = []
    for result in (suite, *result_names(suite, ())):
        endpoint = by_name.get(f"{protocol}.{result}")
        if endpoint is None:
            continue
        title = f"{SUITE_TITLES[suite]} mean" if result == suite else title_of(suite, result)
        baseline = "–" if endpoint.baseline is None else numbers.score(endpoint.baseline)
        columns.append(TaskColumn(endpoint, title, baseline))
    return tuple(columns)


def _table(
    results: Results, suite: str, protocol: str, columns: tuple[TaskColumn, ...]
) -> TaskTable:
    """Return a suite's table under one protocol."""
    arms = {}
    for arm in results.arms:
        arms[arm] = [_cell(results, arm, column.endpoint) for column in columns]
    references = {}
    for name, spreads in summary.references(results).items():
        cells = [TaskCell(summary.text(spreads.get(c.endpoint.name)), "") for c in columns]
        if any(cell.text != "–" for cell in cells):
            references[name] = cells
    caption = say(f"protocol_{protocol}", suite=SUITE_TITLES[suite], **_trial_counts(results))
    return TaskTable(caption, columns, arms, references, _remarks(results, suite, protocol))


def _cell(results: Results, arm: str, endpoint: Endpoint) -> TaskCell:
    """Return an arm's score on a task, its failed fine-tunings, and its verdict."""
    if arm in diverged_arms(results.runs):
        return TaskCell(numbers.no_score(endpoint, diverged=True), "")
    scores = summary.by_seed(results, arm, endpoint).values()
    notes = []
    failed, trials = failures([run for run in results.runs if run.arm == arm], endpoint.name)
    if failed:
        notes.append(f"{failed} of {trials} failed")
    difference = summary.difference(results, endpoint, arm, results.baseline_arm)
    if difference is not None and difference.outcome in ("beats", "loses"):
        verb = "beats" if difference.outcome == "beats" else "loses to"
        notes.append(f"{verb} {results.baseline_arm}")
    return TaskCell(summary.text(summary.spread(scores)), ", ".join(notes))


def failures(rows: Sequence[RunResult | ReferenceModel], endpoint: str) -> tuple[int, int]:
    """Count the fine-tunings that a score is of: those that failed, and all.

    Args:
        rows: runs, or models for reference.
        endpoint: name of the endpoint.
    """
    failed = 0
    trials = 0
    for row in rows:
        if finetuned := finetuned_task(row, endpoint):
            failed += finetuned.failed
            trials += len(finetuned.chosen_trials)
    return failed, trials


def _trial_counts(results: Results) -> dict[str, str]:
    """Return the numbers that a protocol's caption may name, in words."""
    finetune = results.config["evaluation"]["finetune"]
    few_shot = finetune["few_shot"]
    rates = finetune["learning_rates"]
    sizes = finetune["batch_sizes"]
    epochs = finetune["epoch_counts"]
    return {
        "rates": counted(len(rates), "learning rate"),
        "sizes": counted(len(sizes), "batch size"),
        "epochs": counted(len(epochs), "number of epochs", "numbers of epochs"),
        "settings": counted(grid_size(rates, sizes, epochs), "setting"),
        "seeds": counted(finetune["seeds"], "seed"),
        "examples": counted(few_shot["examples"], "row"),
        "draws": counted(few_shot["draws"], "draw"),
    }


def _remarks(results: Results, suite: str, protocol: str) -> list[str]:
    """Return the sentences below a suite's table."""
    evaluation = results.config["evaluation"]
    remarks = [_selection(results, protocol)]
    # Which tasks the mean is of.
    missing = LEFT_OUT[suite]
    if missing and any(e.name == f"{protocol}.{suite}" for e in results.endpoints):
        titles = [title_of(suite, name) for name in missing]
        remarks.append(say("left_out_of_mean", tasks=listed(titles)))
    # What was trained on the way, and what came to nothing.
    finetuned = _finetuned(results, protocol)
    if finetuned:
        trials = sum(len(task.trials) for task in finetuned)
        failed = sum(task.failed for task in finetuned)
        chosen = sum(len(task.chosen_trials) for task in finetuned)
        remarks.append(say("trials", trials=trials, chosen=chosen, failed=failed))
        started = sorted({task.task for task in finetuned if task.intermediate})
        if started:
            titles = [title_of(suite, name) for name in started]
            start = title_of(suite, evaluation["finetune"]["intermediate"])
            remarks.append(say("intermediate", tasks=listed(titles), start=start))
    return remarks


def _selection(results: Results, protocol: str) -> str:
    """Return the sentence that names the rows by which settings were chosen, and those reported."""
    evaluation = results.config["evaluation"]
    chooses = protocol in ("probe", "grid")
    if evaluation["report_on"] == "unseen":
        share = numbers.percent(evaluation["selection"])
        return say("reported_unseen", share=share)
    return sentence(say("reported_dev"), say("optimistic") if chooses else "")


def _finetuned(results: Results, protocol: str) -> list[FinetunedTask]:
    """Return how each run was fine-tuned on each task by a protocol."""
    finetuned = []
    for run in results.runs:
        for endpoint in run.details:
            if not endpoint.startswith(f"{protocol}."):
                continue
            if task := finetuned_task(run, endpoint):
                finetuned.append(task)
    return finetuned
