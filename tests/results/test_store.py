"""Results are read as they were written, those of earlier versions too; a fault is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdjax.config import Schedule, TermConfig
from kdjax.errors import InputError
from kdjax.results.runs import HeadLoss, ProbedLayers
from kdjax.results.store import read_results, results_of, run_result, write_results
from kdjax.results.study import VERSION
from kdjax.results.verdicts import CaseVerdict, SharedCaseVerdict
from kdjax.storage.typed_json import from_plain, to_plain

FIRST_VERSION = Path(__file__).parents[1] / "golden" / "results_version_1.json"
"""As kdjax wrote it before results had a version."""


@pytest.fixture
def content() -> dict[str, Any]:
    """Return the plain values of a file of the first version."""
    values: dict[str, Any] = json.loads(FIRST_VERSION.read_text(encoding="utf-8"))
    return values


def test_file_of_the_first_version_gets_a_version_and_its_baseline_arm(
    content: dict[str, Any],
) -> None:
    results = read_results(FIRST_VERSION)
    assert "version" not in content
    assert (results.version, results.baseline_arm) == (VERSION, "scratch")
    # The tests of the primary endpoint stood apart, with p-values that its verdicts have now.
    (tested,) = content["primary"]["comparisons"]
    first, *others = content["verdicts"]
    names = ("p_value", "p_adjusted")
    joined = {**first, **{name: tested[name] for name in names}, "family": "confirmatory"}
    loss, *scores = content["endpoints"]
    added = {
        "endpoints": [{**loss, "scale": "nats"}, *scores],
        "version": VERSION,
        "baseline_arm": "scratch",
        "primary": "mlm_loss",
        "verdicts": [joined, *others],
    }
    assert to_plain(results) == {**content, **added}


def test_results_written_and_read_again_are_the_same(tmp_path: Path) -> None:
    results = read_results(FIRST_VERSION)
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results
    again = tmp_path / "again.json"
    write_results(again, read_results(tmp_path / "results.json"))
    assert again.read_bytes() == (tmp_path / "results.json").read_bytes()


def test_details_have_the_type_of_their_endpoint() -> None:
    details = read_results(FIRST_VERSION).runs[0].details
    assert isinstance(details["mlm_loss"], HeadLoss)
    assert isinstance(details["probe.parity"], ProbedLayers)


def test_old_result_of_a_run_written_again_is_the_same_json(content: dict[str, Any]) -> None:
    for row in content["runs"]:
        assert to_plain(run_result(row, Path("result.json"))) == row


def test_run_result_without_a_field_is_refused_with_the_run_and_the_field(
    content: dict[str, Any],
) -> None:
    row = content["runs"][0]
    del row["steps"]
    with pytest.raises(InputError, match=r"^runs/scratch-seed0/result.json: steps is missing"):
        run_result(row, Path("runs/scratch-seed0/result.json"))


def drop(*names: Any) -> Callable[[dict[str, Any]], None]:
    """Return a function that removes a field from a tree."""

    def edit(content: Any) -> None:
        for name in names[:-1]:
            content = content[name]
        del content[names[-1]]

    return edit


def put(value: Any, *names: Any) -> Callable[[dict[str, Any]], None]:
    """Return a function that sets a field of a tree."""

    def edit(content: Any) -> None:
        for name in names[:-1]:
            content = content[name]
        content[names[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop("budget"), "results.json: budget is missing, expected Budget"),
        (drop("runs", 1, "steps"), r"results.json: runs\[1\].steps is missing, expected int"),
        (put("3", "runs", 0, "seed"), r"runs\[0\].seed is '3', expected int"),
        (put(2.5, "runs", 0, "steps"), r"runs\[0\].steps is 2.5, expected int"),
        (put(True, "runs", 0, "steps"), r"runs\[0\].steps is True, expected int"),
        (put(None, "runs", 0, "metrics", "mlm_loss"), "metrics.mlm_loss is None, expected float"),
        (put("much", "arms", "scratch", "phases", 0, "price"), "price is 'much', expected Price"),
        (put("WINS", "verdicts", 0, "verdict"), r"verdicts\[0\].verdict is 'WINS', expected"),
        (put({}, "runs", 0, "details", "mlm_loss"), "details.mlm_loss"),
        (put([], "arms"), r"results.json: arms is \[\], expected dict"),
        (put(1, "wallclock"), "results.json: wallclock is unknown, expected"),
    ],
)
def test_unexpected_field_is_refused_in_one_line_with_file_and_name(
    content: dict[str, Any], edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit(content)
    with pytest.raises(InputError, match=message) as raised:
        results_of(content, Path("results.json"))
    assert "\n" not in str(raised.value)
    assert "`kdjax compare`" in str(raised.value)


def test_file_of_a_later_version_is_refused(content: dict[str, Any]) -> None:
    content |= {"version": VERSION + 1, "kdjax": "9.9"}
    with pytest.raises(
        InputError, match=f"version is {VERSION + 1}, expected at most {VERSION}; .*9.9"
    ):
        results_of(content, Path("results.json"))


@pytest.mark.parametrize("value", [None, [], "results", 3])
def test_file_that_is_no_mapping_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="expected the results of a study"):
        results_of(value, Path("results.json"))


def test_whole_number_where_a_real_one_is_expected_stays_whole() -> None:
    assert type(from_plain(dict[str, float], {"used": 3}, "x")["used"]) is int


def test_union_is_read_by_the_fields_that_are_there() -> None:
    row = {"endpoint": "probe.topic", "a": "kd", "verdict": "OPEN", "b": "scratch", "ratio": 2.0}
    kind: Any = SharedCaseVerdict | CaseVerdict
    assert type(from_plain(kind, row, "case")) is CaseVerdict
    shared = from_plain(kind, {**row, "students": None}, "case")
    assert type(shared) is SharedCaseVerdict
    assert to_plain(shared) == {**row, "students": None}


def test_weight_may_be_a_number_or_a_schedule() -> None:
    term = {"name": "mlm", "weight": 0.5, "variant": "original", "options": {}}
    assert from_plain(TermConfig, term, "term").weight == 0.5
    points = [[0.0, 1.0], [1.0, 0.0]]
    scheduled = {**term, "weight": {"shape": "linear", "points": points}}
    read = from_plain(TermConfig, scheduled, "term")
    assert read.weight == Schedule("linear", ((0.0, 1.0), (1.0, 0.0)))
    assert to_plain(read) == scheduled
