"""What the report shows of labelled tasks: a table of scores for each protocol of a suite, and how
the settings of fine-tuning came about."""

from __future__ import annotations

from kdjax.config.finetune import grid_size
from kdjax.config.suites import LEFT_OUT, SUITE_TITLES, result_names, title_of
from kdjax.evaluation.finetuning.results import FinetunedTask
from kdjax.report import numbers
from kdjax.report.phrases import counted, listed, say, sentence
from kdjax.report.score_tables import ScoreTable, make_table
from kdjax.results.runs import finetuned_task
from kdjax.results.study import Results


def tables(results: Results) -> list[ScoreTable]:
    """Return a table for each protocol by which a suite was measured; none without a suite.

    Args:
        results: the content of results.json.
    """
    evaluation = results.config["evaluation"]
    suite = evaluation.get("suite", "")
    if not suite:
        return []
    score_tables = []
    for protocol in evaluation["protocols"]:
        table = _table(results, suite, protocol)
        if table is not None:
            score_tables.append(table)
    return score_tables


def _table(results: Results, suite: str, protocol: str) -> ScoreTable | None:
    """Return a suite's table under one protocol; None where none of it was measured by that."""
    # The suite's mean, where all of its tasks are measured, then each result in the suite's order.
    by_name = {endpoint.name: endpoint for endpoint in results.endpoints}
    endpoints = []
    titles = []
    for result in (suite, *result_names(suite, ())):
        endpoint = by_name.get(f"{protocol}.{result}")
        if endpoint is None:
            continue
        endpoints.append(endpoint)
        title = f"{SUITE_TITLES[suite]} mean" if result == suite else title_of(suite, result)
        titles.append(title)
    if not endpoints:
        return None
    caption = say(f"protocol_{protocol}", suite=SUITE_TITLES[suite], **_trial_counts(results))
    return make_table(results, caption, endpoints, titles, _remarks(results, suite, protocol))


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
    """Return the records of each run's fine-tuning on each task by a protocol."""
    finetuned = []
    for run in results.runs:
        for endpoint in run.details:
            if not endpoint.startswith(f"{protocol}."):
                continue
            if task := finetuned_task(run, endpoint):
                finetuned.append(task)
    return finetuned
