"""Reading and writing results: every field is checked on the way (`kdjax.storage.typed_json`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdjax.arms.baseline import first_without_teacher
from kdjax.budget.accounting import EVERY_LEDGER
from kdjax.errors import InputError
from kdjax.results.runs import RunResult
from kdjax.results.study import VERSION, Results
from kdjax.storage.files import read_json, write_json
from kdjax.storage.typed_json import check_fields, from_plain, to_plain

RESULTS = "results.json"
"""File of a study's results, in its directory."""


def write_results(path: Path, results: Results) -> None:
    """Write results.json, whole or not at all.

    Args:
        path: the file to write.
        results: the results to write.
    """
    write_json(path, to_plain(results))


def result_of(content: Any, path: Path, arm: str, seed: int) -> RunResult:
    """Read the content of the result.json of a run that is known.

    Args:
        content: plain values, as JSON gives them.
        path: the file, for messages.
        arm: name of the run's arm.
        seed: the run's seed.

    Raises:
        InputError: a field is missing, mistyped or unknown, or it is the result of another run.
    """
    row = run_result(content, path)
    if (row.arm, row.seed) != (arm, seed):
        raise InputError(
            f"{path}: this is the result of {row.arm}, seed {row.seed}, expected that of {arm}, "
            f"seed {seed}"
        )
    return row


def run_result(content: Any, path: Path) -> RunResult:
    """Read the content of a run's result.json.

    Args:
        content: plain values, as JSON gives them.
        path: the file, for messages.

    Raises:
        InputError: a field is missing, mistyped or unknown.
    """
    row = from_plain(RunResult, content, f"{path}:")
    # Mappings whose keys are known, though their type does not say them.
    check_fields(row.spent, dict.fromkeys((*EVERY_LEDGER, "total"), int), f"{path}: spent")
    check_fields(row.metrics, dict.fromkeys(row.details, float), f"{path}: metrics")
    return row


def read_results(path: Path) -> Results:
    """Read results.json.

    Args:
        path: the file.

    Raises:
        InputError: no JSON, a version this kdjax does not know, or a field that is missing,
            mistyped or unknown.
    """
    return results_of(read_json(path), path)


def results_of(content: Any, path: Path) -> Results:
    """Read the content of a results.json, of this version or an earlier one.

    Args:
        content: plain values, as JSON gives them.
        path: the file, for messages.

    Raises:
        InputError: no JSON, a version this kdjax does not know, or a field that is missing,
            mistyped or unknown.
    """
    if not isinstance(content, dict):
        raise InputError(f"{path}: found {content!r:.60}, expected the results of a study")
    # Fields that a later version renamed would read as missing ones: the version is told first.
    version = content.get("version", 1)
    if version not in range(1, VERSION + 1):
        raise InputError(
            f"{path}: version is {version!r}, expected at most {VERSION}; read it with the kdjax "
            f"that wrote it, {content.get('kdjax', 'a later one')}"
        )
    try:
        if version == 1:
            content = _second_version(content, path)
        if version < VERSION:
            content = _third_version(content, path)
        return from_plain(Results, content, f"{path}:")
    except InputError as error:
        raise InputError(
            f"{error}; `kdjax compare` with the study's recipe writes the file anew from its runs"
        ) from None


def _second_version(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the content of a file of the first version with what the second adds."""
    arms = from_plain(dict[str, dict[str, Any]], content.get("arms"), f"{path}: arms")
    needs_teacher = {name: bool(arm.get("needs_teacher")) for name, arm in arms.items()}
    baseline = first_without_teacher(needs_teacher)
    return {"version": 2, "baseline_arm": baseline, **content}


def _third_version(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the content of a file of the second version as the third has it.

    The tests of the primary endpoint stood apart; their p-values join its verdicts.
    """
    # A loss was told from a score by its unit.
    check_fields(content, {"endpoints": tuple[dict[str, Any], ...]}, f"{path}:")
    endpoints = []
    for endpoint in content["endpoints"]:
        is_loss = endpoint.get("unit") == "nats"
        endpoints.append({**endpoint, "scale": "nats"} if is_loss else endpoint)
    content = {**content, "version": VERSION, "endpoints": endpoints}
    if content.get("primary") is None:
        return content
    kinds = {"endpoint": str, "baseline": str, "comparisons": tuple[dict[str, Any], ...]}
    primary = check_fields(content["primary"], kinds, f"{path}: primary")
    tests = {row.get("arm"): row for row in primary["comparisons"]}
    check_fields(content, {"verdicts": tuple[dict[str, Any], ...]}, f"{path}:")
    joined = []
    for verdict in content["verdicts"]:
        pair = {verdict.get("a"), verdict.get("b")}
        others = pair - {primary["baseline"]}
        if verdict.get("endpoint") == primary["endpoint"] and len(others) == 1:
            test = tests.get(others.pop(), {})
            p_values = {name: test.get(name) for name in ("p_value", "p_adjusted")}
            joined.append({**verdict, **p_values, "family": "confirmatory"})
        else:
            joined.append(verdict)
    return {**content, "primary": primary["endpoint"], "verdicts": joined}
