"""A study's page in a real browser, without a window. `make test-page` runs these tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdjax.report import study_page
from tests.report.browser import browser, unavailable
from tests.report.results import study

pytestmark = pytest.mark.system
PHONE = {"width": 360, "height": 780}
DESKTOP = {"width": 1280, "height": 900}
FIGURES = ["spending", "learning"]
"""Live figures of the study that is made up, in the page's order."""


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("page") / "report.html"
    study_page.write(study(seeds=5, training=5 * 10**12), path)
    return path.as_uri()


class Opened:
    """A page in a browser, with what it complained of and what it asked the network for."""

    def __init__(self, chrome: Any, address: str, size: dict[str, int], **settings: Any) -> None:
        self.context = chrome.new_context(viewport=size, **settings)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        if settings.get("java_script_enabled", True):
            # Figures are drawn once their width is known.
            self.page.wait_for_function(
                "document.querySelectorAll('.live svg').length === "
                "document.querySelectorAll('figure[data-figure]').length"
            )


@pytest.fixture
def desktop(chrome: Any, address: str) -> Iterator[Opened]:
    opened = Opened(chrome, address, DESKTOP)
    yield opened
    opened.context.close()


@pytest.fixture(params=["light", "dark"])
def phone(request: pytest.FixtureRequest, chrome: Any, address: str) -> Iterator[Opened]:
    opened = Opened(chrome, address, PHONE, color_scheme=request.param)
    yield opened
    opened.context.close()


def test_page_complains_of_nothing_and_asks_for_nothing(desktop: Opened, address: str) -> None:
    assert desktop.complaints == []
    assert desktop.requests == [address]


def test_live_figures_take_the_place_of_pictures(desktop: Opened) -> None:
    figures = desktop.page.locator("figure[data-figure]")
    names = [figures.nth(n).get_attribute("data-figure") for n in range(figures.count())]
    assert names == FIGURES
    for n in range(figures.count()):
        assert figures.nth(n).locator(".live svg").first.bounding_box()["width"] > 800
        assert not figures.nth(n).locator(".still").is_visible()
    # The other figures are pictures, and drawn.
    for picture in desktop.page.locator("figure:not([data-figure]) svg").all():
        assert picture.bounding_box()["width"] > 400


def test_choice_of_who_pays_tells_verdict_signs_and_costs_anew(desktop: Opened) -> None:
    page = desktop.page
    before = page.locator("h1").inner_text()
    assert "each BEATS scratch" in before
    signs = page.locator(".matrix").first.locator(".sign")
    costs = page.locator("td span[data-case]:visible")
    assert signs.first.inner_text() == "<"
    cheap = costs.all_inner_texts()
    page.get_by_label("both", exact=True).check(force=True)
    assert "OPEN" in page.locator("h1").inner_text()
    assert signs.first.inner_text() == "○"
    dear = costs.all_inner_texts()
    assert len(dear) == len(cheap) == 4
    # The baseline arm costs the same, the others pay for the teacher's training now.
    assert dear[0] == cheap[0]
    assert all(new != old for new, old in zip(dear[1:], cheap[1:], strict=True))
    page.get_by_label("inference", exact=True).check(force=True)
    assert page.locator("h1").inner_text() == before


def test_axis_and_part_of_a_curve_can_be_chosen(desktop: Opened) -> None:
    figure = desktop.page.locator('figure[data-figure="learning"]')
    assert "FLOPs charged" in figure.locator(".live svg").first.text_content()
    dots = figure.locator(".live svg g[data-mark=dot] path")
    whole = dots.count()
    figure.get_by_label("tokens, padding counted").check(force=True)
    assert "tokens, padding counted" in figure.locator(".live svg").first.text_content()
    figure.get_by_label("its second half").check(force=True)
    assert 0 < dots.count() < whole


def test_bars_can_be_of_flops_or_time(desktop: Opened) -> None:
    figure = desktop.page.locator('figure[data-figure="spending"]')
    bars = figure.locator(".live svg g[data-mark=bar] rect")
    flops = bars.count()
    figure.get_by_label("seconds").check(force=True)
    assert bars.count() != flops
    assert "seconds" in figure.locator(".live svg").first.text_content()


def test_focus_shows_the_sentence_behind_a_sign(desktop: Opened) -> None:
    button = desktop.page.locator("button.verdict").first
    sentence = button.locator(".sentence")
    assert not sentence.is_visible()
    button.focus()
    assert sentence.is_visible()
    assert "scratch against logit" in sentence.inner_text()


def test_phone_shows_the_page_without_scrolling_sideways(phone: Opened) -> None:
    width = phone.page.evaluate("document.documentElement.scrollWidth")
    assert width == PHONE["width"]
    # What is wider scrolls in a box of its own.
    for box in phone.page.locator(".scroll:visible").all():
        assert box.bounding_box()["width"] <= PHONE["width"]
    phone.page.locator("button.verdict").first.click()
    shown = phone.page.locator("button.verdict .sentence:visible").bounding_box()
    assert shown["x"] >= 0
    assert shown["x"] + shown["width"] <= PHONE["width"]


def test_dark_page_has_other_colours_in_text_and_figures(chrome: Any, address: str) -> None:
    colours = []
    for scheme in ("light", "dark"):
        opened = Opened(chrome, address, DESKTOP, color_scheme=scheme)
        colours.append(
            opened.page.evaluate(
                """() => [
                    getComputedStyle(document.body).backgroundColor,
                    getComputedStyle(document.querySelector('figure svg text')).fill,
                    getComputedStyle(document.querySelector('.live svg [data-mark=bar] rect')).fill,
                ]"""
            )
        )
        opened.context.close()
    assert all(light != dark for light, dark in zip(*colours, strict=True))


def test_without_scripts_pictures_and_tables_stay(chrome: Any, address: str) -> None:
    opened = Opened(chrome, address, DESKTOP, java_script_enabled=False)
    page = opened.page
    for figure in page.locator("figure[data-figure]").all():
        assert figure.locator(".still svg").is_visible()
    assert page.locator("h1 span:visible").count() == 1
    assert page.locator(".matrix").first.is_visible()
    assert not page.locator("#case-choice").is_visible()
    opened.context.close()


def test_printed_page_has_pictures_and_no_switches(desktop: Opened) -> None:
    desktop.page.emulate_media(media="print")
    for figure in desktop.page.locator("figure[data-figure]").all():
        assert figure.locator(".still svg").is_visible()
        assert not figure.locator(".live").is_visible()
    assert not desktop.page.locator("fieldset.choices").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(chrome: Any, address: str, scheme: str) -> None:
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        unavailable("no axe-core")
    opened = Opened(chrome, address, DESKTOP, color_scheme=scheme)
    for summary in opened.page.locator("details > summary").all():
        summary.click()
    found = Axe().run(opened.page).response["violations"]
    serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    told = [(fault["id"], [node["html"][:160] for node in fault["nodes"]]) for fault in serious]
    assert told == [], json.dumps(told, indent=1)
    opened.context.close()
