"""Draw the tables and the picture of docs/findings.md from the studies' results in findings/.

    python -m benchmarks.findings            prints the tables, and draws docs/images/findings.png

`tests/benchmarks/test_findings.py` holds that the document has these tables.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt

from benchmarks.tables import markdown
from kdjax.report import numbers, summary
from kdjax.results.store import read_results
from kdjax.results.study import Results
from kdjax.results.tuning import TuningResults
from kdjax.storage.typed_json import read_typed
from kdjax.study.judgement.gaps import contrast_studies

ROOT = Path(__file__).parents[1]
HOUR = ROOT / "findings" / "hour"
PICTURE = ROOT / "docs" / "images" / "findings.png"
ENDPOINT = "mlm_probe"
BUDGETS = ("3.2e11", "1e12", "3.2e12")
"""Budgets in FLOPs, as their files are named."""
REPEATED = {"2.4e5": "240,000", "7.5e4": "75,000"}
"""Unique tokens as in a file's name -> in words."""
LABEL_SHIFTS = {"scratch": 4, "logit": -5, "tinybert": 0, "minilm": 0}
"""Points by which labels are moved, so that none covers another."""
COLOURS = {"scratch": "#444444", "logit": "#1f77b4", "tinybert": "#d62728", "minilm": "#2ca02c"}


BASELINE = "scratch"
DISTILLED = [arm for arm in COLOURS if arm != BASELINE]


def values(study: Results, arm: str) -> list[float]:
    """Return an arm's values on the primary endpoint, one for each seed."""
    return [run.metrics[ENDPOINT] for run in study.runs if run.arm == arm]


def mean_and_spread(study: Results, arm: str) -> str:
    """Return mean and standard deviation over seeds, as text."""
    spread = summary.spread(values(study, arm))
    assert spread is not None
    return numbers.spread(spread.mean, spread.sd)


def against_scratch(study: Results, arm: str) -> str:
    """Return an arm's verdict against scratch, with the difference and its 95% interval."""
    endpoint = next(endpoint for endpoint in study.endpoints if endpoint.name == ENDPOINT)
    difference = summary.difference(study, endpoint, arm, BASELINE)
    assert difference is not None
    return f"{difference.outcome}, {interval(difference.mean, difference.low, difference.high)}"


def interval(mean: float | None, low: float | None, high: float | None) -> str:
    """Return a difference with its interval, as text."""
    assert mean is not None and low is not None and high is not None
    return f"{numbers.signed(mean)} [{numbers.signed(low)}, {numbers.signed(high)}]"


def values_table(studies: Mapping[str, Results]) -> str:
    """Return each arm's values on the primary endpoint, a column for each study."""
    rows = []
    for arm in COLOURS:
        rows.append([f"`{arm}`", *(mean_and_spread(study, arm) for study in studies.values())])
    return markdown(["arm", *studies], rows)


def verdict_table(studies: Mapping[str, Results]) -> str:
    """Return each arm's verdict against scratch, a column for each study."""
    rows = []
    for arm in DISTILLED:
        rows.append([f"`{arm}`", *(against_scratch(study, arm) for study in studies.values())])
    return markdown(["against `scratch`", *studies], rows)


def contrast_table(pairs: Mapping[str, tuple[Results, Results]]) -> str:
    """Return how each arm's gap to scratch differs between two studies.

    Args:
        pairs: head of a column -> the studies, whose gaps are subtracted in this order.
    """
    columns = []
    for first, second in pairs.values():
        changes = contrast_studies(first, second, ("first", "second"))
        columns.append({change.arm: change for change in changes if change.endpoint == ENDPOINT})
    rows = []
    for arm in DISTILLED:
        changes_of_arm = [column[arm] for column in columns]
        cells = [f"{c.verdict}, {interval(c.difference, c.low, c.high)}" for c in changes_of_arm]
        rows.append([f"`{arm}`", *cells])
    return markdown(["gain over `scratch`", *pairs], rows)


def tuning_table(tunings: Mapping[str, TuningResults]) -> str:
    """Return the settings that were best for each arm, a column for each tuning."""
    rows = []
    for arm in COLOURS:
        cells = []
        for tuning in tunings.values():
            best = tuning.arms[arm].best
            texts = []
            for name, value in best.settings.items():
                edge = tuning.arms[arm].edges.get(name)
                mark = f" ({edge} end)" if edge else ""
                texts.append(f"{name.split('.')[-1].replace('_', ' ')} {float(value):.2g}{mark}")
            cells.append(", ".join(texts))
        rows.append([f"`{arm}`", *cells])
    return markdown(["arm", *tunings], rows)


def teachers_mean(study: Results) -> float:
    """Return the mean of the teachers' own values on the primary endpoint."""
    found = [
        reference.metrics[ENDPOINT]
        for reference in study.references
        if reference.name.startswith("teacher") and ENDPOINT in reference.metrics
    ]
    return statistics.mean(found)


def draw(studies: Mapping[str, Results], path: Path) -> None:
    """Draw each arm's values on the primary endpoint against the budget.

    Args:
        studies: budget as text -> results.
        path: PNG that is written.
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    budgets = [float(budget) for budget in studies]
    for number, (arm, colour) in enumerate(COLOURS.items()):
        means = [statistics.mean(values(study, arm)) for study in studies.values()]
        axes.plot(budgets, means, color=colour, linewidth=2)
        axes.annotate(
            arm,
            (budgets[-1], means[-1]),
            xytext=(14, LABEL_SHIFTS[arm]),
            textcoords="offset points",
            va="center",
            color=colour,
        )
        # Every seed, a little apart, so that arms do not cover one another
        for budget, study in zip(budgets, studies.values(), strict=True):
            found = values(study, arm)
            shifted = budget * math.exp(0.035 * (number - 1.5))
            axes.scatter([shifted] * len(found), found, color=colour, s=12, alpha=0.7, linewidth=0)

    # What counts of the text alone reach, and what the teachers do
    first_study = next(iter(studies.values()))
    losses = first_study.corpus.ngram_losses
    assert losses is not None
    levels = {"unigram": losses.unigram, "left neighbour": losses.left_neighbor}
    levels["mean of the three teachers"] = teachers_mean(first_study)
    for label, loss in levels.items():
        axes.axhline(loss, color="#999999", linewidth=0.8, linestyle=":")
        axes.annotate(label, (budgets[0] * 0.87, loss), va="bottom", color="#777777", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(budgets[0] * 0.85, budgets[-1] * 1.5)
    axes.set_xticks(budgets, [f"{budget:.3g}" for budget in budgets])
    axes.minorticks_off()
    axes.set_xlabel("budget of a run, FLOPs")
    axes.set_ylabel("MLM probe, held-out loss, nats a token")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def hour() -> dict[str, Results]:
    """Read the studies of text that hardly repeats: budget -> results."""
    return {budget: read_results(HOUR / f"{budget}.json") for budget in BUDGETS}


def repeats() -> dict[str, Results]:
    """Read the studies of text that repeats: unique tokens in words -> results."""
    return {words: read_results(HOUR / f"repeats-{name}.json") for name, words in REPEATED.items()}


def tunings() -> dict[str, TuningResults]:
    """Read the tunings: what was tuned for -> its results."""
    found = {}
    for name in (*BUDGETS, "repeats"):
        found[name] = read_typed(TuningResults, HOUR / f"tuning-{name}.json")
    return found


def tables() -> list[str]:
    """Return the tables of docs/findings.md, in their order."""
    by_budget = hour()
    whole = by_budget["1e12"]
    repeated = repeats()
    by_tokens = {"all": whole, **repeated}
    few, fewer = repeated.values()
    by_repetition = {
        "240,000 against all": (few, whole),
        "75,000 against all": (fewer, whole),
        "75,000 against 240,000": (fewer, few),
    }
    return [
        values_table(by_budget),
        verdict_table(by_budget),
        values_table(by_tokens),
        verdict_table(by_tokens),
        contrast_table(by_repetition),
        contrast_table({"1e12 against 3.2e12": (whole, by_budget["3.2e12"])}),
        tuning_table(tunings()),
    ]


def main() -> None:
    """Print the tables and draw the picture."""
    print("\n\n".join(tables()))
    draw(hour(), PICTURE)


if __name__ == "__main__":
    main()
