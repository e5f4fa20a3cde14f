"""The growth benchmark fits, flags and shows made-up figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.growth import Point, cells, exponents, markdown, plot
from benchmarks.timing import Ratio

pytestmark = pytest.mark.system


def points(power: float) -> list[Point]:
    """Return points whose price grows with the size, and time with a power of it."""
    return [
        Point(
            "width",
            value,
            64,
            value / 64,
            Ratio((value / 64) ** power, 0.99 * (value / 64) ** power, 1e3),
            1,
            2,
            3,
        )
        for value in (32, 64, 128)
    ]


@pytest.mark.parametrize(
    ("power", "flagged"), [(0.8, False), (1.0, False), (1.05, False), (1.5, True)]
)
def test_point_is_flagged_where_time_grows_faster_than_price(power: float, flagged: bool) -> None:
    assert [point.flagged for point in points(power)] == [False, False, flagged]
    assert ("faster than its price" in markdown(points(power))) == flagged


def test_exponents_are_those_of_the_figures() -> None:
    assert exponents(points(1.5))["width"] == pytest.approx((1, 1.5))


def test_table_has_a_row_for_every_point() -> None:
    assert [row[1] for row in cells(points(1))] == ["32", "64 (base)", "128"]


def test_plot_is_written_as_png(tmp_path: Path) -> None:
    plot(points(1.5), "title", tmp_path / "new" / "growth.png")
    assert (tmp_path / "new" / "growth.png").read_bytes().startswith(b"\x89PNG")
