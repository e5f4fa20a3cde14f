"""The report and the terminal table: complete, escaped, self-contained, reproducible."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from kdjax.data.contamination.check import Contamination, Overlap
from kdjax.errors import InputError
from kdjax.report import lead, ngram_losses, notes, teacher_accounting, usage
from kdjax.report import sentences as verdict
from kdjax.report import study_page as report
from kdjax.report import terminal as table
from kdjax.report.figures import learning
from kdjax.report.page_scripts import scripts
from kdjax.results.study import Results
from kdjax.results.text import TokenRates
from kdjax.storage.typed_json import to_plain
from tests.report.page import Page, without_scripts
from tests.report.results import parsed, study

LOSSES = "Held-out loss (nats, lower is better)"
PROBES = "Tasks: linear probe, best layer (accuracy, higher is better)"


@pytest.fixture(scope="module")
def results() -> Results:
    return study()


@pytest.fixture(scope="module")
def html(results: Results) -> str:
    return report.html(results)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def renamed(results: Results, **names: str) -> Results:
    """Return results with arms called otherwise, in every place that names them."""
    text = json.dumps(to_plain(results))
    for old, new in names.items():
        text = text.replace(json.dumps(old), json.dumps(new))
    return parsed(json.loads(text))


def test_page_is_well_formed_with_unique_ids(page: Page) -> None:
    assert page.problems == []
    assert page.open == []
    # A link must have one target.
    assert [name for name, n in Counter(page.ids).items() if n > 1] == []


def test_page_needs_no_other_files(page: Page, html: str) -> None:
    assert page.tags["img"] == page.tags["link"] == page.tags["iframe"] == 0
    # The figures' data, and scripts that stand in the page.
    assert page.tags["script"] == 1 + len(scripts())
    assert page.tags["svg"] == 4
    assert page.links, "figures refer to their own markers"
    # Nothing is fetched: all links stay on the page.
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert "@import" not in html


def test_page_has_sections_in_order_after_verdict(page: Page, results: Results) -> None:
    order = [
        "Does distilling beat pretraining from scratch?",
        lead.answers(results)["inference"],
        "At a glance",
        "Threats to validity that this study can see",
        "Every verdict in words",
        verdict.headline(results),
        "Scores",
        "Where the budget went",
        "Who pays for the teacher",
        "What the machine did",
        "Held-out MLM loss along the budget",
        "Linear probes by layer",
        "All pairs",
        "What differed between arms",
        "Runs",
        "Notes and provenance",
    ]
    body = page.text
    places = [body.find(text) for text in order]
    assert -1 not in places
    # Each section is there, behind the one before.
    assert places == sorted(places)


def test_score_cell_is_mean_and_sd_of_runs(page: Page, results: Results) -> None:
    values = [run.metrics["probe.sentiment"] for run in results.runs if run.arm == "minilm"]
    # Mean and standard deviation of three seeds.
    mean = sum(values) / 3
    sd = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
    cell = page.figures(PROBES, "minilm")["sentimentn\xa0=\xa01,706"]
    assert cell.startswith(f"{mean:.3f} ± {sd:.3f}")
    # Three seeds do not tell them apart among 25 comparisons.
    assert cell.endswith("INCONCLUSIVE")


def test_scores_table_has_references_and_majority_class(page: Page) -> None:
    assert list(page.figures(LOSSES, "teacher").values())[1] == "4.910"
    assert list(page.figures(PROBES, "teacher").values())[1] == "0.882"
    assert list(page.figures(PROBES, "best constant").values())[1:] == ["0.268", "0.503"]
    # A model without such a score has no row of dashes.
    assert "untrained start" not in {row[0] for row in page.tables[LOSSES]}


def test_counted_losses_stand_under_losses_only(page: Page, results: Results) -> None:
    losses = results.corpus.ngram_losses
    for label, name in ngram_losses.LABELS.items():
        row = list(page.figures(LOSSES, name).values())
        assert row[1] == f"{getattr(losses, label):.3f}"
        assert name not in {row[0] for row in page.tables[PROBES]}
    # The same lines stand in the figure and in the terminal's table.
    figure = learning.draw(results)
    assert all(name in figure for name in ngram_losses.LABELS.values())
    text = io.StringIO()
    Console(file=text, width=200).print(table.summary(results))
    assert "unigram" in text.getvalue()
    assert "4.116" in text.getvalue()


def test_results_without_counted_losses_render(results: Results) -> None:
    changed = replace(results, corpus=replace(results.corpus, ngram_losses=None))
    old = Page(report.html(changed))
    assert old.problems == []
    assert "unigram" not in old.text


def test_lines_outside_zoomed_plot_are_not_drawn(results: Results) -> None:
    losses = results.corpus.ngram_losses
    axes = Figure().subplots()
    axes.plot([0, 1], [3.0, 3.5])
    # The axis begins above one line, and is not moved for it.
    axes.set_ylim(2.9, 3.6)
    ngram_losses.draw(axes, {"unigram": 5.5, "left neighbour": 3.2}, extend=False)
    assert axes.get_ylim() == (2.9, 3.6)
    assert [text.get_text() for text in axes.texts] == ["left neighbour"]
    ngram_losses.draw(axes, {"unigram": 5.5})
    assert ngram_losses.endpoint_losses(losses, "probe.topic", "accuracy") == {}
    assert ngram_losses.endpoint_losses(None, "mlm_loss", "nats") == {}


def test_arm_with_untrained_head_shows_no_mlm_loss(page: Page, results: Results) -> None:
    assert list(page.figures(LOSSES, "tinybert").values())[1] == "head untrained"
    assert list(page.figures(LOSSES, "logit").values())[1].startswith("7.")
    # Not even where the runs carry a number.
    runs = [replace(run, metrics={"mlm_loss": 10.321, **run.metrics}) for run in results.runs]
    assert "10.321" not in report.html(replace(results, runs=tuple(runs)))


def test_pairs_table_has_every_verdict(page: Page, results: Results) -> None:
    rows = [row for row in page.cells["All pairs"] if len(row) == 9]
    # One pair of two arms has a loss, and six pairs of four arms have four other endpoints.
    assert len(rows) == len(results.verdicts) == 1 + 4 * 6
    assert Counter(row[1] for row in rows) == Counter(v.verdict for v in results.verdicts)


def test_runs_table_has_every_run_and_its_unspent_budget(page: Page, results: Results) -> None:
    rows = [row for row in page.cells["Runs"] if row[0] != "arm"]
    assert len(rows) == len(results.runs) == 12
    assert {row[-2] for row in rows} == {run.params_sha256[:12] for run in results.runs}
    assert {row[-1] for row in rows} == {run.ledger_sha256[:12] for run in results.runs}
    # What the budget had left does not pay another step.
    scratch = next(row for row in rows if row[0].endswith("scratch"))
    price = results.arms["scratch"].phases[0].price.total
    assert scratch[9] == f"{1.5e12 % price / price:.3f} steps"


@pytest.mark.parametrize(
    ("kind", "amount", "axis"),
    [
        ("flops", "1.50e12 FLOPs", "FLOPs charged"),
        ("tokens", "64,000 tokens", "tokens seen, padding counted"),
        ("hours", "18 seconds", "seconds of compute and input"),
    ],
)
def test_page_shows_usage_for_each_kind_of_budget(kind: str, amount: str, axis: str) -> None:
    study_results = study(kind=kind, training=5 * 10**12)
    page = Page(report.html(study_results))
    assert page.problems == []
    assert f"one budget of {amount}, 4 ways to spend it" in page.text
    assert axis in page.text
    tables = [
        usage.measures,
        usage.parts,
        usage.clocks,
        usage.machine,
        usage.memory,
        teacher_accounting.costs,
    ]
    # Each table of the page is the one that the package makes, cell by cell.
    for make_table in tables:
        usage_table = make_table(study_results)
        head, *rows = page.tables[usage_table.caption]
        assert head == ["arm", *(column.name + column.note for column in usage_table.columns)]
        for (arm, *cells), (name, figures) in zip(rows, usage_table.rows.items(), strict=True):
            assert arm.endswith(name)
            assert cells == [text + below for text, below in figures]
    # What is left is in the budget's own measure.
    remaining = [row[9] for row in page.cells["Runs"] if row[0] != "arm"]
    assert Counter(remaining) == Counter(
        usage.unspent_text(study_results, run) for run in study_results.runs
    )
    for sentences in teacher_accounting.sentences(study_results).values():
        assert all(sentence in page.text for sentence in sentences)
    # Only FLOPs can be charged to somebody.
    assert ("so no case was enforced" in page.text) == (kind != "flops")


def test_study_without_teacher_has_no_section_on_its_cost(results: Results) -> None:
    arms = {name: replace(arm, needs_teacher=False) for name, arm in results.arms.items()}
    changed = replace(results, arms=arms)
    assert "Who pays for the teacher" not in Page(report.html(changed)).text


def test_page_names_regime_and_masks(page: Page, results: Results) -> None:
    assert notes.regime(results) in page.text
    assert notes.masks(results) in page.text


def test_page_bytes_ignore_users_matplotlib_settings(
    results: Results, html: str, tmp_path: Path
) -> None:
    # A user's settings for figures of their own, which must survive.
    with matplotlib.rc_context(
        {"font.size": 31, "axes.grid": False, "svg.hashsalt": "other", "svg.fonttype": "path"}
    ):
        report.write(parsed(to_plain(results)), tmp_path / "again.html")
        assert matplotlib.rcParams["font.size"] == 31
    assert (tmp_path / "again.html").read_bytes() == html.encode()
    # No temporary file is left.
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]


def test_names_from_outside_are_escaped(results: Results) -> None:
    hostile = "<script>alert('$x$')</script>"
    changed = to_plain(renamed(results, minilm=hostile))
    # Every text that comes from outside is made hostile.
    changed["notes"].append("<img src=x onerror=alert(1)>")
    changed["teacher"]["source"] = '"><iframe src="http://example.org">'
    changed["device"] = changed["endpoints"][1]["label"] = changed["references"][0]["name"] = (
        "<b onclick=x>&amp;"
    )
    changed["config"]["data"]["files"] = "</pre><script>"
    text = report.html(parsed(changed))
    page = Page(text)
    # No tag of theirs is there, and all of their text is.
    assert page.tags["script"] == 1 + len(scripts())
    assert without_scripts(text).lower().count("<script") == 0
    assert page.tags["img"] == page.tags["iframe"] == page.tags["b"] == 0
    assert page.problems == []
    shown = page.text
    assert shown.count(hostile) > 10, "shown as it is, in text, tables and figures"
    assert "<img src=x onerror=alert(1)>" in shown
    assert "&amp;" in shown


def test_figures_have_text_and_colours_of_the_page(html: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", html, re.S)
    assert all("<text" in figure and "var(--ink)" in figure for figure in figures)
    # An arm has one colour in all figures that show it: minilm is the fourth.
    assert ["var(--arm-3)" in figure for figure in figures] == [True, False, False, True]
    # Colours are variables that the page defines.
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", html))
    assert used <= set(re.findall(r"(--[a-z0-9-]+):", html))


def test_one_seed_shows_differences_without_intervals() -> None:
    page = Page(report.html(study(seeds=1)))
    assert page.problems == []
    assert "cannot tell the arms apart" in page.text
    rows = [row for row in page.cells["All pairs"] if len(row) == 9]
    # Without intervals no pair is decided.
    assert rows
    assert {row[1] for row in rows} == {"INCONCLUSIVE"}
    assert {row[4] for row in rows} == {"–"}
    assert "±" not in list(page.figures(PROBES, "scratch").values())[1]


def test_study_of_one_arm_renders(results: Results) -> None:
    changed = replace(
        results,
        arms={"scratch": results.arms["scratch"]},
        runs=tuple(replace(run, details={}) for run in results.runs if run.arm == "scratch"),
        endpoints=results.endpoints[:1],
        cases=(),
        verdicts=(),
        references=(),
        teacher=None,
        differences=(),
    )
    page = Page(report.html(changed))
    assert page.problems == []
    assert "Nothing was compared" in page.text
    # Two figures need no comparison: the budget's and the loss's.
    assert page.tags["svg"] == 2
    assert "All pairs" not in page.text


def test_thirteen_arms_differ_in_marker_or_colour(results: Results) -> None:
    changed = to_plain(results)
    runs = [run for run in changed["runs"] if run["arm"] == "logit"]
    # Nine more arms of one kind: as many colours and markers as there are must be combined.
    for n in range(9):
        changed["arms"][f"more{n}"] = changed["arms"]["logit"]
        changed["runs"] += [{**run, "arm": f"more{n}"} for run in runs]
        for case in changed["cases"]:
            case["costs"][f"more{n}"] = case["costs"]["logit"]
    text = report.html(parsed(changed))
    keys = re.findall(
        r'style="color: (var\(--arm-\d\))" aria-hidden="true">(.)</span>(\w+)</th>', text
    )
    assert len({name for *_, name in keys}) == 13
    assert len({(colour, glyph) for colour, glyph, _ in keys}) == 13


def test_unwritable_directory_is_refused(
    results: Results, html: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "html", lambda results: html)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"report\.html"):
        report.write(results, tmp_path / "file" / "report.html")


def test_terminal_table_shows_scores_and_escapes_names(results: Results) -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(table.summary(renamed(results, minilm="[red]minilm[/red]")))
    printed = console.file.getvalue()
    # Every table has a line for each arm.
    lines: dict[str, list[str]] = {}
    for line in printed.splitlines():
        lines.setdefault(line.split("  ")[0].strip(), []).append(line)
    losses, probes, _, read = lines["tinybert"]
    assert read.split()[-2:] == ["23", "0.05"]
    assert "head untrained" in losses
    assert "head untrained" not in lines["logit"][0]
    assert "[red]minilm[/red]" in lines, "a name is no markup"
    # Scores are the runs' means.
    values = [run.metrics["probe.topic"] for run in results.runs if run.arm == "tinybert"]
    assert f"{sum(values) / 3:.3f} ± " in probes
    # The headline is wrapped, and has the name as it is.
    flowed = " ".join(printed.split())
    assert (
        " ".join(verdict.headline(results).replace("minilm", "[red]minilm[/red]").split()) in flowed
    )


def test_page_says_how_the_tokenizer_takes_the_text(results: Results) -> None:
    rates = TokenRates({"train": 0.034, "validation": 0.2}, by_word=1.5, by_character=0.25)
    counted = replace(results, corpus=replace(results.corpus, token_rates=rates))
    page = report.html(counted)
    assert "1.50 tokens a word, 0.25 a character" in page
    assert "[UNK]: 3.4% of the training tokens, 20% of the held-out ones" in page


def test_page_has_the_rows_that_stand_in_training_text(results: Results) -> None:
    in_text = Overlap("sst2", "sst2", "reported", "", 872, 3, ("dev.tsv, line <5>",))
    in_task = Overlap("sst2", "sst2", "reported", "movies", 872, 691, ())
    found = Contamination(1, "corpus", "tasks", "", (in_text, in_task))
    page = Page(report.html(replace(results, contamination=found)))
    assert page.problems == []
    shown = re.sub(r"\s+", " ", page.text)
    assert "dev.tsv, line <5>" in shown
    assert "training rows of movies" in shown
    assert "79.2%" in shown
    assert "stand in training text" not in Page(report.html(results)).text
