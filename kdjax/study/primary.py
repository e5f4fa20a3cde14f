"""The primary endpoint: every arm against the baseline arm, with one chance in twenty of a false
winner among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kdjax.config import EvaluationConfig
from kdjax.evaluation.statistics import against_baseline
from kdjax.report.summary import baseline_arm


def primary_endpoint(
    evaluation: EvaluationConfig,
    endpoints: Sequence[Mapping[str, Any]],
    arms: Mapping[str, Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
) -> dict[str, Any] | None:
    """Test every arm that has the primary endpoint against the baseline arm.

    Args:
        evaluation: the recipe's settings.
        endpoints: as results.json has them.
        arms: name -> an arm as results.json has it.
        runs: as results.json has them.

    Returns:
        `endpoint`, `baseline`, and `comparisons`: a `BaselineComparison` of each other arm as plain
        values. None where the recipe names no primary endpoint, or the baseline arm or every other
        arm lacks it.
    """
    endpoint = next((e for e in endpoints if e["name"] == evaluation.primary), None)
    if endpoint is None:
        return None
    baseline = baseline_arm(arms)
    if baseline not in endpoint["arms"] or len(endpoint["arms"]) < 2:
        return None
    values: dict[str, dict[int, float]] = {arm: {} for arm in endpoint["arms"]}
    for run in runs:
        if run["arm"] in values:
            values[run["arm"]][run["seed"]] = run["metrics"][endpoint["name"]]
    comparisons = against_baseline(
        values,
        baseline,
        confidence=evaluation.confidence,
        margin=evaluation.margin,
        better=endpoint["better"],
    )
    return {
        "endpoint": endpoint["name"],
        "baseline": baseline,
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }


def after_holm(
    verdicts: Sequence[Mapping[str, Any]], primary: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Take back a win over, or of, the baseline arm that Holm's adjustment does not leave standing.

    Args:
        verdicts: of one endpoint, as results.json has them.
        primary: from `primary_endpoint`.

    Returns: The same verdicts; those of the primary endpoint's tests are INCONCLUSIVE where the
        test is and the unadjusted interval alone would have named a winner.
    """
    undecided: set[frozenset[str]] = set()
    if primary is not None:
        for comparison in primary["comparisons"]:
            if comparison["verdict"] == "INCONCLUSIVE":
                undecided.add(frozenset((comparison["arm"], primary["baseline"])))
    rows = []
    for verdict in verdicts:
        is_primary = primary is not None and verdict["endpoint"] == primary["endpoint"]
        row = dict(verdict)
        if (
            is_primary
            and row["verdict"] == "BEATS"
            and frozenset((row["a"], row["b"])) in undecided
        ):
            row["verdict"] = "INCONCLUSIVE"
        rows.append(row)
    return rows
