"""plan.html: a plan on one self-contained page."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

from kdjax.budget.accounting import CASES
from kdjax.budget.price import PARTS
from kdjax.plan import plots, strip, verdict
from kdjax.plan.phrases import say
from kdjax.plan.ranking import comparison_at, ranking
from kdjax.plan.schema import FittedLaw, FittedPlan, ForecastComparison, Plan
from kdjax.report import margins, numbers, page
from kdjax.report.teacher_accounting import MEANINGS
from kdjax.report.usage import Column, Table, TableCell
from kdjax.storage.files import write_text


def write(plan: Plan, path: Path) -> None:
    """Write the page, whole or not at all; the same plan gives the same bytes.

    Args:
        plan: plan to show.
        path: file of the page.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, html(plan))


def html(plan: Plan) -> str:
    """Build the page."""
    fitted = FittedPlan.from_plan(plan)
    return page.render(
        "plan.html.j2",
        plan.arms,
        plan.config,
        found=plan,
        fitted=fitted is not None,
        headline=verdict.headline(plan),
        baseline=plan.baseline_arm,
        margins=_margins(fitted),
        sources=verdict.sources(plan),
        budgets=_heads(plan, fitted),
        rows=_rows(plan),
        **_of_fit(fitted),
        prices=_prices(plan),
        prior=_prior(plan),
        prior_kind=verdict.PRIOR[0].lower() + verdict.PRIOR[1:],
        text=_text(plan),
        paid=MEANINGS[plan.case],
    )


def _of_fit(fitted: FittedPlan | None) -> dict[str, Any]:
    """Return the parts of the page that come from a pilot; empty ones without a pilot."""
    # The template takes the same names in either case.
    if fitted is None:
        figures = dict.fromkeys(("strip", "curves", "differences", "held_out"))
        empty: dict[str, Any] = {"plots": figures, "answers": {}, "laws": {}}
        return {**empty, "verdicts": [], "leaders": [], "cases": []}
    budgets = fitted.plan.budgets
    return {
        "plots": {
            "strip": strip.draw(fitted),
            "curves": plots.draw_curves(fitted),
            "differences": plots.draw_differences(fitted),
            "held_out": plots.draw_held_out(fitted),
        },
        "answers": verdict.answers(fitted),
        "laws": {arm: _law(law) for arm, law in fitted.fits.items()},
        "verdicts": [_verdicts(comparison, budgets) for comparison in fitted.of_case()],
        "leaders": [verdict.leader(ranking(fitted, flops)) for flops in budgets],
        "cases": _cases(fitted),
    }


def _heads(plan: Plan, fitted: FittedPlan | None) -> list[tuple[str, str]]:
    """Return the heads of columns: budgets, with a note where they lie beyond the pilot's."""
    heads = []
    for flops in plan.budgets:
        note = ""
        if fitted is not None and not min(fitted.pilot.budgets) <= flops <= fitted.largest_budget:
            note = "extrapolated"
        heads.append((numbers.flops(flops), note))
    return heads


def _rows(plan: Plan) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return each budget with a row for each arm: what it buys, and what is forecast."""
    rows = []
    for n, flops in enumerate(plan.budgets):
        rows.append((numbers.flops(flops), [_row(plan, n, arm) for arm in plan.arms]))
    return rows


def _row(plan: Plan, n: int, arm: str) -> dict[str, Any]:
    """Return an arm's row of the n-th budget: its steps and tokens, and the forecast."""
    bought = plan.arms[arm].bought[n]
    row = {"arm": arm, "bought": bought is not None}
    if bought is None:
        return row

    # Dashes stay where nothing is forecast, and where the text has no end.
    forecast = {"prediction": "–", "interval": ""}
    law = (plan.fits or {}).get(arm)
    if law and (point := law.at(plan.budgets[n])):
        interval = numbers.metric_interval(point.low, point.high)
        forecast = {"prediction": numbers.score(point.mean), "interval": interval}
    epochs = f"{bought.epochs:.3g}" if bought.epochs is not None else "–"
    return {
        **row,
        **forecast,
        "steps": numbers.count(bought.steps),
        "tokens": numbers.tokens(bought.tokens),
        "epochs": epochs,
        "worth": numbers.tokens(bought.effective_tokens),
        "share": numbers.percent(bought.effective_tokens / bought.tokens),
    }


def _verdicts(
    comparison: ForecastComparison, budgets: tuple[float, ...]
) -> tuple[str, list[tuple[str, str, str]]]:
    """Return a pair of arms, and at each budget the verdict, the difference and its interval."""
    words = {
        "BEATS": f"{comparison.a} BEATS",
        "LOSES": f"{comparison.b} BEATS",
        "TIES": "TIES",
        "INCONCLUSIVE": "INCONCLUSIVE",
    }
    # Dashes stay at budgets at which the arms were not compared.
    cells = []
    for flops in budgets:
        point = comparison_at(comparison, flops)
        cell = ("–", "", "")
        if point is not None:
            interval = numbers.interval(point.low, point.high)
            cell = (words[point.verdict], numbers.signed(point.mean), interval)
        cells.append(cell)
    return f"{comparison.a} {numbers.MINUS} {comparison.b}", cells


def _law(law: FittedLaw) -> dict[str, Any]:
    """Return a law as the page shows it: formula, parameters with intervals, scatter, cautions."""
    symbols = []
    for name, parameter in law.parameters.items():
        interval = f"[{_value(parameter.low)}, {_value(parameter.high)}]"
        symbols.append((name, _value(parameter.value), interval))
    return {**vars(law), "formula": _formula(law.formula), "symbols": symbols}


def _formula(text: str) -> str:
    """Return a law as a formula: `E + K · D′⁻ᵏ`."""
    for plain, written in (
        ("^-k", "⁻ᵏ"),
        ("^a", "ᵃ"),
        ("^b", "ᵇ"),
        ("^g", "ᵍ"),
        ("'", "′"),
        ("*", "·"),
    ):
        text = text.replace(plain, written)
    return text.replace(" - ", f" {numbers.MINUS} ")


def _value(value: float | None) -> str:
    """Return a parameter as text, whatever its size; None is an open end of an interval."""
    if value is None:
        return "∞"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}"
    return numbers.flops(value)


def _cases(fitted: FittedPlan) -> list[dict[str, Any]]:
    """Return who is ahead in each case of who pays for the teacher; none without a teacher."""
    prices = chain.from_iterable(arm.prices for arm in fitted.plan.arms.values())
    if not any(price.teacher_forward for price in prices):
        return []

    # A case that was not compared lacks the price of the teacher's training.
    sentences = verdict.cases(fitted)
    unknown = say("plan_case_unknown")
    return [
        {
            "case": case,
            "meaning": MEANINGS[case],
            "enforced": case == fitted.plan.case,
            "sentences": sentences.get(case, [unknown]),
        }
        for case in CASES
    ]


def _prices(plan: Plan) -> Table:
    """Return the table of a step's FLOPs by part; an arm of several phases has one for each."""
    parts = ("total", *PARTS)
    rows: dict[str, list[TableCell]] = {}
    for name, arm in plan.arms.items():
        rows[name] = []
        for part in parts:
            flops = "; then ".join(numbers.flops(getattr(price, part)) for price in arm.prices)
            rows[name].append((flops, ""))
    columns = tuple(Column(part.replace("_", " ")) for part in parts)
    return Table("FLOPs of a step", columns, rows)


def _prior(plan: Plan) -> dict[str, Any]:
    """Return the losses of published laws for each arm at each budget."""
    baseline = plan.baseline_arm
    baseline_losses = plan.prior.arms[baseline].losses
    rows = {}
    for name, arm in plan.prior.arms.items():
        cells: list[TableCell] = [(arm.law or "none", "")]
        # The gap to the baseline arm takes a loss of each; a budget may buy neither a step.
        for loss, baseline_loss in zip(arm.losses, baseline_losses, strict=True):
            gap = ""
            if name != baseline and loss is not None and baseline_loss is not None:
                gap = numbers.signed(loss - baseline_loss)
            cells.append(("–" if loss is None else numbers.score(loss), gap))
        rows[name] = cells

    # The table, and where each law is from and what it was fitted to.
    heads = (Column("law"), *(Column(numbers.flops(flops)) for flops in plan.budgets))
    caption = f"Loss by published laws, nats per token; below, the difference to {baseline}"
    sources = []
    for name, source in plan.prior.sources.items():
        scopes = (_scope(source.parameters), _scope(source.tokens))
        sources.append((name, source.citation, source.fitted_on, *scopes))
    return {
        "table": Table(caption, heads, rows),
        "sentences": verdict.prior_sentences(plan),
        "sources": sources,
    }


def _scope(ends: tuple[float, float]) -> str:
    """Return as text the range of values that a law was fitted to."""
    return f"{numbers.flops(ends[0])} to {numbers.flops(ends[1])}"


def _text(plan: Plan) -> str:
    """Return the phrase on how much unique text there is."""
    if plan.unique_tokens is not None:
        return say("text_repeated", tokens=numbers.count(plan.unique_tokens))
    if plan.config["data"]["regime"] == "unlimited":
        return say("text_unlimited")
    return say("text_unknown")


def _margins(fitted: FittedPlan | None) -> str:
    """Return the margin of a tie as text; nothing where no pilot was fitted."""
    if fitted is None:
        return ""
    return margins.text(fitted.plan.config, [fitted.pilot.endpoint])
