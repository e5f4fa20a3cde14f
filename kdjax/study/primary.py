"""The primary endpoint: every arm against the baseline arm, with one chance in twenty of a false winner among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kdjax.config import Config, EvaluationConfig
from kdjax.errors import InputError, nearest
from kdjax.evaluate.statistics import against_baseline
from kdjax.study import numbers
from kdjax.study.summary import Results, baseline_arm
from kdjax.train.arm import Arm


def check_primary(config: Config, arms: Mapping[str, Arm]) -> None:
    """Check that the recipe measures the endpoint it names as primary, on arms that can be compared.

    Raises:
        InputError: `evaluation.primary` names none of the recipe's endpoints; or it is the loss of the students' own
            MLM heads, and the baseline arm or every other arm trains none.
    """
    evaluation = config.evaluation
    losses = ["mlm_loss", "mlm_probe"] if evaluation.mlm_probe.tokens else ["mlm_loss"]
    known = list(losses)
    for text in evaluation.texts:
        known += [f"{loss}.{text}" for loss in losses]
    known += [f"probe.{task}" for task in evaluation.tasks]
    if evaluation.finetune.steps:
        known += [f"finetune.{task}" for task in evaluation.tasks]
    if evaluation.primary and evaluation.primary not in known:
        raise InputError(
            f"evaluation.primary is {evaluation.primary!r}, expected one of {', '.join(known)}"
            f"{nearest(evaluation.primary, known)}"
        )
    if evaluation.primary.partition(".")[0] == "mlm_loss" and len(arms) > 1:
        _check_heads(evaluation.primary, arms)


def _check_heads(primary: str, arms: Mapping[str, Arm]) -> None:
    """Raise InputError unless the baseline arm and another one train MLM heads, whose loss is to be compared."""
    with_head = [name for name, arm in arms.items() if arm.trains_mlm_head]
    without_teacher = [name for name, arm in arms.items() if not arm.needs_teacher]
    baseline = next(iter(without_teacher or arms))
    if baseline in with_head and len(with_head) > 1:
        return
    listed = ", ".join(with_head) or "no arm"
    raise InputError(
        f"evaluation.primary is {primary!r}, expected an endpoint that {baseline} and another arm have, for instance "
        f"'mlm_probe': of the arms, {listed} trains an MLM head"
    )


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
        `endpoint`, `baseline`, and `comparisons`: a `BaselineComparison` of each other arm as plain values. None where
        the recipe names no primary endpoint, or the baseline arm or every other arm lacks it.
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
        values, baseline, confidence=evaluation.confidence, margin=evaluation.margin, better=endpoint["better"]
    )
    return {
        "endpoint": endpoint["name"],
        "baseline": baseline,
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }


def after_holm(verdicts: Sequence[Mapping[str, Any]], primary: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Take back a win over, or of, the baseline arm that Holm's adjustment does not leave standing.

    Args:
        verdicts: of one endpoint, as results.json has them.
        primary: from `primary_endpoint`.

    Returns:
        The same verdicts; those of the primary endpoint's tests are INCONCLUSIVE where the test is and the unadjusted
        interval alone would have named a winner.
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
        if is_primary and row["verdict"] == "BEATS" and frozenset((row["a"], row["b"])) in undecided:
            row["verdict"] = "INCONCLUSIVE"
        rows.append(row)
    return rows


def sentences(results: Results) -> list[str]:
    """Say what the primary endpoint shows, an arm a sentence, each with its interval and adjusted p-value.

    Args:
        results: the content of results.json.
    """
    primary = results.get("primary")
    if not primary:
        return []
    endpoint = next(e for e in results["endpoints"] if e["name"] == primary["endpoint"])
    count = len(primary["comparisons"])
    tests = "one paired t-test" if count == 1 else f"{count} paired t-tests, adjusted by Holm's method"
    lines = [f"Primary endpoint, {endpoint['label']}, against {primary['baseline']} ({tests}):"]
    for comparison in primary["comparisons"]:
        lines.append(_sentence(comparison, primary["baseline"], endpoint["unit"]))
    return lines


def _sentence(comparison: Mapping[str, Any], baseline: str, unit: str) -> str:
    arm = comparison["arm"]
    if comparison["p_adjusted"] is None:
        return f"{arm} and {baseline} share {comparison['n']} seeds, expected at least two for a test."
    outcome = {
        "BEATS": f"{arm} BEATS {baseline}",
        "LOSES": f"{baseline} BEATS {arm}",
        "TIES": f"{arm} TIES with {baseline}, the interval lies within the margin",
        "INCONCLUSIVE": f"{arm} cannot be told from {baseline}",
    }[comparison["verdict"]]
    interval = numbers.interval(comparison["low"], comparison["high"])
    excludes_zero = comparison["low"] > 0 or comparison["high"] < 0
    why = ""
    if comparison["verdict"] == "INCONCLUSIVE" and excludes_zero:
        why = " (the interval alone leaves out 0; with so many tests that is not enough)"
    p_value = "p" if comparison["p_adjusted"] == comparison["p_value"] else "adjusted p"
    return (
        f"{outcome}: {numbers.signed(comparison['difference'])} {unit}, {interval} over "
        f"{comparison['n']} seeds, {p_value} {numbers.p_value(comparison['p_adjusted'])}{why}."
    )
