"""`kdjax report`: pages written again, of studies, of parts and of studies in progress."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdjax.cli import report
from kdjax.parallel.preemption import PREEMPTION
from kdjax.report import study_page
from kdjax.results.store import write_results
from tests.report.page import Page
from tests.report.results import study
from tests.study.conftest import kdjax
from tests.support.finished_run import recipe_in, write_run


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_results(tmp_path / "study" / "results.json", study())
    return tmp_path / "study"


@pytest.fixture
def in_progress(tmp_path: Path) -> Path:
    """Make a study of which one of two arms is finished."""
    arms = {"scratch": {}, "other": {"terms": [{"name": "mlm"}]}}
    config = recipe_in(tmp_path, arms=arms)
    write_run(tmp_path / "study" / "runs" / "scratch-seed0", config, {"a": np.zeros(2)}, {})
    return tmp_path / "study"


def test_page_and_its_files_are_written_from_results_alone(directory: Path) -> None:
    ended = kdjax("report", directory)
    assert ended.status == 0, ended.err
    assert str(directory / "report.html") in ended.out
    assert (directory / "report.html").read_text() == study_page.html(study())
    assert (directory / "report" / "figures" / "learning.png").exists()
    assert (directory / "report" / "tables" / "runs.csv").exists()


def test_directory_without_a_study_is_refused_by_one_line(tmp_path: Path) -> None:
    ended = kdjax("report", tmp_path)
    assert ended.status == 2
    assert f"{tmp_path}: holds no study, expected results.json" in ended.complaint
    assert list(tmp_path.iterdir()) == []


def test_parts_without_a_place_for_them_are_refused(directory: Path) -> None:
    ended = kdjax("report", directory, directory)
    assert ended.status == 2
    assert "--out is missing" in ended.complaint
    assert not (directory / "report.html").exists()


def test_damaged_results_are_refused_and_the_page_stays(directory: Path) -> None:
    (directory / "report.html").write_text("earlier")
    (directory / "results.json").write_text("{")
    ended = kdjax("report", directory)
    assert ended.status == 2
    assert "results.json" in ended.complaint
    assert (directory / "report.html").read_text() == "earlier"
    assert not (directory / "report").exists()


def test_study_in_progress_says_how_far_it_is_and_names_no_winner(in_progress: Path) -> None:
    ended = kdjax("report", in_progress)
    assert ended.status == 0, ended.err
    page = Page((in_progress / "report.html").read_text())
    assert page.problems == []
    assert "1 of 2 runs finished" in page.text
    assert "No verdict is told before every seed is there" in page.text
    figures = page.figures("Runs of each arm", "other")
    assert (figures["finished runs"], figures["missing seeds"]) == ("0 of 1", "0")
    assert "BEATS" not in page.text


def test_watch_writes_the_page_when_there_are_new_results(
    in_progress: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[str] = []

    def wait(seconds: float) -> None:
        looks.append((in_progress / "report.html").read_text())
        # After the second look the study ends; after the third somebody interrupts.
        if len(looks) == 2:
            write_results(in_progress / "results.json", study())
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(PREEMPTION, "wait", wait)
    options: Any = type("Options", (), {"directories": [in_progress], "out": None, "watch": True})
    with pytest.raises(KeyboardInterrupt):
        report.run(options)
    assert looks[0] == looks[1]
    assert "in progress" in looks[0]
    assert looks[2] == study_page.html(study())
    # Nothing was written at the second look.
    assert capsys.readouterr().out.count("report: ") == 2


def test_record_of_another_kind_is_read_by_its_name(directory: Path) -> None:
    (directory / "sweep.json").write_text(json.dumps({"kdjax": "0.1.0"}))
    ended = kdjax("report", directory)
    assert ended.status == 2
    assert "sweep.json" in ended.complaint
