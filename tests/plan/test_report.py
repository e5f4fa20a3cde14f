"""A plan's page and terminal summary: the answer first, and where extrapolation begins."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from scipy.optimize import brentq

from kdjax.errors import InputError
from kdjax.evaluation.statistics import ArmVerdict
from kdjax.plan import ranking, report, table, verdict
from kdjax.plan.plan import forecasts
from kdjax.plan.ranking import Ranking
from kdjax.plan.schema import (
    ComparedAt,
    CrossingForecast,
    FittedPlan,
    ForecastComparison,
    ForecastRange,
    HeldOutCheck,
    LawParameter,
    Plan,
)
from kdjax.storage.typed_json import from_plain, to_plain
from tests.report.page import Page, check_escaped
from tests.sweep.sweeps import plan, read_again, recipe, renamed, sweep

# logit starts ahead and is overtaken; mlm+minilm is behind everywhere.
LAWS = {"scratch": (5.0, 40.0, 0.25), "logit": (6.2, 340.0, 0.60), "mlm+minilm": (6.0, 40.0, 0.25)}


@pytest.fixture(scope="module")
def pilot_plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    directory = tmp_path_factory.mktemp("pilot")
    return read_again(plan(sweep(recipe(), LAWS, noise=0.02), directory))


@pytest.fixture(scope="module")
def bare() -> Plan:
    return read_again(forecasts(recipe()))


@pytest.fixture(scope="module")
def html(pilot_plan: Plan) -> str:
    return report.html(pilot_plan)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def comparison(
    a: str, b: str, *verdicts: ArmVerdict, means: Sequence[float] = ()
) -> ForecastComparison:
    """Compare two arms at budgets 1, 10, 100, ..."""
    points = []
    for n, outcome in enumerate(verdicts):
        mean = means[n] if means else 0.0
        points.append(ComparedAt(10.0**n, mean, mean - 1, mean + 1, outcome))
    never = CrossingForecast(None, None, None, 0.0, a)
    return ForecastComparison(a, b, tuple(points), (), never)


def with_comparisons(
    pilot_plan: Plan, *comparisons: ForecastComparison, arms: Sequence[str] = ("x", "y", "z")
) -> FittedPlan:
    """Return a plan with these comparisons."""
    arm = next(iter(pilot_plan.arms.values()))
    # Every arm is the same but for its name: only the comparisons rank them.
    changed = replace(
        pilot_plan,
        arms=dict.fromkeys(arms, arm),
        case="nothing",
        contests={"nothing": comparisons},
    )
    return fitted(changed)


def fitted(pilot_plan: Plan) -> FittedPlan:
    """Return a plan with its pilot."""
    with_pilot = FittedPlan.from_plan(pilot_plan)
    assert with_pilot is not None
    return with_pilot


@pytest.mark.parametrize(
    ("xy", "xz", "yz", "expected"),
    [
        ("BEATS", "BEATS", "INCONCLUSIVE", Ranking("wins", ("x",))),
        ("LOSES", "INCONCLUSIVE", "BEATS", Ranking("wins", ("y",))),
        ("TIES", "BEATS", "BEATS", Ranking("ties", ("x", "y"))),
        ("TIES", "TIES", "TIES", Ranking("ties", ("x", "y", "z"))),
        ("INCONCLUSIVE", "BEATS", "BEATS", Ranking("open", ("x", "y"))),
        ("INCONCLUSIVE", "INCONCLUSIVE", "INCONCLUSIVE", Ranking("open", ("x", "y", "z"))),
        # z is beaten by y only, which is itself beaten: it may still be better than x.
        ("BEATS", "INCONCLUSIVE", "BEATS", Ranking("open", ("x", "z"))),
        ("TIES", "INCONCLUSIVE", "TIES", Ranking("open", ("x", "y", "z"))),
    ],
)
def test_ranking_follows_from_the_verdicts_on_pairs(
    pilot_plan: Plan, xy: ArmVerdict, xz: ArmVerdict, yz: ArmVerdict, expected: Ranking
) -> None:
    pairs = with_comparisons(
        pilot_plan, comparison("x", "y", xy), comparison("x", "z", xz), comparison("y", "z", yz)
    )
    assert ranking.ranking(pairs, 1.0) == expected
    (only,) = ranking.ranked_ranges(pairs)
    assert only.ranking == expected


def test_ranked_ranges_join_equal_neighbours_and_open_ones(pilot_plan: Plan) -> None:
    pairs = with_comparisons(
        pilot_plan,
        comparison("x", "y", "INCONCLUSIVE", "INCONCLUSIVE", "BEATS", "BEATS"),
        comparison("x", "z", "INCONCLUSIVE", "BEATS", "BEATS", "BEATS"),
        comparison("y", "z", "INCONCLUSIVE", "BEATS", "BEATS", "BEATS"),
    )
    assert [(r.ranking, r.low, r.high) for r in ranking.ranked_ranges(pairs)] == [
        (Ranking("open", ("x", "y", "z")), 1.0, 10.0),
        (Ranking("wins", ("x",)), 100.0, 1000.0),
    ]


def test_lead_at_a_single_budget_between_others_is_open(pilot_plan: Plan) -> None:
    pairs = with_comparisons(
        pilot_plan,
        comparison("x", "y", "BEATS", "BEATS", "LOSES", "INCONCLUSIVE", "BEATS"),
        comparison("x", "z", "BEATS", "BEATS", "BEATS", "BEATS", "BEATS"),
        comparison("y", "z", "BEATS", "BEATS", "BEATS", "BEATS", "BEATS"),
    )
    # y leads at 100 alone; the last budget is between no others.
    assert [(r.ranking, r.low, r.high) for r in ranking.ranked_ranges(pairs)] == [
        (Ranking("wins", ("x",)), 1.0, 10.0),
        (Ranking("open", ("x", "y")), 100.0, 1000.0),
        (Ranking("wins", ("x",)), 10000.0, 10000.0),
    ]


def test_verdicts_at_single_budgets_join_the_inconclusive_ones_around_them() -> None:
    flickering = [
        ForecastRange("BEATS", 1.0, 10.0),
        ForecastRange("INCONCLUSIVE", 20.0, 20.0),
        ForecastRange("LOSES", 30.0, 30.0),
        ForecastRange("INCONCLUSIVE", 40.0, 50.0),
        ForecastRange("TIES", 60.0, 60.0),
        ForecastRange("LOSES", 70.0, 80.0),
    ]
    assert ranking.without_flicker(flickering) == [
        ForecastRange("BEATS", 1.0, 10.0),
        ForecastRange("INCONCLUSIVE", 20.0, 60.0),
        ForecastRange("LOSES", 70.0, 80.0),
    ]
    # At either end there is one neighbour, and two budgets are more than one.
    ends = [ForecastRange("TIES", 1.0, 1.0), ForecastRange("LOSES", 2.0, 3.0)]
    assert ranking.without_flicker(ends) == ends


def test_single_budget_is_told_as_one_and_an_open_end_names_no_better_arm(
    pilot_plan: Plan,
) -> None:
    crossing = CrossingForecast(10.0, None, None, 0.0, "x")
    ranges = (ForecastRange("BEATS", 1.0, 1.0), ForecastRange("INCONCLUSIVE", 10.0, 100.0))
    baseline = pilot_plan.baseline_arm
    pair = comparison("x", baseline, "BEATS", "INCONCLUSIVE", "INCONCLUSIVE")
    pair = replace(pair, crossing=crossing, ranges=ranges)
    arms = ("x", baseline)
    answer = verdict.answers(with_comparisons(pilot_plan, pair, arms=arms))["x"]
    assert "forecast BEATS at 1.00e0 FLOPs; INCONCLUSIVE from 1.00e1 FLOPs on." in answer
    assert answer.endswith("which arm is the better one beyond cannot be told.")
    # Where the verdict says it, too, the better arm is named.
    told = replace(pair, ranges=(ranges[0], ForecastRange("BEATS", 10.0, 100.0)))
    answer = verdict.answers(with_comparisons(pilot_plan, told, arms=arms))["x"]
    assert answer.endswith("beyond, that of x is the better one.")


def test_comparison_between_two_points_is_interpolated() -> None:
    pair = comparison("x", "y", "BEATS", "BEATS", "INCONCLUSIVE", means=[1.0, 3.0, 7.0])
    between = ranking.comparison_at(pair, 10**0.25)
    assert between.mean == pytest.approx(1.5)
    assert between.low == pytest.approx(0.5)
    assert between.verdict == "BEATS"
    assert ranking.comparison_at(pair, 10**1.5).verdict == "INCONCLUSIVE", "the two sides differ"
    assert ranking.comparison_at(pair, 10.0 * (1 + 1e-12)).mean == pytest.approx(3.0)
    assert ranking.comparison_at(pair, 100.0 * (1 + 1e-12)).verdict == "INCONCLUSIVE"
    assert ranking.comparison_at(pair, 0.5) is None
    assert ranking.comparison_at(pair, 200.0) is None


def test_comparison_from_the_other_side_has_signs_and_verdicts_turned() -> None:
    ranges = (ForecastRange("BEATS", 1.0, 1.0), ForecastRange("TIES", 10.0, 10.0))
    from_x = replace(comparison("x", "y", "BEATS", "TIES", means=[2.0, 0.25]), ranges=ranges)
    from_y = ranking.seen_from(from_x, "y")
    assert (from_y.a, from_y.b) == ("y", "x")
    assert [(p.mean, p.low, p.high) for p in from_y.points] == [
        (-2.0, -3.0, -1.0),
        (-0.25, -1.25, 0.75),
    ]
    assert (
        [p.verdict for p in from_y.points]
        == [r.verdict for r in from_y.ranges]
        == ["LOSES", "TIES"]
    )
    assert ranking.seen_from(from_x, "x") is from_x


def test_page_is_well_formed_and_self_contained(page: Page) -> None:
    assert page.problems == []
    assert page.open == []
    assert [name for name, n in Counter(page.ids).items() if n > 1] == []
    assert page.tags["script"] == page.tags["img"] == page.tags["link"] == page.tags["iframe"] == 0
    assert page.tags["svg"] == 4
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)


def test_page_has_its_answer_first_and_sections_in_order(page: Page, pilot_plan: Plan) -> None:
    order = [
        verdict.headline(pilot_plan),
        "Three sources, and what each says",
        "Against scratch",
        *verdict.answers(fitted(pilot_plan)).values(),
        "dashed where it may not be extrapolated",
        "What a fit that had not seen a budget predicted for it",
        "Which arm BEATS the others, by forecast",
        "What each arm buys, and is forecast to reach",
        "Who pays for the teacher",
        "Published laws: decoder language models, next-token loss, extrapolated",
        "FLOPs of a step",
        "Provenance",
    ]
    places = [page.text.find(" ".join(text.split())) for text in order]
    assert -1 not in places
    assert places == sorted(places)


def test_headline_names_leaders_by_range_and_where_extrapolation_begins(
    pilot_plan: Plan,
) -> None:
    price = {arm: pilot_plan.arms[arm].prices[0].total / (8 * 64) for arm in ("scratch", "logit")}

    # By the planted laws; no text is repeated yet where they cross.
    def gap(budget: float) -> float:
        losses = [
            LAWS[arm][0] + LAWS[arm][1] * (budget / price[arm]) ** -LAWS[arm][2] for arm in price
        ]
        return losses[0] - losses[1]

    head = verdict.headline(pilot_plan)
    # The planted crossing lies where the plan leaves the lead open.
    planted = brentq(gap, 3e11, 5e12)
    first, between, last = ranking.ranked_ranges(fitted(pilot_plan))
    assert first.ranking == Ranking("wins", ("logit",))
    assert last.ranking == Ranking("wins", ("scratch",))
    assert f"logit BEATS scratch and mlm+minilm up to {flops(first.high)} FLOPs" in head
    assert f"scratch BEATS logit and mlm+minilm from {flops(last.low)} FLOPs on" in head
    assert between.ranking == Ranking("open", ("scratch", "logit"))
    assert first.high < planted < last.low
    assert head.index("scratch BEATS") < head.index("scratch and logit: INCONCLUSIVE")
    assert "Beyond 1.00e13 FLOPs, the pilot's largest budget, this is extrapolated." in head


def flops(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def test_answer_has_verdict_difference_and_crossing(pilot_plan: Plan) -> None:
    answer = verdict.answers(fitted(pilot_plan))["logit"]
    matching = [c for c in pilot_plan.contests["inference"] if {c.a, c.b} == {"scratch", "logit"}]
    (pair,) = matching
    assert answer.startswith("logit against scratch: forecast BEATS up to ")
    last = pair.points[-1]
    shown = f"{-last.mean:+.3f} [{-last.high:+.3f}, {-last.low:+.3f}] at 1.00e15 FLOPs".replace(
        "-", "−"
    )
    assert shown in answer.replace("\N{NO-BREAK SPACE}", " ")
    assert f"The fitted curves cross at {flops(pair.crossing.value)} FLOPs" in answer
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
def test_open_ends_of_a_crossing_are_written_out(
    low: float | None, high: float | None, words: str
) -> None:
    # Beyond the largest budget compared the laws may cross later, or not at all.
    crossing = CrossingForecast(3.0, low, high, 0.5, "a")
    assert verdict.crossing_interval(crossing, (1.0, 10.0)) == words


def test_table_of_budgets_has_what_arms_buy_and_their_forecasts(
    page: Page, pilot_plan: Plan
) -> None:
    _, *rows = page.tables["What each arm buys, and is forecast to reach"]
    assert len(rows) == 5 * 3
    for n, row in enumerate(rows):
        budget = pilot_plan.budgets[n // 3]
        arm = list(pilot_plan.arms)[n % 3]
        bought = pilot_plan.arms[arm].bought[n // 3]
        matching = [p for p in pilot_plan.fits[arm].predictions if p.flops == budget]
        (forecast,) = matching
        # A budget's rows stand together, and only the first of them names it.
        assert row[0] == (flops(budget), "", "")[n % 3]
        assert row[1].endswith(arm)
        assert row[2] == f"{bought.steps:,}"
        assert float(row[4]) == pytest.approx(bought.tokens / 900_000, rel=0.01)
        # What tokens are worth, and below it as a share of the tokens.
        worth = bought.effective_tokens
        prefix = f"{worth:,.0f}" if worth < 1e6 else flops(worth)
        share = float(row[5].removeprefix(prefix).removesuffix("%"))
        assert share == pytest.approx(100 * worth / bought.tokens, abs=0.06)
        shown = f"{forecast.mean:.3f} [{forecast.low:.3f}, {forecast.high:.3f}]"
        assert row[6].replace("\N{NO-BREAK SPACE}", " ") == shown


def test_table_of_verdicts_marks_extrapolated_budgets(page: Page) -> None:
    head, leaders, *pairs = page.tables["Which arm BEATS the others, by forecast"]
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
    assert pairs[0][-1].startswith("scratch BEATS−")
    assert pairs[2][1].startswith("logit BEATS−")


def test_held_out_predictions_are_all_shown_with_errors(page: Page, pilot_plan: Plan) -> None:
    # Rows stand check by check, arms before their differences.
    checks = list(
        itertools.chain.from_iterable((*c.arms, *c.differences) for c in pilot_plan.held_out)
    )
    _, *rows = page.tables["Predictions of held-out budgets"]
    assert len(rows) == len(checks) == 6 + 12
    for row, check in zip(rows, checks, strict=True):
        assert row[0].endswith(check.name.replace(" - ", " − "))
        assert row[5] == f"{check.predicted - check.observed:+.3f}".replace("-", "−")
        assert row[6] == f"{abs(check.error) / check.noise:.1f}"
        covered = check.low <= check.observed <= check.high
        assert row[7] == ("yes" if covered else "no")


def test_held_out_check_is_summed_up_in_words(pilot_plan: Plan) -> None:
    row = pilot_plan.held_out[0].arms[0]
    arms = (
        replace(row, flops=1e13, error=-0.05, relative=2.5, covered=True),
        replace(row, flops=1e13, error=0.125, relative=5.0, covered=False),
    )
    pairs = (
        replace(row, covered=True, predicted=0.2, observed=0.1),
        replace(row, covered=False, predicted=0.2, observed=-0.1),
    )
    changed = replace(
        pilot_plan,
        held_out=(HeldOutCheck(1, arms, pairs),),
        widening={"scratch": 1.0, "scratch - logit": 2.25},
    )
    summary, widened = verdict.sources(changed)["Check on held-out budgets"]
    assert "(1.00e13 FLOPs)" in summary
    assert "0.050 to 0.125 nats (2.5 to 5.0 standard deviations" in summary
    assert "1 of 2 lie in its intervals" in summary
    assert "2; in its intervals 1, with the right sign 1" in summary
    assert "scratch − logit" in widened
    assert "2.25 times" in widened

    # Without a check the page says so, and lacks the figure.
    changed = replace(pilot_plan, held_out=(), widening={})
    (none,) = verdict.sources(changed)["Check on held-out budgets"]
    assert "How far the fit can be trusted is not known" in none
    assert Page(report.html(changed)).tags["svg"] == 3


def test_published_laws_are_labelled_and_name_arms_without_a_law(
    page: Page, pilot_plan: Plan
) -> None:
    sentences = verdict.sources(pilot_plan)["Published laws"]
    losses = {arm: prior.losses for arm, prior in pilot_plan.prior.arms.items()}
    below = all(a < b for a, b in zip(losses["logit"], losses["scratch"], strict=True))
    assert below
    assert sentences[1] == "They put the loss of logit below that of scratch at every budget."
    assert sentences[0].startswith("Decoder language models, next-token loss, extrapolated")
    assert sentences[2] == "There is no published law for mlm+minilm."
    # The table has each loss, and below it the gap to the baseline arm.
    row = page.figures(
        "Loss by published laws, nats per token; below, the difference to scratch", "logit"
    )
    gap = losses["logit"][-1] - losses["scratch"][-1]
    assert row["1.00e15"] == f"{losses['logit'][-1]:.3f}{gap:+.3f}".replace("-", "−")
    assert pilot_plan.prior.assumption in page.text
    assert pilot_plan.prior.outside
    assert all(sentence in page.text for sentence in pilot_plan.prior.outside)


def test_laws_are_shown_with_parameters_and_cautions(pilot_plan: Plan) -> None:
    assert pilot_plan.fits is not None
    law = pilot_plan.fits["logit"]
    law = replace(
        law,
        cautions=("made up for this",),
        parameters={**law.parameters, "K": LawParameter(12345.0, 6.0, None)},
    )
    changed = replace(pilot_plan, fits={**pilot_plan.fits, "logit": law})
    page = Page(report.html(changed))
    assert "E + K · D′⁻ᵏ" in page.text
    assert "K = 1.23e4 [6, ∞]" in page.text
    assert "Caution: made up for this." in page.text
    assert "Cautions: logit: made up for this." in page.text


def test_page_shows_every_case_of_teacher_accounting(page: Page, pilot_plan: Plan) -> None:
    sentences = verdict.cases(fitted(pilot_plan))
    assert list(sentences) == ["nothing", "inference"]
    # Where the teacher comes free, logit buys as many steps as scratch.
    assert sentences["nothing"] != sentences["inference"]
    for sentence in itertools.chain.from_iterable(sentences.values()):
        assert sentence in page.text
    assert (
        page.text.count("what training the teacher cost is not set (teacher.training_flops)") == 2
    )


def test_arm_that_gets_worse_with_tokens_is_not_forecast(tmp_path: Path) -> None:
    laws = {**LAWS, "scratch": (9.0, -40.0, 0.25)}
    pilot_plan = plan(sweep(recipe(), laws), tmp_path, "--plan.resamples", "200")
    assert not pilot_plan.fits["scratch"].usable
    assert "Of scratch nothing is forecast: values get worse with more tokens." in verdict.headline(
        pilot_plan
    )
    assert (
        verdict.answers(fitted(pilot_plan))["logit"]
        == "logit against scratch is INCONCLUSIVE: nothing is forecast of scratch."
    )
    assert Page(report.html(pilot_plan)).problems == []


def test_budgets_below_a_step_are_shown_as_such(pilot_plan: Plan, tmp_path: Path) -> None:
    budgets = ("--plan.budgets", "[1.0e10, 1.0e14]")
    small = plan(sweep(recipe(), LAWS), tmp_path, *budgets, "--plan.resamples", "200")
    assert small.arms["logit"].bought[0] is None
    page = Page(report.html(small))
    assert page.problems == []
    assert page.text.count("less than a step") == sum(
        arm.bought[0] is None for arm in small.arms.values()
    )
    head, leaders, *_ = page.tables["Which arm BEATS the others, by forecast"]
    assert head[1:] == ["1.00e10extrapolated", "1.00e14extrapolated"]
    assert leaders[1] == "–"


def test_plan_without_a_pilot_has_prices_budgets_and_prior(bare: Plan) -> None:
    page = Page(report.html(bare))
    assert page.problems == []
    assert page.tags["svg"] == 0
    assert "No pilot was fitted, so nothing is forecast" in page.text
    assert "Which arm BEATS the others, by forecast" not in page.text
    assert "Against scratch" not in page.text
    price = page.figures("FLOPs of a step", "scratch")
    assert price["total"] == flops(bare.arms["scratch"].prices[0].total)
    assert price["teacher forward"] == "0"
    assert len(page.tables["What each arm buys"]) == 1 + 15
    assert "There is no published law for mlm+minilm." in page.text
    printed = shown(bare)
    assert "None without a pilot." in printed
    assert "less than a step" not in printed


def test_page_of_a_plan_read_again_has_the_same_bytes(
    pilot_plan: Plan, html: str, bare: Plan, tmp_path: Path
) -> None:
    report.write(read_again(pilot_plan), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == html.encode()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"plan\.html"):
        report.write(bare, tmp_path / "file" / "plan.html")


def test_hostile_names_are_escaped_on_the_page(pilot_plan: Plan) -> None:
    hostile = "<script>alert('$x$')</script>"
    # The attack stands in names of arms, and in every text that comes from a pilot.
    content = to_plain(renamed(pilot_plan, logit=hostile))
    content["pilot"]["endpoint"]["label"] = content["device"] = content["pilot"]["directory"] = (
        "<b onclick=x>&amp;"
    )
    content["fits"]["scratch"]["cautions"] = ["<img src=x>"]
    check_escaped(report.html(from_plain(Plan, content, "plan.json:")), hostile)


def shown(pilot_plan: Plan) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(table.summary(pilot_plan))
    return " ".join(console.file.getvalue().split())


def test_terminal_summary_has_headline_forecasts_and_sources(pilot_plan: Plan) -> None:
    printed = shown(renamed(pilot_plan, logit="[red]logit[/red]"))
    assert printed.startswith(
        " ".join(verdict.headline(pilot_plan).replace("logit", "[red]logit[/red]").split())
    )
    # The table has the forecast, and below it every source speaks.
    last = pilot_plan.fits["scratch"].predictions[-1]
    assert f"1.00e15 {last.mean:.3f} [{last.low:.3f}, {last.high:.3f}]" in printed
    assert "extrapolated beyond 1.00e13 FLOPs" in printed
    for source in ("Fit of this pilot", "Check on held-out budgets", "Published laws"):
        assert f"{source}: " in printed
