"""A plan's page and its terminal summary: the answer first, the three sources apart, and where
extrapolation begins."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from scipy.optimize import brentq

from kdjax.errors import InputError
from kdjax.forecast import Range
from kdjax.plan import ranking, report, table, verdict
from kdjax.plan.plan import forecasts
from kdjax.plan.ranking import Ranking
from kdjax.plan.schema import (
    ComparedAt,
    CrossingForecast,
    FittedPlan,
    HeldOutCheck,
    LawParameter,
    PairwiseComparison,
    Plan,
    Verdict,
)
from kdjax.results.store import from_plain, to_plain
from tests.report.page import Page, check_escaped
from tests.sweep.sweeps import plan, read_again, recipe, renamed, sweep

# logit starts ahead and is overtaken; mlm+minilm is behind everywhere.
LAWS = {"scratch": (5.0, 40.0, 0.25), "logit": (6.2, 340.0, 0.60), "mlm+minilm": (6.0, 40.0, 0.25)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    made = plan(sweep(recipe(), LAWS, noise=0.02), tmp_path_factory.mktemp("pilot"))
    return read_again(made)


@pytest.fixture(scope="module")
def bare() -> Plan:
    return read_again(forecasts(recipe()))


@pytest.fixture(scope="module")
def html(found: Plan) -> str:
    return report.html(found)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def contest(a: str, b: str, *verdicts: Verdict, means: Sequence[float] = ()) -> PairwiseComparison:
    """Compare two arms at budgets 1, 10, 100, ..."""
    points = []
    for n, told in enumerate(verdicts):
        mean = means[n] if means else 0.0
        points.append(ComparedAt(10.0**n, mean, mean - 1, mean + 1, told))
    never = CrossingForecast(None, None, None, 0.0, a)
    return PairwiseComparison(a, b, tuple(points), (), never)


def contested(
    found: Plan, *comparisons: PairwiseComparison, arms: Sequence[str] = ("x", "y", "z")
) -> FittedPlan:
    """Return a plan with these comparisons."""
    arm = next(iter(found.arms.values()))
    changed = replace(
        found,
        arms=dict.fromkeys(arms, arm),
        case="nothing",
        contests={"nothing": comparisons},
    )
    return fitted(changed)


def fitted(found: Plan) -> FittedPlan:
    """Return a plan with its pilot."""
    plan = FittedPlan.of(found)
    assert plan is not None
    return plan


@pytest.mark.parametrize(
    ("xy", "xz", "yz", "expected"),
    [
        ("a wins", "a wins", "cannot tell", Ranking("wins", ("x",))),
        ("b wins", "cannot tell", "a wins", Ranking("wins", ("y",))),
        ("ties", "a wins", "a wins", Ranking("ties", ("x", "y"))),
        ("ties", "ties", "ties", Ranking("ties", ("x", "y", "z"))),
        ("cannot tell", "a wins", "a wins", Ranking("open", ("x", "y"))),
        ("cannot tell", "cannot tell", "cannot tell", Ranking("open", ("x", "y", "z"))),
        # z is beaten by y only, which is itself beaten: it may still be better than x.
        ("a wins", "cannot tell", "a wins", Ranking("open", ("x", "z"))),
        ("ties", "cannot tell", "ties", Ranking("open", ("x", "y", "z"))),
    ],
)
def test_who_is_ahead_of_all_follows_from_the_pairs(
    found: Plan, xy: Verdict, xz: Verdict, yz: Verdict, expected: Ranking
) -> None:
    pairs = contested(found, contest("x", "y", xy), contest("x", "z", xz), contest("y", "z", yz))
    assert ranking.ranking(pairs, 1.0) == expected
    (only,) = ranking.ranked_ranges(pairs)
    assert only.ranking == expected


def test_stretches_join_neighbours_and_open_ones_whatever_they_leave_open(found: Plan) -> None:
    pairs = contested(
        found,
        contest("x", "y", "cannot tell", "cannot tell", "a wins", "a wins"),
        contest("x", "z", "cannot tell", "a wins", "a wins", "a wins"),
        contest("y", "z", "cannot tell", "a wins", "a wins", "a wins"),
    )
    assert [(one.ranking, one.low, one.high) for one in ranking.ranked_ranges(pairs)] == [
        (Ranking("open", ("x", "y", "z")), 1.0, 10.0),
        (Ranking("wins", ("x",)), 100.0, 1000.0),
    ]


def test_a_contest_between_two_budgets_it_was_asked_at() -> None:
    one = contest("x", "y", "a wins", "a wins", "cannot tell", means=[1.0, 3.0, 7.0])
    between = ranking.at(one, 10**0.25)
    assert between.mean == pytest.approx(1.5) and between.low == pytest.approx(0.5)
    assert between.verdict == "a wins"
    assert ranking.at(one, 10**1.5).verdict == "cannot tell", "the two sides differ"
    assert ranking.at(one, 10.0 * (1 + 1e-12)).mean == pytest.approx(3.0)
    assert ranking.at(one, 100.0 * (1 + 1e-12)).verdict == "cannot tell"
    assert ranking.at(one, 0.5) is None and ranking.at(one, 200.0) is None


def test_a_contest_is_read_from_either_side() -> None:
    ranges = (Range("a wins", 1.0, 1.0), Range("ties", 10.0, 10.0))
    one = replace(contest("x", "y", "a wins", "ties", means=[2.0, 0.25]), ranges=ranges)
    other = ranking.from_side(one, "y")
    assert (other.a, other.b) == ("y", "x")
    assert [(p.mean, p.low, p.high) for p in other.points] == [
        (-2.0, -3.0, -1.0),
        (-0.25, -1.25, 0.75),
    ]
    assert (
        [p.verdict for p in other.points] == [r.verdict for r in other.ranges] == ["b wins", "ties"]
    )
    assert ranking.from_side(one, "x") is one


def test_the_page_is_well_formed_and_needs_nothing_but_itself(page: Page) -> None:
    assert page.problems == [] and page.open == []
    assert [name for name, n in Counter(page.ids).items() if n > 1] == []
    assert page.tags["script"] == page.tags["img"] == page.tags["link"] == page.tags["iframe"] == 0
    assert page.tags["svg"] == 3
    assert page.links and all(link.startswith("#") and link[1:] in page.ids for link in page.links)


def test_the_answer_comes_first_and_the_rest_in_order(page: Page, found: Plan) -> None:
    order = [
        verdict.headline(found),
        "Three sources, and what each says",
        "Against scratch",
        *verdict.answers(fitted(found)).values(),
        "dashed where it may not be extrapolated",
        "What a fit that had not seen a budget predicted for it",
        "Who is forecast ahead",
        "What each arm buys, and is forecast to reach",
        "Who pays for the teacher",
        "Published laws: decoder language models, next-token loss, extrapolated",
        "FLOPs of a step",
        "Provenance",
    ]
    places = [page.text.find(" ".join(text.split())) for text in order]
    assert -1 not in places and places == sorted(places)


def test_the_headline_names_the_winner_where_it_wins_and_where_extrapolation_begins(
    found: Plan,
) -> None:
    price = {arm: found.arms[arm].prices[0].total / (8 * 64) for arm in ("scratch", "logit")}

    def gap(
        budget: float,
    ) -> float:  # by the planted laws; no text is repeated yet where they cross
        losses = [
            LAWS[arm][0] + LAWS[arm][1] * (budget / price[arm]) ** -LAWS[arm][2] for arm in price
        ]
        return losses[0] - losses[1]

    head = verdict.headline(found)
    planted = brentq(gap, 3e11, 5e12)
    first, between, last = ranking.ranked_ranges(fitted(found))
    assert first.ranking == Ranking("wins", ("logit",)) and last.ranking == Ranking(
        "wins", ("scratch",)
    )
    assert f"logit ahead of scratch and mlm+minilm up to {flops(first.high)} FLOPs" in head
    assert f"scratch ahead of logit and mlm+minilm from {flops(last.low)} FLOPs on" in head
    assert between.ranking == Ranking("open", ("scratch", "logit"))
    assert first.high < planted < last.low
    assert head.index("scratch ahead of") < head.index("scratch and logit: undecided")
    assert "Beyond 1.00e13 FLOPs, the pilot's largest budget, this is extrapolated." in head


def flops(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def test_an_answer_has_the_verdict_the_difference_and_the_crossing(found: Plan) -> None:
    answer = verdict.answers(fitted(found))["logit"]
    (one,) = [c for c in found.contests["inference"] if {c.a, c.b} == {"scratch", "logit"}]
    assert answer.startswith("logit against scratch: forecast ahead up to ")
    last = one.points[-1]
    shown = f"{-last.mean:+.3f} [{-last.high:+.3f}, {-last.low:+.3f}] at 1.00e15 FLOPs".replace(
        "-", "−"
    )
    assert shown in answer.replace("\N{NO-BREAK SPACE}", " ")
    assert f"The fitted curves cross at {flops(one.crossing.value)} FLOPs" in answer
    assert answer.endswith("beyond, that of scratch is the better one.")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (2.0, 5.0, "[2.00e0, 5.00e0]"),
        (None, 5.0, "[below 1.00e0, 5.00e0]"),
        (2.0, None, "[2.00e0, above 1.00e1 or never]"),
        (None, None, "[open at both ends]"),
    ],
)
def test_an_open_end_of_a_crossing_is_called_that(
    low: float | None, high: float | None, words: str
) -> None:
    crossing = CrossingForecast(3.0, low, high, 0.5, "a")
    assert verdict.crossing_interval(crossing, (1.0, 10.0)) == words


def test_each_budget_has_what_arms_buy_and_are_forecast_to_reach(page: Page, found: Plan) -> None:
    caption = "What each arm buys, and is forecast to reach"
    _, *rows = page.tables[caption]
    assert len(rows) == 5 * 3
    for n, row in enumerate(rows):
        budget = found.budgets[n // 3]
        arm = list(found.arms)[n % 3]
        bought = found.arms[arm].bought[n // 3]
        (told,) = [p for p in found.fits[arm].predictions if p.flops == budget]
        assert row[0] == (flops(budget) if n % 3 == 0 else "")
        assert row[1].endswith(arm) and row[2] == f"{bought.steps:,}"
        assert float(row[4]) == pytest.approx(bought.tokens / 900_000, rel=0.01)
        worth = bought.effective_tokens
        prefix = f"{worth:,.0f}" if worth < 1e6 else flops(worth)
        share = float(row[5].removeprefix(prefix).removesuffix("%"))
        assert share == pytest.approx(100 * worth / bought.tokens, abs=0.06)
        shown = f"{told.mean:.3f} [{told.low:.3f}, {told.high:.3f}]"
        assert row[6].replace("\N{NO-BREAK SPACE}", " ") == shown


def test_verdicts_of_pairs_stand_budget_by_budget_with_extrapolated_ones_marked(page: Page) -> None:
    head, leaders, *pairs = page.tables["Who is forecast ahead"]
    assert head == [
        "FLOPs",
        "1.00e13",
        *(f"{b}extrapolated" for b in ("3.00e13", "1.00e14", "3.00e14", "1.00e15")),
    ]
    assert leaders == ["of all arms"] + 5 * ["scratch"]
    assert [row[0] for row in pairs] == [
        "scratch − logit",
        "scratch − mlm+minilm",
        "logit − mlm+minilm",
    ]
    assert pairs[0][-1].startswith("scratch ahead−") and pairs[2][1].startswith("logit ahead−")


def test_held_out_predictions_are_all_shown_with_their_errors(page: Page, found: Plan) -> None:
    checks = [row for check in found.held_out for row in (*check.arms, *check.differences)]
    _, *rows = page.tables["Predictions of held-out budgets"]
    assert len(rows) == len(checks) == 6 + 12
    for row, check in zip(rows, checks, strict=True):
        assert row[0].endswith(check.name.replace(" - ", " − "))
        assert row[5] == f"{check.predicted - check.observed:+.3f}".replace("-", "−")
        assert row[6] == f"{abs(check.error) / check.noise:.1f}"
        assert row[7] == ("yes" if check.low <= check.observed <= check.high else "no")


def test_the_check_is_summed_up_in_words(found: Plan) -> None:
    row = found.held_out[0].arms[0]
    arms = (
        replace(row, flops=1e13, error=-0.05, relative=2.5, covered=True),
        replace(row, flops=1e13, error=0.125, relative=5.0, covered=False),
    )
    pairs = (
        replace(row, covered=True, predicted=0.2, observed=0.1),
        replace(row, covered=False, predicted=0.2, observed=-0.1),
    )
    given = replace(
        found,
        held_out=(HeldOutCheck(1, arms, pairs),),
        widening={"scratch": 1.0, "scratch - logit": 2.25},
    )
    said, widened = verdict.sources(given)["Check on held-out budgets"]
    assert "(1.00e13 FLOPs)" in said
    assert "0.050 to 0.125 nats (2.5 to 5.0 standard deviations" in said
    assert "1 of 2 lie in its intervals" in said
    assert "2; in its intervals 1, with the right sign 1" in said
    assert "scratch − logit" in widened and "2.25 times" in widened
    given = replace(found, held_out=(), widening={})
    (none,) = verdict.sources(given)["Check on held-out budgets"]
    assert "How far the fit can be trusted is not known" in none
    assert Page(report.html(given)).tags["svg"] == 2


def test_published_laws_are_labelled_and_say_which_arms_they_leave_out(
    page: Page, found: Plan
) -> None:
    said = verdict.sources(found)["Published laws"]
    losses = {arm: one.losses for arm, one in found.prior.arms.items()}
    below = all(a < b for a, b in zip(losses["logit"], losses["scratch"], strict=True))
    assert below and said[1] == "They put the loss of logit below that of scratch at every budget."
    assert said[0].startswith("Decoder language models, next-token loss, extrapolated")
    assert said[2] == "There is no published law for mlm+minilm."
    row = page.figures(
        "Loss by published laws, nats per token; below, the difference to scratch", "logit"
    )
    gap = losses["logit"][-1] - losses["scratch"][-1]
    assert row["1.00e15"] == f"{losses['logit'][-1]:.3f}{gap:+.3f}".replace("-", "−")
    assert found.prior.assumption in page.text
    assert found.prior.outside and all(sentence in page.text for sentence in found.prior.outside)


def test_laws_are_written_out_with_their_parameters_and_cautions(found: Plan) -> None:
    law = found.fits["logit"]
    parameters = {**law.parameters, "K": LawParameter(12345.0, 6.0, None)}
    law = replace(law, cautions=("made up for this",), parameters=parameters)
    given = replace(found, fits={**found.fits, "logit": law})
    page = Page(report.html(given))
    assert "E + K · D′⁻ᵏ" in page.text
    assert "K = 1.23e4 [6, ∞]" in page.text
    assert "Caution: made up for this." in page.text
    assert "Cautions: logit: made up for this." in page.text


def test_every_case_of_who_pays_for_the_teacher(page: Page, found: Plan) -> None:
    said = verdict.cases(fitted(found))
    assert list(said) == ["nothing", "inference"]
    # Where the teacher comes free, logit buys as many steps as scratch.
    assert said["nothing"] != said["inference"]
    assert all(sentence in page.text for sentences in said.values() for sentence in sentences)
    assert (
        page.text.count("what training the teacher cost is not set (teacher.training_flops)") == 2
    )


def test_an_arm_that_gets_worse_is_not_forecast(tmp_path: Path) -> None:
    laws = {**LAWS, "scratch": (9.0, -40.0, 0.25)}
    found = plan(sweep(recipe(), laws), tmp_path, "--plan.resamples", "200")
    assert not found.fits["scratch"].usable
    assert "Of scratch nothing is forecast: values get worse with more tokens." in verdict.headline(
        found
    )
    assert (
        verdict.answers(fitted(found))["logit"]
        == "logit cannot be told from scratch: nothing is forecast of scratch."
    )
    assert Page(report.html(found)).problems == []


def test_budgets_that_do_not_buy_a_step(found: Plan, tmp_path: Path) -> None:
    budgets = ("--plan.budgets", "[1.0e10, 1.0e14]")
    given = plan(sweep(recipe(), LAWS), tmp_path, *budgets, "--plan.resamples", "200")
    assert given.arms["logit"].bought[0] is None
    page = Page(report.html(given))
    assert page.problems == []
    assert page.text.count("less than a step") == sum(
        arm.bought[0] is None for arm in given.arms.values()
    )
    head, leaders, *_ = page.tables["Who is forecast ahead"]
    assert head[1:] == ["1.00e10extrapolated", "1.00e14extrapolated"] and leaders[1] == "–"


def test_without_a_pilot_there_are_prices_what_budgets_buy_and_the_prior(bare: Plan) -> None:
    page = Page(report.html(bare))
    assert page.problems == [] and page.tags["svg"] == 0
    assert "No pilot was fitted, so nothing is forecast" in page.text
    assert "Who is forecast ahead" not in page.text and "Against scratch" not in page.text
    price = page.figures("FLOPs of a step", "scratch")
    assert (
        price["total"] == flops(bare.arms["scratch"].prices[0].total)
        and price["teacher forward"] == "0"
    )
    assert len(page.tables["What each arm buys"]) == 1 + 15
    assert "There is no published law for mlm+minilm." in page.text
    printed = shown(bare)
    assert "None without a pilot." in printed and "less than a step" not in printed


def test_the_same_plan_gives_the_same_bytes(
    found: Plan, html: str, bare: Plan, tmp_path: Path
) -> None:
    report.write(read_again(found), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == html.encode()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"plan\.html"):
        report.write(bare, tmp_path / "file" / "plan.html")


def test_names_from_outside_are_escaped_everywhere(found: Plan) -> None:
    hostile = "<script>alert('$x$')</script>"
    given = to_plain(renamed(found, logit=hostile))
    given["pilot"]["endpoint"]["label"] = given["device"] = given["pilot"]["directory"] = (
        "<b onclick=x>&amp;"
    )
    given["fits"]["scratch"]["cautions"] = ["<img src=x>"]
    check_escaped(report.html(from_plain(Plan, given, "plan.json:")), hostile)


def shown(found: Plan) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(table.summary(found))
    return " ".join(console.file.getvalue().split())


def test_terminal_summary(found: Plan) -> None:
    printed = shown(renamed(found, logit="[red]logit[/red]"))
    assert printed.startswith(
        " ".join(verdict.headline(found).replace("logit", "[red]logit[/red]").split())
    )
    told = found.fits["scratch"].predictions[-1]
    assert f"1.00e15 {told.mean:.3f} [{told.low:.3f}, {told.high:.3f}]" in printed
    assert "extrapolated beyond 1.00e13 FLOPs" in printed
    for source in ("Fit of this pilot", "Check on held-out budgets", "Published laws"):
        assert f"{source}: " in printed
