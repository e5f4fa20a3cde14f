"""report.html: a study on one self-contained page, made from the content of results.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kdjax.budget.ledger import ACCOUNTS
from kdjax.config import plain
from kdjax.files import write_text
from kdjax.study import numbers, plots, summary, svg, verdict
from kdjax.study.summary import Endpoint, Results, Spread


def write(results: dict[str, Any], path: Path) -> None:
    """Writes the report, whole or not at all; the same results give the same bytes.

    Args:
        results: the content of results.json.
        path: of the page.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, html(results))


def html(results: Results) -> str:
    """The page: no scripts, no network, no other files; everything from outside is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for function in (numbers.flops, numbers.count, numbers.score, numbers.signed, numbers.interval, numbers.percent):
        environment.filters[function.__name__] = function
    environment.filters |= {"duration": numbers.duration, "listed": numbers.listed, "spread": _spread}
    other = summary.yardstick(results)
    return environment.get_template("report.html.j2").render(
        results=results,
        headline=verdict.headline(results),
        basis=_basis(results),
        other=other,
        question=_question(results, other),
        answers=verdict.answers(results),
        keys={arm: (n % len(svg.COLOURS), svg.GLYPHS[n % len(svg.GLYPHS)]) for n, arm in enumerate(results["arms"])},
        colours=svg.COLOURS,
        parts=[
            (words, *svg.PART_COLOURS[part], any(run["spent"][part] for run in results["runs"]))
            for part, words in ((part, part.replace("_", " ")) for part in ACCOUNTS)
        ],
        plots={
            "differences": plots.differences(results),
            "spending": plots.spending(results),
            "learning": plots.learning(results),
            "layers": plots.layers(results),
        },
        beside_teacher=_beside_teacher(results),
        scores=_scores(results, other),
        references=summary.references(results),
        spending=_spending(results, other),
        clocks=_clocks(results),
        chosen=_chosen(results),
        pairs=_pairs(results),
        config=yaml.safe_dump(plain(results["config"]), sort_keys=False, allow_unicode=True),
    )


def _spread(found: Spread | None) -> str:
    return numbers.spread(found.mean, found.sd) if found else "–"


def _question(results: Results, other: str) -> str:
    distilled = any(summary.has_teacher(results, arm) for arm in results["arms"])
    if distilled and not summary.has_teacher(results, other):
        return "Does distilling beat pretraining from scratch?"
    return f"Against {other}"


def _basis(results: Results) -> str:
    """What the verdicts rest on."""
    evaluation = results["config"]["evaluation"]
    shared = sorted({v["n"] for v in results["verdicts"]})
    if not shared or shared[-1] < 2:
        return (
            "No pair of arms can have an interval, so every verdict is INCONCLUSIVE. Differences are of a single seed."
        )
    over = f"{shared[0]}" if len(shared) == 1 else f"{shared[0]} to {shared[-1]}"
    count = sum(v["low"] is not None for v in results["verdicts"])
    return (
        f"Paired {numbers.percent(evaluation['confidence'])} Student-t intervals over {over} seeds; {count} of them, "
        f"not adjusted for their number. TIES: the interval lies within ±{evaluation['margin']:g}. "
        "BEATS: otherwise, it leaves out 0. INCONCLUSIVE: neither. "
        "The intervals speak of other seeds, not of other test rows, corpora or tunings."
    )


def _scores(results: Results, other: str) -> dict[str, list[dict[str, Any]]]:
    """Arm -> a cell for each endpoint."""
    return {arm: [_cell(results, arm, endpoint, other) for endpoint in results["endpoints"]] for arm in results["arms"]}


def _cell(results: Results, arm: str, endpoint: Endpoint, other: str) -> dict[str, Any]:
    if arm not in endpoint["arms"]:
        return {"text": "head untrained" if endpoint["kind"] == "mlm" else "–", "outcome": "", "faint": True}
    text = _spread(summary.spread(summary.by_seed(results, arm, endpoint).values()))
    found = summary.difference(results, endpoint, arm, other) if arm != other else None
    outcome = {"beats": f"beats {other}", "loses": f"loses to {other}", "ties": f"ties with {other}"}
    return {"text": text, "outcome": outcome.get(found.outcome, "") if found else "", "faint": False}


def _beside_teacher(results: Results) -> list[dict[str, Any]]:
    """For arms that train the MLM head: KL to the teacher and share of equal predictions, on held-out masks."""
    rows = []
    for arm in results["arms"]:
        runs = [run for run in results["runs"] if run["arm"] == arm]
        details = [run["details"].get("mlm_loss", {}) for run in runs]
        found = [
            one for one in details if one.get("teacher_kl") is not None
        ]  # none for a run before there was a teacher
        if found:
            kl, agreement = (summary.spread(one[f"teacher_{what}"] for one in found) for what in ("kl", "agreement"))
            rows.append({"arm": arm, "kl": kl, "agreement": agreement})
    return rows


def _spending(results: Results, other: str) -> list[dict[str, Any]]:
    """What each arm's runs cost: FLOPs, steps, tokens, and the mean wall-clock of a run by kind, in seconds."""
    rows = []
    for name, arm in results["arms"].items():
        runs = [run for run in results["runs"] if run["arm"] == name]
        rows.append(
            {
                "arm": name,
                "prices": [phase["price"]["total"] for phase in arm["phases"]],
                "ratio": _mean_price(arm) / _mean_price(results["arms"][other]),
                "steps": arm["steps"],
                "tokens": arm["tokens"],
                "epochs": arm["epochs"],
                "spent": sum(run["spent"]["total"] for run in runs) / len(runs) if runs else None,
                "seconds": [
                    sum(run["wall_clock"].get(kind, 0.0) for run in runs) / len(runs) if runs else None
                    for kind in _clocks(results)
                ],
            }
        )
    return rows


def _mean_price(arm: Mapping[str, Any]) -> float:
    """FLOPs of a step, over all of an arm's phases."""
    return float(sum(phase["steps"] * phase["price"]["total"] for phase in arm["phases"]) / arm["steps"])


def _clocks(results: Results) -> list[str]:
    """The kinds of wall-clock that any run has."""
    return list(dict.fromkeys(kind for run in results["runs"] for kind in run["wall_clock"]))


def _chosen(results: Results) -> list[tuple[str, list[dict[str, Any]]]]:
    """For each task and arm: the layers chosen on dev, seed by seed; test scores of the chosen and last layer."""
    tables = []
    for endpoint in (e for e in results["endpoints"] if e["kind"] == "probe"):
        rows = []
        for arm in results["arms"]:
            runs = [run for run in results["runs"] if run["arm"] == arm and endpoint["name"] in run["details"]]
            found = [run["details"][endpoint["name"]] for run in runs]
            if found:
                rows.append(
                    {
                        "arm": arm,
                        "layers": ", ".join(str(one["layer"]) for one in found),
                        "best": summary.spread(run["metrics"][endpoint["name"]] for run in runs),
                        "last": summary.spread(one["last_layer"] for one in found),
                    }
                )
        if rows:
            tables.append((summary.task_of(endpoint), rows))
    return tables


def _pairs(results: Results) -> list[tuple[Endpoint, list[dict[str, Any]]]]:
    of = {e["name"]: [v for v in results["verdicts"] if v["endpoint"] == e["name"]] for e in results["endpoints"]}
    return [(endpoint, of[endpoint["name"]]) for endpoint in results["endpoints"] if of[endpoint["name"]]]
