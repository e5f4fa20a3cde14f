"""The scripts of a study's page, its data, and the policy that lets nothing else run."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest

from kdjax.report import page_scripts, study_page
from kdjax.report.page_data import page_data
from kdjax.results.study import Results
from tests.report.page import without_scripts
from tests.report.results import study

LARGEST = 3 * 2**20
"""Bytes of a page that can still be sent by mail."""


@pytest.fixture(scope="module")
def results() -> Results:
    return study()


@pytest.fixture(scope="module")
def html(results: Results) -> str:
    return study_page.html(results)


def data_of(html: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    values: dict[str, Any] = json.loads(text)
    return values


def test_libraries_are_those_whose_hashes_are_noted() -> None:
    noted = (page_scripts.DIRECTORY / "README.md").read_text(encoding="utf-8")
    for name in page_scripts.NAMES[:2]:
        digest = hashlib.sha256((page_scripts.DIRECTORY / name).read_bytes()).hexdigest()
        (line,) = [line for line in noted.splitlines() if line.startswith(f"| `{name}`")]
        assert digest in line
        licence = re.search(r"LICENSE-\w+", line)
        assert licence is not None
        assert (page_scripts.DIRECTORY / licence[0]).exists()


def test_no_script_ends_or_begins_an_element_within_itself() -> None:
    for script in page_scripts.scripts():
        assert not re.search(r"</?script|<!--", script.text, re.I)


def test_policy_allows_the_pages_scripts_and_nothing_else(html: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    allowed = {f"'{script.digest}'" for script in page_scripts.scripts()}
    assert set(rules["script-src"].split()) == allowed


def test_page_names_no_address_and_is_small(html: str) -> None:
    assert len(html.encode()) < LARGEST
    rest = without_scripts(html)
    # Papers are named by their numbers: nothing is linked, let alone fetched.
    assert not re.search(r"(?:src|href|action|data)\s*=\s*[\"']?(?:https?:)?//", rest)
    assert "url(http" not in rest


def test_data_have_every_seed_of_every_curve(html: str, results: Results) -> None:
    data = data_of(html)
    assert data == json.loads(json.dumps(page_data(results)))
    (figure,) = data["learning"]
    assert [axis["name"] for axis in figure["axes"]] == ["flops", "tokens", "time"]
    arms = {arm["name"]: arm for arm in figure["arms"]}
    assert set(arms) == {"scratch", "logit"}
    for name, arm in arms.items():
        runs = [run for run in results.runs if run.arm == name]
        assert len(arm["seeds"]) == len(runs)
        for run, points in zip(runs, arm["seeds"], strict=True):
            last = points[-1]
            assert last["loss"] == pytest.approx(run.metrics["mlm_loss"], rel=1e-5)
            assert last["flops"] == pytest.approx(run.used, rel=1e-5)
            assert last["tokens"] == pytest.approx(run.padded_tokens, rel=1e-5)
        mean = sum(points[-1]["loss"] for points in arm["seeds"]) / len(runs)
        assert arm["mean"][-1]["loss"] == pytest.approx(mean, rel=1e-5)


def test_data_of_bars_add_up_to_what_is_charged(results: Results) -> None:
    spending = page_data(results)["spending"]
    charged = spending["charged"]["inference"]
    flops = spending["measures"][0]
    for arm in results.arms:
        runs = [run for run in results.runs if run.arm == arm]
        mean = sum(run.spent["charged"] for run in runs) / len(runs)
        rows = [row for row in flops["rows"] if row["arm"] == arm and row["part"] in charged]
        assert sum(row["value"] for row in rows) == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("kind", ["tokens", "hours"])
def test_axis_of_the_budget_comes_first(kind: str) -> None:
    data = page_data(study(kind=kind))
    first = "time" if kind == "hours" else kind
    assert data["learning"][0]["axes"][0]["name"] == first
    assert data["cases"][0]["name"] == "as run"


def test_json_lets_no_tag_begin() -> None:
    hostile = "</script><script>alert(1)</script><!-- & \u2028"
    text = page_scripts.as_json({"name": hostile})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"name": hostile}
