"""Figures as files of their own: an SVG that needs no style sheet, and a PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from matplotlib import colors
from matplotlib.figure import Figure

PNG_DPI = 160
"""Dots an inch of a PNG: a figure across the page is some 1,500 wide."""
_COLOUR_FIELDS = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


@dataclass(frozen=True)
class Picture:
    """A figure as files.

    Attributes:
        svg: text of an SVG file in the colours of a light page.
        png: content of a PNG file in the same colours.
    """

    svg: str
    png: bytes


_collected: ContextVar[dict[str, Picture] | None] = ContextVar("pictures", default=None)


@contextmanager
def collect_pictures() -> Iterator[dict[str, Picture]]:
    """Collect every figure that is rendered within the block: its name -> the picture."""
    pictures: dict[str, Picture] = {}
    token = _collected.set(pictures)
    try:
        yield pictures
    finally:
        _collected.reset(token)


def offer_picture(
    name: str,
    figure: Figure,
    markup: str,
    palette: Mapping[str, str],
    placeholders: Mapping[str, str],
) -> None:
    """Make a picture of a figure where somebody collects them; else do nothing.

    Args:
        name: name of the figure, unique on its page.
        figure: the figure, drawn in placeholders of colours.
        markup: the figure as an `<svg>` element of the page.
        palette: variable of the style sheet -> its colour on a light page.
        placeholders: placeholder of a colour -> the variable that it stands for.
    """
    pictures = _collected.get()
    if pictures is not None:
        real = {placeholder: palette[name] for placeholder, name in placeholders.items()}
        png = _png(figure, palette["page"], real)
        pictures[name] = Picture(standalone_svg(markup, palette), png)


def standalone_svg(markup: str, palette: Mapping[str, str]) -> str:
    """Return an `<svg>` element of a page as the text of a file.

    Args:
        markup: the element, with variables of the page's style sheet.
        palette: variable -> its colour.
    """
    text = re.sub(r"var\(--([a-z0-9-]+)\)", lambda m: palette.get(m[1], "sans-serif"), markup)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    text = text.replace("<svg ", f"<svg {names} ", 1)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _png(figure: Figure, page: str, real: Mapping[str, str]) -> bytes:
    """Draw a figure as a PNG; its placeholders become colours for good."""
    for artist in figure.findobj():
        for field in _COLOUR_FIELDS:
            _recolour(artist, field, real)
    buffer = io.BytesIO()
    # No version and no date: the same results give the same bytes.
    figure.savefig(buffer, format="png", dpi=PNG_DPI, facecolor=page, metadata={"Software": None})
    return buffer.getvalue()


def _recolour(artist: Any, field: str, real: Mapping[str, str]) -> None:
    """Replace a placeholder in one of an artist's colours, if it has that colour."""
    read = getattr(artist, f"get_{field}", None)
    write = getattr(artist, f"set_{field}", None)
    if read is None or write is None:
        return
    value = read()
    # Collections have a colour for each of their members, all of them alike here.
    is_list = getattr(value, "ndim", 1) == 2
    if is_list:
        if not len(value):
            return
        value = value[0]
    try:
        red_green_blue_alpha = colors.to_rgba(value)
    except ValueError:
        return
    placeholder = colors.to_hex(red_green_blue_alpha[:3])
    if placeholder in real:
        write((*colors.to_rgb(real[placeholder]), red_green_blue_alpha[3]))
