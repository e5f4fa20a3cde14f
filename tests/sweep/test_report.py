"""A sweep's page and its terminal summary: what they say is what the runs say; complete, escaped,
self-contained."""

from __future__ import annotations

import io
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
from kdjax.report import reference_losses
from kdjax.results.store import to_plain
from kdjax.sweep import plots, report, table, verdict
from kdjax.sweep.schema import SweepResults, sweep_of
from tests.report.page import Page, check_escaped
from tests.sweep.sweeps import SEEDS, read_again, recipe, renamed, sweep

BUDGETS = (3e11, 7e11, 1.7e12, 4e12, 1e13)


@pytest.fixture(scope="module")
def found() -> SweepResults:
    return sweep(recipe())


@pytest.fixture(scope="module")
def html(found: SweepResults) -> str:
    return report.html(found)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def values(
    found: SweepResults, arm: str, budget: float, endpoint: str = "mlm_loss"
) -> NDArray[np.float64]:
    """Return an arm's values at a budget, seed by seed."""
    rows = [row for row in found.rows if row.arm == arm and row.budget == budget]
    return np.array([row.metrics[endpoint] for row in sorted(rows, key=lambda row: row.seed)])


def ahead(found: SweepResults, arm: str, budget: float, other: str = "scratch") -> int:
    """Return 1 (ahead), -1 (behind) or 0, by a paired 95% t interval of the loss and a margin of
    0.01."""
    gap = values(found, other, budget) - values(found, arm, budget)
    half = stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))
    if abs(gap.mean()) <= half or abs(gap.mean()) + half <= 0.01:
        return 0
    return int(np.sign(gap.mean()))


def test_the_page_is_well_formed_and_needs_nothing_but_itself(page: Page) -> None:
    assert page.problems == [] and page.open == []
    assert [name for name, n in Counter(page.ids).items() if n > 1] == []
    assert page.tags["script"] == page.tags["img"] == page.tags["link"] == page.tags["iframe"] == 0
    assert page.tags["svg"] == 2, "one for each endpoint"
    assert page.links and all(link.startswith("#") and link[1:] in page.ids for link in page.links)


def test_cross_entropies_of_the_text_stand_beside_losses_alone(
    found: SweepResults, page: Page
) -> None:
    group = found.groups[0]
    curve, probe = (plots.curves(found, group, endpoint, "x") for endpoint in found.endpoints)
    for name, label in reference_losses.LABELS.items():
        assert page.row("All cells", label)[2:4] == [
            f"{getattr(group.reference_losses, name):.3f}",
            "–",
        ]
        assert label in curve and label not in probe
    text = io.StringIO()
    Console(file=text, width=200).print(table.summary(found))
    assert text.getvalue().count("both neighbours") == 1


def test_what_it_says_comes_first_and_the_rest_in_order(page: Page, found: SweepResults) -> None:
    order = [
        "5 studies, 3 arms, 3 seeds; budgets: 3.00e11 FLOPs to 1.00e13 FLOPs",
        verdict.headline(found),
        "30 were looked at",
        "Over the budget",
        *verdict.sentences(found, found.groups[0], found.endpoints[0]),
        "All cells",
        "in every study: arms are compared seed by seed",
        "The resolved recipe",
    ]
    places = [page.text.find(text) for text in order]
    assert -1 not in places and places == sorted(places)


def test_the_headline_says_who_is_ahead_at_which_budgets(found: SweepResults) -> None:
    told = {
        arm: [ahead(found, arm, budget) for budget in BUDGETS] for arm in ("logit", "mlm+minilm")
    }
    assert told["logit"] == [-1] * 5, "the laws are far enough apart"
    assert told["mlm+minilm"] == [-1] * 5
    head = verdict.headline(found)
    assert "logit and mlm+minilm behind at every budget" in head
    assert head.startswith("Against scratch on held-out MLM loss")


def test_a_crossing_is_named_with_its_interval() -> None:
    laws = {
        "scratch": (5.0, 40.0, 0.25),
        "logit": (4.0, 40.0, 0.25),
        "mlm+minilm": (5.0, 40.0, 0.25),
    }
    found = sweep(recipe(), laws)
    signs = [ahead(found, "logit", budget) for budget in BUDGETS]
    assert signs[0] == -1 and signs[-1] == 1, signs
    pairs = found.groups[0].pairs
    key = ("mlm_loss", "scratch", "logit")
    (pair,) = [pair for pair in pairs if (pair.endpoint, pair.a, pair.b) == key]
    (crossing,) = pair.crossings
    head = verdict.headline(found)
    text = (
        "["
        + ", ".join(f"{end:.2e}".replace("e+", "e") for end in (crossing.low, crossing.high))
        + "]"
    )
    assert "logit ahead from " in head and f"FLOPs {text}" in head
    assert "logit crosses" in report.html(found)


@pytest.mark.parametrize(
    ("some", "words"),
    [
        ([1e12, 2e12, 3e12, 4e12], "at every budget"),
        ([1e12, 2e12], "up to 2.00e12 FLOPs"),
        ([3e12, 4e12], "from 3.00e12 FLOPs up"),
        ([4e12], "at 4.00e12 FLOPs"),
        ([1e12, 3e12], "at 1.00e12 and 3.00e12 FLOPs"),
    ],
)
def test_budgets_in_words(some: list[float], words: str) -> None:
    assert verdict.where(some, [1e12, 2e12, 3e12, 4e12], "flops") == words


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.5e12, 2e12, "[1.50e12, 2.00e12]"),
        (None, 2e12, "[below 1.00e12, 2.00e12]"),
        (1.5e12, None, "[1.50e12, above 4.00e12]"),
        (None, None, "[open at both ends]"),
    ],
)
def test_an_open_end_of_a_crossing_is_called_that(
    low: float | None, high: float | None, words: str
) -> None:
    assert verdict.bracket(low, high, (1e12, 4e12), "flops") == words


def test_whichever_arm_comes_first_pairs_are_read_from_the_side_of_the_one_with_a_teacher(
    found: SweepResults,
) -> None:
    backwards = recipe()
    arms = dict(reversed(backwards.arms.items()))
    turned = sweep(type(backwards)(**{**vars(backwards), "arms": arms}))
    assert turned.arms[0] == "mlm+minilm" and turned.baseline_arm == "scratch"
    first = next(p for p in turned.groups[0].pairs if (p.a, p.b) == ("logit", "scratch"))
    sided = verdict.against(turned.groups[0], turned.endpoints[0], "scratch")["logit"]
    assert sided.points == first.points
    other = verdict.against(found.groups[0], found.endpoints[0], "scratch")["logit"]
    pair = next(p for p in found.groups[0].pairs if (p.a, p.b) == ("scratch", "logit"))
    for mine, theirs in zip(other.points, pair.points, strict=True):
        turned_round = (-theirs.difference, -theirs.high, -theirs.low)
        assert (mine.difference, mine.low, mine.high) == turned_round
        assert {mine.verdict, theirs.verdict} in (
            {"BEATS", "LOSES"},
            {"TIES"},
            {"INCONCLUSIVE"},
        )


def test_every_cell_has_its_mean_and_standard_deviation_and_what_its_runs_did(
    page: Page, found: SweepResults
) -> None:
    beside = ("arm", *reference_losses.LABELS.values())
    rows = [row for row in page.cells["All cells"] if row[0] not in beside]
    assert len(rows) == 15
    for (arm, budget), row in zip(
        ((arm, b) for arm in found.arms for b in BUDGETS), rows, strict=True
    ):
        own = values(found, arm, budget)
        runs = [r for r in found.rows if r.arm == arm and r.budget == budget]
        assert row[0].endswith(arm)
        assert row[1] == f"{budget:.2e} FLOPs".replace("e+", "e")
        assert row[2] == f"{own.mean():.3f} ± {own.std(ddof=1):.3f}"
        assert row[4] == f"{runs[0].steps:,}"
        assert row[5:7] == [f"{runs[0].tokens_seen:,}", f"{runs[0].tokens_unique:,}"]
        assert row[7:] == [f"{runs[0].epochs:.3f}", "900,000"]


def test_how_many_intervals_were_looked_at(page: Page) -> None:
    # 3 pairs on 2 endpoints at 5 budgets, at 95%.
    assert (
        "30 were looked at, not adjusted for their number: were no two arms different, about 1.5 "
        "of them" in page.text
    )


def test_student_sizes_are_shown_at_one_budget_with_the_best_one() -> None:
    config = recipe(
        "--sweep", json.dumps({"budget.flops": [1e12, 4e12], "student.layers": [1, 2, 4]})
    )
    found = sweep(config, noise=0.001, best=500_000)
    page = Page(report.html(found))
    assert page.problems == [] and [n for n in Counter(page.ids).values() if n > 1] == []
    assert "Over the budget: student.layers 4" in page.text
    assert page.tags["svg"] == 3 * 2 + 2, (
        "each size on each endpoint, and the profiles of each endpoint"
    )
    for arm in found.arms:
        best = page.figures("Best size: parameters without embeddings", arm)
        for budget in ("1.00e12 FLOPs", "4.00e12 FLOPs"):
            assert float(re.match(r"[\d.e+]+", best[budget])[0]) == pytest.approx(5e5, rel=0.05)
            assert "[" in best[budget]


def test_without_sizes_there_is_no_profile(page: Page) -> None:
    assert "Student sizes" not in page.text


def test_one_seed_shows_scores_and_says_that_nothing_can_be_told() -> None:
    found = sweep(recipe(seeds=1))
    page = Page(report.html(found))
    assert page.problems == []
    assert "cannot tell the arms apart: an interval needs at least two seeds" in page.text
    assert "No difference has an interval" in page.text
    assert "±" not in page.cells["All cells"][1][2]


def test_arms_that_are_alike_are_not_told_apart() -> None:
    same = dict.fromkeys(("scratch", "logit", "mlm+minilm"), (7.0, 1e-9, 0.25))
    found = sweep(recipe(seeds=2), same, noise=0.1)
    assert (
        verdict.headline(found)
        == "This sweep cannot tell logit and mlm+minilm from scratch at any of its budgets."
    )
    assert "logit against scratch: undecided at every budget" in Page(report.html(found)).text


def of_size(found: SweepResults, layers: int) -> SweepResults:
    """Return a sweep's runs with so many layers."""
    rows = [row for row in found.rows if row.settings["student.layers"] == layers]
    return replace(found, rows=tuple(rows))


def test_much_to_say_is_counted_in_the_headline() -> None:
    found = sweep(
        recipe("--sweep", json.dumps({"budget.flops": [1e12, 4e12], "student.layers": [1, 2, 4]}))
    )
    verdicts = Counter(
        ahead(of_size(found, layers), "logit", budget)
        for budget in (1e12, 4e12)
        for layers in (1, 2, 4)
    )
    assert verdicts == {-1: 6}
    head = verdict.headline(found)
    assert head.startswith("Against scratch, over all budgets, settings and endpoints: logit ")
    assert re.search(r"logit [^;]*behind in [6-9][^;]* of 12", head)


@pytest.mark.parametrize(("kind", "amounts", "shown"), [
    ("tokens", [20_000, 3_000_000], ["20,000 tokens", "3.00e6 tokens"]),
    ("hours", [0.5, 2.0], ["30 minutes", "2 hours"]),
])  # fmt: skip
def test_budgets_of_other_kinds(kind: str, amounts: list[float], shown: list[str]) -> None:
    config = recipe(
        "--budget.flops",
        "0",
        f"--budget.{kind}",
        str(amounts[0]),
        "--sweep",
        json.dumps({f"budget.{kind}": amounts}),
    )
    found = sweep(config)
    page = Page(report.html(found))
    assert page.problems == []
    assert f"budgets: {shown[0]} to {shown[1]}" in page.text
    assert f"budget: {kind}" in page.text


def test_a_single_budget_has_no_curve_but_a_page() -> None:
    found = sweep(recipe("--sweep", json.dumps({"budget.flops": [1e12]})))
    page = Page(report.html(found))
    assert page.problems == [] and page.tags["svg"] == 2
    assert "budgets: 1.00e12 FLOPs" in page.text


def test_the_same_sweep_gives_the_same_bytes(
    found: SweepResults, html: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report.write(read_again(found), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == html.encode()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(report, "html", lambda found: html)
    with pytest.raises(InputError, match=r"sweep\.html"):
        report.write(found, tmp_path / "file" / "sweep.html")


def test_names_from_outside_are_escaped_everywhere(found: SweepResults) -> None:
    hostile = "<script>alert('$x$')</script>"
    given = to_plain(renamed(found, logit=hostile))
    given["endpoints"][1]["label"] = given["device"] = "<b onclick=x>&amp;"
    given["groups"][0]["settings"] = {"student.size": "<img src=x>"}
    for row in given["rows"]:
        row["settings"]["student.size"] = "<img src=x>"
    check_escaped(report.html(sweep_of(given, Path("sweep.json"))), hostile)


def test_terminal_summary(found: SweepResults) -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(table.summary(renamed(found, **{"mlm+minilm": "[red]minilm[/red]"})))
    printed = console.file.getvalue()
    flowed = " ".join(printed.split())
    assert "logit and [red]minilm[/red] behind at every budget" in flowed
    own = values(found, "scratch", 1e13)
    line = next(line for line in printed.splitlines() if line.strip().startswith("scratch"))
    assert line.split("  ")[-1].strip() == f"{own.mean():.3f} ± {own.std(ddof=1):.3f}"
    assert len(line.split("±")) == len(BUDGETS) + 1 and len(own) == SEEDS


def test_sweep_from_before_it_had_a_baseline_arm_is_refused_in_one_line(
    found: SweepResults,
) -> None:
    content = to_plain(found)
    del content["baseline_arm"]
    with pytest.raises(InputError, match=r"sweep.json: baseline_arm is missing, .*`kdjax sweep`"):
        sweep_of(content, Path("sweep.json"))
