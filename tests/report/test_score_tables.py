"""Tables of scores: one for each kind of endpoint, legible at any width, with failures counted."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from kdjax.evaluation.finetuning import FinetunedTask, FinetuningTrial, Setting
from kdjax.report import score_tables, study_page, terminal
from kdjax.report.score_tables import ScoreTable
from kdjax.results.runs import HeadLoss, ReferenceModel, RunResult
from kdjax.results.study import Results
from kdjax.results.verdicts import MeasuredEndpoint, PairVerdict
from tests.report.page import Page
from tests.report.results import study

SETTING = Setting(1e-3, 32, 2, 100)
VERDICTS = ("BEATS", "LOSES", "TIES", "INCONCLUSIVE", "NOT LEARNT")


def failed_task(task: str, failed: int) -> FinetunedTask:
    """Return a task with two scored trials, of which some failed."""
    trials = tuple(
        FinetuningTrial(SETTING, seed, None, 0.5, {}, seed < failed, None) for seed in (0, 1)
    )
    scores = {task: 0.5}
    return FinetunedTask(task, "fixed", "", SETTING, 0.5, {}, scores, scores, trials, failed, 0)


@pytest.fixture(scope="module")
def results() -> Results:
    """Return a study of fourteen endpoints, of which every fine-tuning on `topic` failed."""
    base = study()
    more = []
    for number in range(9):
        more.append(
            MeasuredEndpoint(
                f"probe.task{number}",
                f"task{number}, linear probe, best layer",
                "accuracy",
                "higher",
                "probe",
                tuple(base.arms),
                100,
                0.5,
            )
        )
    runs: list[RunResult] = []
    for run in base.runs:
        metrics = {**run.metrics, **{endpoint.name: 0.6 for endpoint in more}}
        details = {**run.details, "fixed.topic": failed_task("topic", 2)}
        if run.arm == "logit":
            head = run.details["mlm_loss"]
            assert isinstance(head, HeadLoss)
            details["mlm_loss"] = replace(head, shuffled=7.5)
        runs.append(replace(run, metrics=metrics, details=details))
    start = ReferenceModel(
        "untrained start", 0, {"fixed.topic": 0.3}, {"fixed.topic": failed_task("topic", 1)}
    )
    teacher = ReferenceModel("teacher", None, {"mlm_loss": 4.91}, {})
    return replace(
        base,
        endpoints=(*base.endpoints, *more),
        runs=tuple(runs),
        references=(start, teacher),
    )


@pytest.fixture(scope="module")
def tables(results: Results) -> dict[str, ScoreTable]:
    return {table.caption: table for table in score_tables.tables(results)}


def printed(results: Results, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal.summary(results))
    lines: list[str] = console.file.getvalue().splitlines()
    return lines


def test_each_kind_of_endpoint_has_a_table_and_says_its_unit_once(
    tables: dict[str, ScoreTable],
) -> None:
    assert list(tables) == [
        "Held-out loss",
        "Tasks: linear probe, best layer",
        "Tasks: fine-tuned",
    ]
    assert tables["Held-out loss"].unit == "nats, lower is better"
    for table in tables.values():
        assert not any(column.unit for column in table.columns)


def test_baseline_arm_comes_first_and_has_no_verdict(results: Results) -> None:
    # The recipe may name it anywhere.
    order = ("minilm", "scratch", "logit", "tinybert")
    moved = replace(results, arms={arm: results.arms[arm] for arm in order})
    for table in score_tables.tables(moved):
        assert list(table.arms) == ["scratch", "minilm", "logit", "tinybert"]
        assert not any(cell.verdict for cell in table.arms["scratch"])


@pytest.mark.parametrize("width", [50, 80, 200])
def test_terminal_keeps_every_score_whole_at_any_width(results: Results, width: int) -> None:
    lines = printed(results, width)
    assert max(map(len, lines)) <= width
    # Seven rows of nothing but scores for each of the eleven probed tasks, none of them broken.
    text = "\n".join(lines)
    for table in score_tables.tables(results):
        for column, head in enumerate(table.columns):
            assert head.title.partition(",")[0] in text
            for cells in table.arms.values():
                assert cells[column].text in text


def test_scores_of_a_column_end_at_the_same_place(results: Results) -> None:
    lines = printed(results, 80)
    first = next(n for n, line in enumerate(lines) if line.startswith("Tasks: fine-tuned"))
    scores = [line for line in lines[first : first + 16] if "\N{PLUS-MINUS SIGN}" in line]
    assert len(scores) == 4
    assert len({line.rstrip().rindex("\N{PLUS-MINUS SIGN}") for line in scores}) == 1


def test_failed_fine_tunings_are_counted_for_arms_and_references(
    tables: dict[str, ScoreTable], results: Results
) -> None:
    table = tables["Tasks: fine-tuned"]
    topic = [column.title for column in table.columns].index("topic")
    # Three seeds of two trials each.
    assert {cells[topic].failed for cells in table.arms.values()} == {"6 of 6 failed"}
    assert table.references["untrained start"][topic].failed == "1 of 2 failed"
    # The page and the terminal have them too, and say what failing is.
    page = Page(study_page.html(results))
    row = page.figures("Tasks: fine-tuned (accuracy, higher is better)", "untrained start")
    assert any(text.endswith("1 of 2 failed") for text in row.values())
    assert "Failed: fine-tunings no better than the best constant answer" in page.text
    assert sum("6 of 6 failed" in line for line in printed(results, 80)) == 4


def test_verdict_is_seen_from_the_arm_and_one_of_five_words(results: Results) -> None:
    endpoint = next(e for e in results.endpoints if e.name == "fixed.topic")
    words = []
    for a, b, verdict in (
        ("logit", "scratch", "BEATS"),
        ("scratch", "logit", "BEATS"),
        ("scratch", "logit", "TIES"),
        ("scratch", "logit", "INCONCLUSIVE"),
        ("scratch", "logit", "NOT LEARNT"),
    ):
        pair = PairVerdict("fixed.topic", a, b, 0.1, 0.05, 0.15, 3, verdict)
        judged = replace(results, verdicts=(pair,))
        words.append(score_tables.cell(judged, "logit", endpoint).verdict)
    assert tuple(words) == VERDICTS


def test_gap_closed_runs_from_unigram_to_both_neighbours(tables: dict[str, ScoreTable]) -> None:
    table = tables["Held-out loss"]
    column = [head.title for head in table.columns].index("mlm_loss, gap closed")
    assert table.levels["unigram"][column].text == "0%"
    assert table.levels["both neighbours"][column].text == "100%"
    # (7.231 - 4.91) / (7.231 - 4.116)
    assert table.references["teacher"][column].text == "75%"
    assert table.arms["tinybert"][column].text == "\N{EN DASH}"


def test_loss_on_shuffled_words_has_a_column(tables: dict[str, ScoreTable]) -> None:
    table = tables["Held-out loss"]
    column = [head.title for head in table.columns].index("mlm_loss, words shuffled")
    assert table.arms["logit"][column].text == "7.500 \N{PLUS-MINUS SIGN} 0.000"
    assert table.arms["scratch"][column].text == "\N{EN DASH}"
