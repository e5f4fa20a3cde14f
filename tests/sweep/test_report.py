"""A sweep's page and terminal summary: they say what the runs say, complete and escaped."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from kdjax.errors import InputError
from kdjax.report import ngram_losses
from kdjax.storage.typed_json import to_plain
from kdjax.sweep import plots, report, table, verdict
from kdjax.sweep.schema import PairPoint, SweepResults, sweep_of
from tests.report.page import Page, check_escaped
from tests.sweep.sweeps import SEEDS, read_again, recipe, renamed, sweep

QUIET = 0.0002
"""Standard deviation of runs so small that three seeds tell arms apart among 34 tests."""
BUDGETS = (3e11, 7e11, 1.7e12, 4e12, 1e13)


@pytest.fixture(scope="module")
def results() -> SweepResults:
    return sweep(recipe(), noise=QUIET)


@pytest.fixture(scope="module")
def html(results: SweepResults) -> str:
    return report.html(results)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def values(
    results: SweepResults, arm: str, budget: float, endpoint: str = "mlm_loss"
) -> NDArray[np.float64]:
    """Return an arm's values at a budget, seed by seed."""
    rows = [row for row in results.rows if row.arm == arm and row.budget == budget]
    return np.array([row.metrics[endpoint] for row in sorted(rows, key=lambda row: row.seed)])


def ahead(results: SweepResults, arm: str, budget: float, other: str = "scratch") -> int:
    """Return 1 (ahead), -1 (behind) or 0: the loss's sign where the adjusted p-value is at most 5%
    and the 90% interval does not lie within a margin of 0.01."""
    gap = values(results, other, budget) - values(results, arm, budget)
    half = stats.t.ppf(0.95, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))
    points: list[PairPoint] = []
    for group in results.groups:
        points += verdict.pairs_with_baseline(group, results.endpoints[0], other)[arm].points
    # Studies of other sizes have other differences at the same budget.
    at_budget = [point for point in points if point.budget == budget]
    (point,) = [point for point in at_budget if point.difference == pytest.approx(-gap.mean())]
    assert point.p_value == pytest.approx(stats.ttest_1samp(gap, 0.0).pvalue)
    assert point.p_adjusted is not None
    if point.p_adjusted > 0.05 or abs(gap.mean()) + half <= 0.01:
        return 0
    return int(np.sign(gap.mean()))


def test_page_is_well_formed_and_self_contained(page: Page) -> None:
    assert page.problems == []
    assert page.open == []
    assert [name for name, n in Counter(page.ids).items() if n > 1] == []
    assert page.tags["script"] == page.tags["img"] == page.tags["link"] == page.tags["iframe"] == 0
    assert page.tags["svg"] == 2, "one for each endpoint"
    # Every link leads to a place on the page.
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)


def test_cross_entropies_of_the_text_are_shown_only_beside_losses(
    results: SweepResults, page: Page
) -> None:
    group = results.groups[0]
    assert len(results.endpoints) == 2
    curve = plots.draw_curves(results, group, results.endpoints[0], "x")
    probe = plots.draw_curves(results, group, results.endpoints[1], "x")
    for name, label in ngram_losses.LABELS.items():
        assert page.row("All cells", label)[2:4] == [
            f"{getattr(group.ngram_losses, name):.3f}",
            "–",
        ]
        assert label in curve
        assert label not in probe
    text = io.StringIO()
    Console(file=text, width=200).print(table.summary(results))
    assert text.getvalue().count("both neighbours") == 1


def test_page_has_its_headline_first_and_sections_in_order(
    page: Page, results: SweepResults
) -> None:
    order = [
        "5 studies, 3 arms, 3 seeds; budgets: 3.00e11 FLOPs to 1.00e13 FLOPs",
        verdict.headline(results),
        "30 of them, shown unadjusted",
        "Over the budget",
        *verdict.sentences(results, results.groups[0], results.endpoints[0]),
        "Whether gaps change",
        "All cells",
        "in every study: arms are compared seed by seed",
        "The resolved recipe",
    ]
    places = [page.text.find(text) for text in order]
    assert -1 not in places
    assert places == sorted(places)


def test_headline_names_arms_behind_at_every_budget(results: SweepResults) -> None:
    for arm in ("logit", "mlm+minilm"):
        signs = [ahead(results, arm, budget) for budget in BUDGETS]
        assert signs == [-1] * 5, "the laws are far enough apart"
    head = verdict.headline(results)
    assert "logit LOSES at every budget; mlm+minilm LOSES at every budget" in head
    assert head.startswith("Against scratch on held-out MLM loss")


def test_crossing_is_written_with_its_interval() -> None:
    # logit starts behind, as its tokens cost more, and ends ahead by its lower floor.
    laws = {
        "scratch": (5.0, 40.0, 0.25),
        "logit": (4.0, 40.0, 0.25),
        "mlm+minilm": (5.0, 40.0, 0.25),
    }
    results = sweep(recipe(), laws, noise=QUIET)
    signs = [ahead(results, "logit", budget) for budget in BUDGETS]
    assert signs[0] == -1, signs
    assert signs[-1] == 1, signs
    key = ("mlm_loss", "scratch", "logit")
    matching = [p for p in results.groups[0].pairs if (p.endpoint, p.a, p.b) == key]
    (pair,) = matching
    (crossing,) = pair.crossings
    head = verdict.headline(results)
    text = (
        "["
        + ", ".join(f"{end:.2e}".replace("e+", "e") for end in (crossing.low, crossing.high))
        + "]"
    )
    assert "logit BEATS from " in head
    assert f"FLOPs {text}" in head
    assert "logit crosses" in report.html(results)


@pytest.mark.parametrize(
    ("budgets", "words"),
    [
        ([1e12, 2e12, 3e12, 4e12], "at every budget"),
        ([1e12, 2e12], "up to 2.00e12 FLOPs"),
        ([3e12, 4e12], "from 3.00e12 FLOPs up"),
        ([4e12], "at 4.00e12 FLOPs"),
        ([1e12, 3e12], "at 1.00e12 and 3.00e12 FLOPs"),
    ],
)
def test_budgets_at_either_end_are_written_as_a_range(budgets: list[float], words: str) -> None:
    assert verdict.budgets_in_words(budgets, [1e12, 2e12, 3e12, 4e12], "flops") == words


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.5e12, 2e12, "[1.50e12, 2.00e12]"),
        (None, 2e12, "[below 1.00e12, 2.00e12]"),
        (1.5e12, None, "[1.50e12, above 4.00e12]"),
        (None, None, "[open at both ends]"),
    ],
)
def test_open_ends_of_a_crossing_are_written_out(
    low: float | None, high: float | None, words: str
) -> None:
    assert verdict.crossing_text(low, high, (1e12, 4e12), "flops") == words


def test_pairs_are_read_from_the_side_of_the_arm_with_a_teacher_in_either_order(
    results: SweepResults,
) -> None:
    # With the baseline arm last, a pair is stored as the page reads it.
    config = recipe()
    turned = sweep(replace(config, arms=dict(reversed(config.arms.items()))))
    assert turned.arms[0] == "mlm+minilm"
    assert turned.baseline_arm == "scratch"
    stored = next(p for p in turned.groups[0].pairs if (p.a, p.b) == ("logit", "scratch"))
    from_logit = verdict.pairs_with_baseline(turned.groups[0], turned.endpoints[0], "scratch")[
        "logit"
    ]
    assert from_logit.points == stored.points

    # With the baseline arm first, signs, ends and verdicts change places.
    from_logit = verdict.pairs_with_baseline(results.groups[0], results.endpoints[0], "scratch")[
        "logit"
    ]
    stored = next(p for p in results.groups[0].pairs if (p.a, p.b) == ("scratch", "logit"))
    for point, opposite in zip(from_logit.points, stored.points, strict=True):
        expected = (-opposite.difference, -opposite.high, -opposite.low)
        assert (point.difference, point.low, point.high) == expected
        assert {point.verdict, opposite.verdict} in (
            {"BEATS", "LOSES"},
            {"TIES"},
            {"INCONCLUSIVE"},
        )


def test_table_of_cells_has_mean_deviation_and_counts_of_runs(
    page: Page, results: SweepResults
) -> None:
    # The rows of cells stand between the head and the rows of the text's cross-entropies.
    other_rows = ("arm", *ngram_losses.LABELS.values())
    rows = [row for row in page.cells["All cells"] if row[0] not in other_rows]
    assert len(rows) == 15
    for (arm, budget), row in zip(itertools.product(results.arms, BUDGETS), rows, strict=True):
        losses = values(results, arm, budget)
        runs = [r for r in results.rows if r.arm == arm and r.budget == budget]
        assert row[0].endswith(arm)
        assert row[1] == f"{budget:.2e} FLOPs".replace("e+", "e")
        assert row[2] == f"{losses.mean():.3f} ± {losses.std(ddof=1):.3f}"
        assert row[4] == f"{runs[0].steps:,}"
        assert row[5:7] == [f"{runs[0].tokens_seen:,}", f"{runs[0].tokens_unique:,}"]
        assert row[7:] == [f"{runs[0].epochs:.3f}", "–", "900,000"]


def test_page_counts_intervals_and_says_how_they_are_adjusted(page: Page) -> None:
    # 3 pairs on 2 endpoints at 5 budgets, at 95%.
    assert "budget by budget; 30 of them, shown unadjusted." in page.text
    assert "p, adjusted over all comparisons of the sweep, is at most 5%" in page.text


def test_gaps_to_the_baseline_arm_change_from_the_smallest_budget_to_the_largest(
    results: SweepResults, page: Page
) -> None:
    # Two arms on two endpoints, between the ends of the only swept setting.
    assert len(results.gaps) == 4
    change = results.gaps[0]
    assert (change.endpoint, change.arm, change.baseline) == ("mlm_loss", "logit", "scratch")
    low = min(BUDGETS)
    high = max(BUDGETS)
    gaps = {b: values(results, "logit", b) - values(results, "scratch", b) for b in (low, high)}
    assert change.difference == pytest.approx(float(np.mean(gaps[high] - gaps[low])))
    expected = stats.ttest_1samp(gaps[high] - gaps[low], 0.0)
    assert change.p_value == pytest.approx(expected.pvalue)
    said = "1.00e13 FLOPs against 3.00e11 FLOPs: logit gains more over scratch on Held-out MLM loss"
    assert said in page.text


def test_page_of_student_sizes_shows_profiles_with_the_best_size() -> None:
    config = recipe(
        "--sweep", json.dumps({"budget.flops": [1e12, 4e12], "student.layers": [1, 2, 4]})
    )
    results = sweep(config, noise=0.001, best=500_000)
    page = Page(report.html(results))
    assert page.problems == []
    assert [n for n in Counter(page.ids).values() if n > 1] == []
    assert "Over the budget: student.layers 4" in page.text
    assert page.tags["svg"] == 3 * 2 + 2, (
        "each size on each endpoint, and the profiles of each endpoint"
    )
    for arm in results.arms:
        best = page.figures("Best size: parameters without embeddings", arm)
        for budget in ("1.00e12 FLOPs", "4.00e12 FLOPs"):
            assert float(re.match(r"[\d.e+]+", best[budget])[0]) == pytest.approx(5e5, rel=0.05)
            assert "[" in best[budget]


def test_page_without_student_sizes_has_no_profile(page: Page) -> None:
    assert "Student sizes" not in page.text


def test_page_of_one_seed_has_scores_and_no_intervals() -> None:
    results = sweep(recipe(seeds=1))
    page = Page(report.html(results))
    assert page.problems == []
    assert "cannot tell the arms apart: an interval needs at least two seeds" in page.text
    assert "No difference has an interval" in page.text
    assert "±" not in page.cells["All cells"][1][2]


def test_arms_with_equal_laws_are_undecided() -> None:
    equal_laws = dict.fromkeys(("scratch", "logit", "mlm+minilm"), (7.0, 1e-9, 0.25))
    results = sweep(recipe(seeds=2), equal_laws, noise=0.1)
    assert (
        verdict.headline(results)
        == "Against scratch, logit and mlm+minilm: INCONCLUSIVE at every budget."
    )
    assert "logit against scratch: INCONCLUSIVE at every budget" in Page(report.html(results)).text


def of_size(results: SweepResults, layers: int) -> SweepResults:
    """Return a sweep's runs with so many layers."""
    rows = [row for row in results.rows if row.settings["student.layers"] == layers]
    return replace(results, rows=tuple(rows))


def test_headline_of_many_comparisons_counts_verdicts() -> None:
    results = sweep(
        recipe("--sweep", json.dumps({"budget.flops": [1e12, 4e12], "student.layers": [1, 2, 4]})),
        noise=QUIET,
    )
    for budget, layers in itertools.product((1e12, 4e12), (1, 2, 4)):
        assert ahead(of_size(results, layers), "logit", budget) == -1
    # Two endpoints: the six losses are behind, the scores of the probe may be anything.
    head = verdict.headline(results)
    assert head.startswith("Against scratch, over all budgets, settings and endpoints: logit ")
    assert re.search(r"logit [^;]*LOSES in [6-9][^;]* of 12", head)


@pytest.mark.parametrize(("kind", "amounts", "shown"), [
    ("tokens", [20_000, 3_000_000], ["20,000 tokens", "3.00e6 tokens"]),
    ("hours", [0.5, 2.0], ["30 minutes", "2 hours"]),
])  # fmt: skip
def test_budgets_of_tokens_and_hours_are_written_in_their_unit(
    kind: str, amounts: list[float], shown: list[str]
) -> None:
    config = recipe(
        "--budget.flops",
        "0",
        f"--budget.{kind}",
        str(amounts[0]),
        "--sweep",
        json.dumps({f"budget.{kind}": amounts}),
    )
    results = sweep(config)
    page = Page(report.html(results))
    assert page.problems == []
    assert f"budgets: {shown[0]} to {shown[1]}" in page.text
    assert f"budget: {kind}" in page.text


def test_sweep_of_a_single_budget_has_a_page() -> None:
    results = sweep(recipe("--sweep", json.dumps({"budget.flops": [1e12]})))
    page = Page(report.html(results))
    assert page.problems == []
    assert page.tags["svg"] == 2
    assert "budgets: 1.00e12 FLOPs" in page.text


def test_page_of_a_sweep_read_again_has_the_same_bytes(
    results: SweepResults, html: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report.write(read_again(results), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == html.encode()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(report, "html", lambda results: html)
    with pytest.raises(InputError, match=r"sweep\.html"):
        report.write(results, tmp_path / "file" / "sweep.html")


def test_hostile_names_are_escaped_on_the_page(results: SweepResults) -> None:
    hostile = "<script>alert('$x$')</script>"
    # The attack stands in names of arms, in labels, and in settings.
    content = to_plain(renamed(results, logit=hostile))
    content["endpoints"][1]["label"] = content["device"] = "<b onclick=x>&amp;"
    content["groups"][0]["settings"] = {"student.size": "<img src=x>"}
    for row in content["rows"]:
        row["settings"]["student.size"] = "<img src=x>"
    check_escaped(report.html(sweep_of(content, Path("sweep.json"))), hostile)


def test_terminal_summary_has_headline_and_scores_of_every_budget(results: SweepResults) -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(table.summary(renamed(results, **{"mlm+minilm": "[red]minilm[/red]"})))
    printed = console.file.getvalue()
    flowed = " ".join(printed.split())
    assert "[red]minilm[/red] LOSES at every budget" in flowed
    # The last column is the largest budget, with every seed in its mean.
    losses = values(results, "scratch", 1e13)
    line = next(line for line in printed.splitlines() if line.strip().startswith("scratch"))
    assert line.split("  ")[-1].strip() == f"{losses.mean():.3f} ± {losses.std(ddof=1):.3f}"
    assert len(line.split("±")) == len(BUDGETS) + 1
    assert len(losses) == SEEDS


def test_sweep_from_before_it_had_a_baseline_arm_is_refused_in_one_line(
    results: SweepResults,
) -> None:
    content = to_plain(results)
    del content["baseline_arm"]
    with pytest.raises(InputError, match=r"sweep.json: baseline_arm is missing, .*`kdjax sweep`"):
        sweep_of(content, Path("sweep.json"))


def test_arm_that_diverged_at_a_budget_has_no_point_there_and_is_named() -> None:
    results = sweep(recipe(), diverged=("logit", 1))
    smallest = results.cells[0].budget.amount
    for endpoint in results.endpoints:
        (group,) = results.groups
        budgets = {
            arm: [point.budget for point in curve]
            for arm, curve in group.curves[endpoint.name].items()
        }
        assert budgets["logit"] == budgets["scratch"][1:]
    # The seeds that came through would flatter the arm: none of their values is used.
    for row in results.rows:
        is_out = row.arm == "logit" and row.budget == smallest
        assert (row.metrics == {}) == is_out

    sentence = f"{results.cells[0].name}: logit diverged: seed 1 at step 7 (1 of {SEEDS})."
    assert [line.startswith(sentence) for line in verdict.divergences(results)] == [True]
    assert sentence in report.html(results)
    assert sweep_of(to_plain(results), Path("sweep.json")) == results
