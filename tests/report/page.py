"""A report as a browser would see it."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

from kdjax.report.page_scripts import scripts

Attributes = list[tuple[str, str | None]]
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """A page as a browser would see it: elements, ids, references, text, and tables by their
    heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str | None] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.cells: dict[str, list[list[str]]] = {}
        self.problems: list[str] = []
        self._heading = ""
        self._titles: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._caption = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: Attributes) -> None:
        named = dict(attributes)
        self.tags[tag] += 1
        self.ids += [named["id"]] if "id" in named else []
        self.links += [
            value
            for name, value in attributes
            if name in ("href", "src", "xlink:href", "data", "action")
        ]
        self.problems += [name for name in named if name.startswith("on")]
        for value in named.values():
            self.links += re.findall(r"url\(([^)]*)\)", value or "")
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h2":
            self._heading = ""
        if tag == "table":
            self._caption = ""
        if tag == "tr":
            row: list[str] = []
            self.cells.setdefault(self._heading, []).append(row)
            self.tables.setdefault(self._caption, []).append(row)
        if tag in ("td", "th"):
            self.cells[self._heading][-1].append("")

    def handle_startendtag(self, tag: str, attributes: Attributes) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self.open):
            return
        self.words.append(data)
        if self.open[-1:] == ["h2"]:
            self._heading += data
            self._titles.append(data)
        if "caption" in self.open:
            self._caption += data
        if {"td", "th"} & set(self.open):
            self.cells[self._heading][-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def row(self, heading: str, name: str) -> list[str]:
        """Return the cells of the row whose first cell ends with `name`."""
        matching = [
            row
            for row in self.cells[heading]
            if row and row[0].strip().removesuffix("baseline").endswith(name)
        ]
        (cells,) = matching
        return [cell.strip() for cell in cells]

    def figures(self, caption: str, name: str) -> dict[str, str]:
        """Return the cells of an arm's row of the table with this caption, by column."""
        head, *rows = self.tables[caption]
        matching = [row for row in rows if _is_named(row, name)]
        (cells,) = matching
        return {column.strip(): cell.strip() for column, cell in zip(head, cells, strict=True)}


def _is_named(row: list[str], name: str) -> bool:
    """Return whether a row is of a name, perhaps behind a marker and before `baseline`."""
    return row[0].strip().removesuffix("baseline").endswith(name)


def without_scripts(text: str) -> str:
    """Return a page without its own scripts and the data for them."""
    data = re.compile(r'<script type="application/json" id="data">[^<]*</script>')
    text, count = data.subn("", text)
    assert count == 1, "no tag begins within the data"
    for script in scripts():
        text = text.replace(f"<script>{script.text}</script>", "", 1)
    return text


def check_escaped(text: str, hostile: str) -> None:
    """Check that a page shows a hostile name, an image and a bold tag as text and runs none."""
    page = Page(text)
    assert "<script" not in text.lower()
    assert page.tags["script"] == page.tags["img"] == page.tags["b"] == 0
    assert page.problems == []
    assert page.text.count(hostile) > 10
    assert "<img src=x>" in page.text
    assert "&amp;" in page.text
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", text))
    assert used <= set(re.findall(r"(--[a-z0-9-]+):", text))
