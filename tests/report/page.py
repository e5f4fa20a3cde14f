"""A report as a browser would see it."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """What a browser would see: elements, ids, references, text, tables by their section's heading
    and caption."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.tags = Counter()
        self.ids = []
        self.links = []
        self.words = []
        self.cells = {}
        self.problems = []
        self._heading = ""
        self._titles = []
        self.tables = {}
        self._caption = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags[tag] += 1
        self.ids += [given["id"]] if "id" in given else []
        self.links += [
            value
            for name, value in attributes
            if name in ("href", "src", "xlink:href", "data", "action")
        ]
        self.problems += [name for name in given if name.startswith("on")]
        for value in given.values():
            self.links += re.findall(r"url\(([^)]*)\)", value or "")
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h2":
            self._heading = ""
        if tag == "table":
            self._caption = ""
        if tag == "tr":
            row = []
            self.cells.setdefault(self._heading, []).append(row)
            self.tables.setdefault(self._caption, []).append(row)
        if tag in ("td", "th"):
            self.cells[self._heading][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data):
        if "style" in self.open:
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
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def row(self, heading, name):
        """The cells of the row whose first cell ends with `name`."""
        (found,) = [row for row in self.cells[heading] if row and row[0].strip().endswith(name)]
        return [cell.strip() for cell in found]

    def figures(self, caption, name):
        """The cells of an arm's row of the table with this caption: column -> what is in it."""
        head, *rows = self.tables[caption]
        (found,) = [row for row in rows if row[0].strip().endswith(name)]
        return {column.strip(): cell.strip() for column, cell in zip(head, found, strict=True)}


def check_escaped(text, hostile):
    """Whether a page made with a hostile name, an image and a bold tag for names shows them and
    runs none."""
    page = Page(text)
    assert "<script" not in text.lower()
    assert page.tags["script"] == page.tags["img"] == page.tags["b"] == 0 and page.problems == []
    assert page.text.count(hostile) > 10 and "<img src=x>" in page.text and "&amp;" in page.text
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", text))
    assert used <= set(re.findall(r"(--[a-z0-9-]+):", text))
