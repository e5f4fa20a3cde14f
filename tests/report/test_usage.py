"""What runs used: the budget's three measures, FLOPs by part, wall-clock, the machine; as figures
and as bars."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kdjax.report import teacher_accounting, usage
from kdjax.report.figures import spending
from kdjax.report.usage import Table, TableCell
from kdjax.results.runs import RunResult
from kdjax.results.study import Results
from kdjax.storage.typed_json import to_plain
from tests.report.results import parsed, study

ACCOUNTS = (
    "student_forward",
    "student_backward",
    "teacher_forward",
    "objective",
    "optimizer",
    "teacher_cache",
    "teacher_training",
)


@pytest.fixture(scope="module")
def results() -> Results:
    return study(training=5 * 10**12)


def cells(table: Table, arm: str) -> dict[str, TableCell]:
    """Return column -> the cell of an arm, its figure and what stands below."""
    return {column.name: cell for column, cell in zip(table.columns, table.rows[arm], strict=True)}


def noted(table: Table) -> dict[str, str]:
    """Return the columns that have a note."""
    return {column.name: column.note for column in table.columns if column.note}


def mean(results: Results, arm: str, figure: Callable[[RunResult], Any]) -> float:
    values = [figure(run) for run in results.runs if run.arm == arm]
    return float(sum(values) / len(values))


def test_measures_under_a_flops_budget_show_its_share_and_each_arms_text(results: Results) -> None:
    table = usage.measures(results)
    scratch = cells(table, "scratch")
    minilm = cells(table, "minilm")
    # 52 steps of 28,400,000,000 FLOPs and 32 x 64 tokens; 24 of 61,690,000,000.
    assert scratch["FLOPs charged"] == ("1.48e12", "98.5%")
    assert minilm["FLOPs charged"] == ("1.48e12", "98.7%")
    assert scratch["tokens, padding counted"] == ("106,496", "1.00×")
    assert minilm["tokens, padding counted"] == ("49,152", "0.46×")
    seconds = mean(
        results, "minilm", lambda run: run.wall_clock["compute"] + run.wall_clock["input"]
    )
    assert minilm["wall-clock: compute and input"][0] == f"{seconds:.1f} s"
    assert [scratch[name][0] for name in ("steps", "epochs")] == ["52", "0.11"]
    assert [scratch[f"tokens {what}"][0] for what in ("seen", "unique", "masked")] == [
        "95,368",
        "95,368",
        "13,542",
    ]


def test_measures_under_a_token_budget_show_its_share_and_flops_beside_it() -> None:
    study_results = study(kind="tokens")
    minilm = cells(usage.measures(study_results), "minilm")
    # 31 steps of 32 x 64 tokens; a step of minilm costs 61.69 / 28.4 times that of scratch.
    assert minilm["tokens, padding counted"] == ("63,488", "99.2%")
    assert minilm["FLOPs"] == ("1.91e12", "2.17×")
    assert {usage.unspent_text(study_results, run) for run in study_results.runs} == {"0.250 steps"}


def test_measures_under_an_hours_budget_show_its_share_of_the_clock() -> None:
    study_results = study(kind="hours")
    minilm = cells(usage.measures(study_results), "minilm")
    seconds = mean(study_results, "minilm", lambda run: 3600 * run.used)
    assert minilm["wall-clock: compute and input"] == (
        f"{seconds:.1f} s",
        f"{100 * seconds / 18:.3g}%",
    )
    positions = mean(study_results, "minilm", lambda run: run.steps * 32 * 64)
    assert minilm["tokens, padding counted"][0] == f"{round(positions):,}"
    run = study_results.runs[0]
    assert usage.unspent_text(study_results, run) == f"{18 - 3600 * run.used:.1f} s"
    # The last step may have ended beyond the budget
    assert usage.unspent_text(study_results, replace(run, used=18.5 / 3600)) == "−0.5 s"


def test_unspent_flops_count_steps_as_charged() -> None:
    study_results = study(teacher="nothing")
    run = next(run for run in study_results.runs if run.arm == "minilm")
    assert (
        usage.unspent_text(study_results, run)
        == f"{1.5e12 % 18_190_000_000 / 18_190_000_000:.3f} steps"
    )


def test_parts_table_marks_accounts_not_charged(results: Results) -> None:
    table = usage.parts(results)
    logit = cells(table, "logit")
    # 28 steps of 53,342,000,000 FLOPs, 9,300,000,000 of them the student's forward pass,
    # 23,700,000,000 the teacher's.
    assert logit["a step"] == ("5.22e10", "1.84×")
    assert logit["student forward"] == ("2.60e11", "17.8%")
    assert logit["teacher forward"] == ("6.64e11", "45.4%")
    assert logit["teacher training"] == ("5.00e12", "")
    assert logit["all"] == ("6.46e12", "")
    assert cells(table, "scratch")["teacher training"] == ("0", "")
    assert noted(table) == {"a step": "relative to scratch", "teacher training": "not charged"}
    assert "teacher cache" not in logit  # no run has any
    assert noted(usage.parts(study(teacher="nothing")))["teacher forward"] == "not charged"


def test_clocks_table_has_mean_seconds_by_kind(results: Results) -> None:
    content = to_plain(results)
    seconds = {
        "compute": (20.0, 21.0, 25.0),
        "input": (0.5, 0.25, 0.75),
        "compile": (4.2, 0.0, 0.0),
        "evaluation": (11.0, 10.0, 9.0),
        "checkpoint": (0.3, 0.3, 0.3),
    }
    for seed in range(3):
        run = content["runs"][seed]
        assert run["arm"] == "scratch"
        run["wall_clock"] = {kind: by_seed[seed] for kind, by_seed in seconds.items()}
    table = usage.clocks(parsed(content))
    assert noted(table) == {"compute": "counted above", "input": "counted above"}
    scratch = {kind: figure for kind, (figure, _) in cells(table, "scratch").items()}
    assert scratch == {
        "compute": "22.0 s",
        "input": "0.5 s",
        "compile": "1.4 s",
        "evaluation": "10.0 s",
        "checkpoint": "0.3 s",
        "all": "34.2 s",
    }
    assert noted(usage.clocks(study(kind="hours"))) == {"compute": "charged", "input": "charged"}


def test_machine_and_memory_tables_have_means(results: Results) -> None:
    content = to_plain(results)
    for run, utilisation in zip(content["runs"][:3], (0.5, 0.6, 0.7), strict=True):
        run["hardware"] |= {
            "model_utilisation": utilisation,
            "hardware_utilisation": 1.1 * utilisation,
        }
    scratch = cells(usage.machine(parsed(content)), "scratch")
    assert scratch["model FLOPs"] == ("1.48e12", "")
    assert scratch["hardware FLOPs"] == ("1.54e12", "1.04×")
    assert scratch["model utilisation"][0] == "60%"
    assert scratch["hardware utilisation"][0] == "66%"
    memory = cells(usage.memory(results), "scratch")
    assert [memory[name][0] for name in ("parameters", "without embeddings")] == [
        "7,361,466",
        "1,402,938",
    ]
    assert memory["a step"][0] == f"{412e6 / 2**20:.3g} MiB"
    assert memory["high water"][0] == f"{1.91e9 / 2**30:.3g} GiB"  # of the last of three runs
    assert memory["stored outputs"][0] == "none"


def test_unknown_hardware_figures_are_dashes() -> None:
    content = to_plain(study())
    content["runs"][0]["hardware"] |= {
        "hardware_flops": None,
        "hardware_utilisation": None,
        "program_bytes": None,
    }
    study_results = parsed(content)
    machine = usage.machine(study_results)
    assert cells(machine, "scratch")["hardware FLOPs"] == ("–", "")
    assert cells(machine, "scratch")["hardware utilisation"] == ("–", "")
    assert cells(machine, "logit")["hardware FLOPs"][0] != "–"
    assert cells(usage.memory(study_results), "scratch")["a step"] == ("–", "")


def test_vendor_peak_names_rates_and_devices() -> None:
    study_results = study()
    peak = usage.vendor_peak(study_results)
    assert peak.startswith("1.02e11 FLOPs a second")
    assert "(float32 matmuls, measured)" in peak
    assert peak.endswith("devices of a run: 1")
    content = to_plain(study_results)
    # Another peak in one run, and eight devices in all.
    for run in content["runs"]:
        run["hardware"] |= {"devices": 8}
    slower = {**content["runs"][3]["hardware"]["peak"], "flops_per_second": 9.7e10}
    content["runs"][3]["hardware"]["peak"] = slower
    peak = usage.vendor_peak(parsed(content))
    assert peak.startswith("9.70e10 to 1.02e11 FLOPs")
    assert peak.endswith("devices of a run: 8")


def test_costs_table_has_every_case(results: Results) -> None:
    table = teacher_accounting.costs(results)
    assert noted(table) == {"inference": "enforced"}
    # 24 steps: 18,190,000,000 FLOPs of the student, 43,500,000,000 of the teacher; scratch: 52 of
    # 28,400,000,000.
    costs = {
        "nothing": 24 * 18_190_000_000,
        "inference": 24 * 61_690_000_000,
        "training": 24 * 18_190_000_000 + 5 * 10**12,
        "both": 24 * 61_690_000_000 + 5 * 10**12,
    }
    scratch = 52 * 28_400_000_000
    assert cells(table, "minilm") == {
        case: (f"{cost / scratch:.2f}×", f"{cost:.2e}".replace("e+", "e"))
        for case, cost in costs.items()
    }


def bars(results: Results) -> dict[str, dict[str, tuple[float, bool]]]:
    """Read the figure of what was spent: of each arm's bar, account -> its width in points, and
    whether it is faint."""
    path = r'<path d="M ([\d.]+) ([\d.]+) +L ([\d.]+) [^>]*style="([^"]*--part-(\d)[^"]*)"'
    widths: dict[float, dict[str, tuple[float, bool]]] = {}
    for left, top, right, style, part in re.findall(path, spending.draw(results)):
        # A bar is one height; each part of it has its own colour.
        widths.setdefault(float(top), {})[ACCOUNTS[int(part)]] = (
            float(right) - float(left),
            "opacity" in style,
        )
    return dict(zip(results.arms, widths.values(), strict=True))


def test_bars_have_widths_of_spending_and_faint_uncharged_parts() -> None:
    logit = bars(study(training=10**12))["logit"]
    flops = {
        "student_forward": 28 * 9_300_000_000,
        "teacher_forward": 28 * 23_700_000_000,
        "teacher_training": 10**12,
    }
    # Widths are compared within a bar: its scale is not known here.
    for account, amount in flops.items():
        of_backward = amount / (28 * 18_900_000_000)
        assert logit[account][0] / logit["student_backward"][0] == pytest.approx(
            of_backward, rel=1e-3
        )
    # Only what was not charged is faint.
    assert {account for account, (_, faint) in logit.items() if faint} == {"teacher_training"}
    assert "teacher_cache" not in logit
    logit = bars(study(training=10**11, teacher="nothing"))["logit"]
    assert {account for account, (_, faint) in logit.items() if faint} == {
        "teacher_forward",
        "teacher_training",
    }


@pytest.mark.parametrize("kind", ["flops", "tokens", "hours"])
def test_bars_stay_readable_beside_large_teacher_cost(kind: str) -> None:
    # The teacher costs a million times the budget.
    study_results = study(kind=kind, training=10**18)
    widths = []
    for bar in bars(study_results).values():
        widths.append(sum(width for width, faint in bar.values() if not faint))
    figure = spending.draw(study_results)
    # The axis ends at twice what is charged at most; labels take some of the figure's width.
    (figure_width,) = re.findall(r'<svg [^>]*viewBox="0 0 ([\d.]+)', figure)
    assert max(widths) > 0.3 * float(figure_width)
    assert "→ 1.00e18" in figure
    assert ("dashed: the budget" in figure) == (kind == "flops")
