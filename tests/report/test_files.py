"""The files beside a page: its figures as SVG and PNG, its tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import colors, image

from kdjax.errors import InputError
from kdjax.report import files, page_tables, study_page, svg
from kdjax.report.page_tables import PageTable
from kdjax.results.study import Results
from tests.report.page import Page
from tests.report.results import study


@pytest.fixture(scope="module")
def results() -> Results:
    return study()


@pytest.fixture(scope="module")
def directory(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("study")
    written = files.write_page(lambda: study_page.html(results), place / "report.html")
    assert written[0] == place / "report.html"
    assert all(path.exists() for path in written)
    assert {path for path in place.rglob("*") if path.is_file()} == set(written)
    return place


def test_page_is_the_same_as_without_files(directory: Path, results: Results) -> None:
    assert (directory / "report.html").read_text() == study_page.html(results)


def test_every_figure_is_an_svg_of_its_own(directory: Path) -> None:
    names = {path.stem for path in (directory / "report" / "figures").glob("*.svg")}
    assert names == {"differences", "spending", "learning", "layers"}
    for name in names:
        text = (directory / "report" / "figures" / f"{name}.svg").read_text()
        root = ElementTree.fromstring(text.split("\n", 1)[1])
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        # No variable of a style sheet is left, and an arm has its colour.
        assert "var(" not in text
        assert re.search("|".join(light for light, _ in (*svg.COLOURS, ("#c3ccd5", ""))), text)


def test_every_figure_is_a_png_in_the_colours_of_a_light_page(directory: Path) -> None:
    for path in (directory / "report" / "figures").glob("*.png"):
        pixels = image.imread(path)[..., :3]
        assert pixels.shape[1] > 800
        assert np.allclose(pixels[0, 0], colors.to_rgb(svg.PALETTE["page"][0]), atol=0.01)
        # Placeholders of colours are all but black; ink is not.
        assert pixels.max(axis=-1).min() > 0.06
    pixels = image.imread(directory / "report" / "figures" / "differences.png")[..., :3]
    for light, _ in svg.COLOURS[1:4]:
        distance = np.abs(pixels - colors.to_rgb(light)).max(axis=-1)
        assert (distance < 0.02).sum() > 50, light


def test_every_table_of_the_page_is_written(directory: Path) -> None:
    html = (directory / "report.html").read_text()
    tables = page_tables.tables_of(html)
    assert len(tables) == Page(html).tags["table"]
    names = set(files.name_tables(tables))
    for suffix in ("csv", "md", "tex"):
        there = {path.stem for path in (directory / "report" / "tables").glob(f"*.{suffix}")}
        assert there == names
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.head)}, table.title


def test_csv_has_the_cells_of_the_page(directory: Path, results: Results) -> None:
    text = (directory / "report" / "tables" / "runs.csv").read_text()
    head, *rows = csv.reader(io.StringIO(text))
    assert head[:3] == ["arm", "seed", "steps"]
    assert len(rows) == len(results.runs)
    digests = {row[head.index("parameters; SHA-256")] for row in rows}
    assert digests == {run.params_sha256[:12] for run in results.runs}


def test_writers_escape_what_their_formats_read_otherwise() -> None:
    table = PageTable("Section", "100% of a_b", ["arm", "a|b"], [["x & y", "1.0 ± 0.1"]])
    assert page_tables.as_markdown(table) == (
        "**100% of a_b**\n\n| arm | a\\|b |\n|---|--:|\n| x & y | 1.0 ± 0.1 |\n"
    )
    latex = page_tables.as_latex(table)
    assert r"\caption{100\% of a\_b}" in latex
    assert r"x \& y & 1.0 $\pm$ 0.1 \\" in latex
    assert page_tables.as_csv(table) == "arm,a|b\nx & y,1.0 ± 0.1\n"


def test_tables_of_one_title_have_numbers() -> None:
    titles = ["Scores (nats)", "Scores; the budget is 3", "…"]
    tables = [PageTable(title) for title in titles]
    assert list(files.name_tables(tables)) == ["scores", "scores-2", "table"]


def test_files_of_an_earlier_page_go(tmp_path: Path) -> None:
    stale = tmp_path / "report" / "tables" / "stale.csv"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    own = tmp_path / "report" / "notes.txt"
    own.write_text("mine")
    files.write_page(lambda: "<p>no table</p>", tmp_path / "report.html")
    assert not stale.exists()
    assert own.read_text() == "mine"
    assert (tmp_path / "report.html").read_text() == "<p>no table</p>"


def test_page_that_cannot_be_made_leaves_earlier_files(tmp_path: Path) -> None:
    kept = tmp_path / "report" / "tables" / "kept.csv"
    kept.parent.mkdir(parents=True)
    kept.write_text("")

    def fails() -> str:
        raise InputError("no page")

    with pytest.raises(InputError, match="no page"):
        files.write_page(fails, tmp_path / "report.html")
    assert kept.exists()
    assert not (tmp_path / "report.html").exists()
