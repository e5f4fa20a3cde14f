"""plan.html: a plan on one self-contained page, made from the content of plan.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.budget.accounting import CASES
from kdjax.budget.price import PARTS
from kdjax.files import write_text
from kdjax.plan import plots, verdict
from kdjax.plan.standing import Plan, at, contests, reach, standing, yardstick
from kdjax.report import numbers, page
from kdjax.report.phrases import say
from kdjax.report.teacher_accounting import MEANINGS
from kdjax.report.usage import Cell, Column, Table


def write(found: dict[str, Any], path: Path) -> None:
    """Writes the page, whole or not at all; the same plan gives the same bytes.

    Args:
        found: the content of plan.json.
        path: of the page.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, html(found))


def html(found: Plan) -> str:
    """The page."""
    fitted = found["fits"] is not None
    taught = any(
        price["teacher_forward"] for arm in found["arms"].values() for price in arm["prices"]
    )
    return page.render(
        "plan.html.j2",
        found["arms"],
        found["config"],
        found=found,
        fitted=fitted,
        headline=verdict.headline(found),
        other=yardstick(found),
        sources=verdict.sources(found),
        answers=verdict.answers(found) if fitted else {},
        budgets=_heads(found),
        plots={
            "curves": plots.curves(found) if fitted else None,
            "differences": plots.differences(found) if fitted else None,
            "held_out": plots.held_out(found) if fitted else None,
        },
        rows=_rows(found),
        verdicts=_verdicts(found) if fitted else [],
        leaders=[verdict.leader(standing(found, flops)) for flops in found["budgets"]]
        if fitted
        else [],
        laws=_laws(found) if fitted else {},
        cases=_cases(found) if fitted and taught else [],
        prices=_prices(found),
        prior=_prior(found),
        prior_kind=verdict.PRIOR[0].lower() + verdict.PRIOR[1:],
        text=_text(found),
        paid=MEANINGS[found["case"]],
    )


def _heads(found: Plan) -> list[tuple[str, str]]:
    """Budgets, and how they lie to the pilot."""
    if found["fits"] is None:
        return [(numbers.flops(flops), "") for flops in found["budgets"]]
    largest = reach(found)
    smallest = min(found["pilot"]["budgets"])
    return [
        (numbers.flops(flops), "" if smallest <= flops <= largest else "extrapolated")
        for flops in found["budgets"]
    ]


def _rows(found: Plan) -> list[tuple[str, list[dict[str, Any]]]]:
    """For each budget, a row for each arm: what it buys, and what the arm is forecast to reach."""
    return [
        (numbers.flops(flops), [_row(found, n, arm) for arm in found["arms"]])
        for n, flops in enumerate(found["budgets"])
    ]


def _row(found: Plan, n: int, arm: str) -> dict[str, Any]:
    bought = found["arms"][arm]["bought"][n]
    flops = found["budgets"][n]
    if bought is None:
        return {"arm": arm, "bought": False, "prediction": "", "interval": ""}
    told = None
    if found["fits"] is not None and arm in found["fits"]:
        told = next(
            (one for one in found["fits"][arm]["predictions"] if one["flops"] == flops), None
        )
    return {
        "arm": arm,
        "bought": True,
        "steps": numbers.count(bought["steps"]),
        "tokens": numbers.tokens(bought["tokens"]),
        "epochs": "–" if bought["epochs"] is None else f"{bought['epochs']:.3g}",
        "worth": numbers.tokens(bought["effective_tokens"]),
        "share": numbers.percent(bought["effective_tokens"] / bought["tokens"]),
        "prediction": "–" if told is None else numbers.score(told["mean"]),
        "interval": "" if told is None else numbers.between(told["low"], told["high"]),
    }


def _verdicts(found: Plan) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """For each pair of arms: who is ahead at each budget, the difference, its interval."""
    made = []
    for contest in contests(found):
        words = {"a wins": f"{contest['a']} ahead", "b wins": f"{contest['b']} ahead"}
        cells = []
        for point in (at(contest, flops) for flops in found["budgets"]):
            if point is None:
                cells.append(("–", "", ""))
            else:
                told = words[point["verdict"]] if point["verdict"] in words else point["verdict"]
                cells.append(
                    (
                        told,
                        numbers.signed(point["mean"]),
                        numbers.interval(point["low"], point["high"]),
                    )
                )
        made.append((f"{contest['a']} {numbers.MINUS} {contest['b']}", cells))
    return made


def _laws(found: Plan) -> dict[str, dict[str, Any]]:
    """Arm -> its law: formula, parameters with intervals, scatter, reason, cautions."""
    return {
        arm: {
            **fit,
            "formula": _formula(fit["formula"]),
            "symbols": [
                (name, _value(one["value"]), _range(one)) for name, one in fit["parameters"].items()
            ],
        }
        for arm, fit in found["fits"].items()
    }


def _formula(text: str) -> str:
    """A law as people write it: `E + K · D′⁻ᵏ`."""
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


def _range(one: Mapping[str, float | None]) -> str:
    """A parameter's interval; an end that is None lies beyond what numbers can hold."""
    return (
        f"[{', '.join('∞' if end is None else _value(end) for end in (one['low'], one['high']))}]"
    )


def _value(value: float) -> str:
    """A parameter, whatever its size."""
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else numbers.flops(value)


def _cases(found: Plan) -> list[dict[str, Any]]:
    """Who is ahead in each case of who pays for the teacher."""
    told = verdict.cases(found)
    unknown = say("plan_case_unknown")
    return [
        {
            "case": case,
            "meaning": MEANINGS[case],
            "enforced": case == found["case"],
            "sentences": told.get(case, [unknown]),
        }
        for case in CASES
    ]


def _prices(found: Plan) -> Table:
    """FLOPs of a step, part by part; of arms of several phases, phase by phase."""
    columns = ("total", *PARTS)

    def cell(arm: str, part: str) -> Cell:
        return "; then ".join(
            numbers.flops(price[part]) for price in found["arms"][arm]["prices"]
        ), ""

    return Table(
        "FLOPs of a step",
        tuple(Column(name.replace("_", " ")) for name in columns),
        {arm: [cell(arm, part) for part in columns] for arm in found["arms"]},
    )


def _prior(found: Plan) -> dict[str, Any]:
    """What published laws say of each arm at each budget."""
    prior = found["prior"]
    other = yardstick(found)
    theirs = prior["arms"][other]["losses"]
    rows = {}
    for arm, one in prior["arms"].items():
        cells: list[Cell] = []
        for mine, yours in zip(one["losses"], theirs, strict=True):
            gap = (
                ""
                if arm == other or mine is None or yours is None
                else numbers.signed(mine - yours)
            )
            cells.append(("–" if mine is None else numbers.score(mine), gap))
        rows[arm] = [(one["law"] or "none", ""), *cells]
    heads = (Column("law"), *(Column(numbers.flops(flops)) for flops in found["budgets"]))
    return {
        "table": Table(
            f"Loss by published laws, nats per token; below, the difference to {other}", heads, rows
        ),
        "sentences": verdict.of_prior(found),
        "sources": [
            (
                name,
                source["citation"],
                source["fitted_on"],
                *(_scope(source[what]) for what in ("parameters", "tokens")),
            )
            for name, source in prior["sources"].items()
        ],
    }


def _scope(ends: tuple[float, float]) -> str:
    return f"{numbers.flops(ends[0])} to {numbers.flops(ends[1])}"


def _text(found: Plan) -> str:
    """Say how much text there is to repeat."""
    unique = found["unique_tokens"]
    if unique is not None:
        return say("text_repeated", tokens=numbers.count(unique))
    is_unlimited = found["config"]["data"]["regime"] == "unlimited"
    return say("text_unlimited" if is_unlimited else "text_unknown")
