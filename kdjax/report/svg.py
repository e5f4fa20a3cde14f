"""Matplotlib figures as inline SVG: deterministic, with text as text and the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from kdjax.report import pictures

MARKERS = "os^DvPX"
"""Matplotlib's marker of each arm, in order; beyond the last they start again, out of step with the
colours."""
GLYPHS = "●■▲◆▼✚✖"
"""The same markers as characters, for the page's text."""
COLOURS = (
    ("#0072b2", "#5ab4e8"),
    ("#d55e00", "#ff8f4d"),
    ("#00866a", "#2fcf9f"),
    ("#a8518a", "#e59bcb"),
    ("#8c6d00", "#f0c440"),
    ("#5b5bd6", "#a9a9ff"),
)
"""Colour of each arm on a light and on a dark page, after Okabe and Ito's colour-blind-safe
palette."""
PART_COLOURS = {
    "student_forward": ("#c3ccd5", "#aeb8c2"),
    "student_backward": ("#8c9aa8", "#7d8b99"),
    "teacher_forward": ("#e2c66d", "#c9a83f"),
    "objective": ("#6b4c7d", "#b08fc4"),
    "optimizer": ("#2f3a44", "#dfe5ea"),
    "teacher_cache": ("#9a6b2f", "#e8b877"),
    "teacher_training": ("#c98f8f", "#b87878"),
    "mlm_probe": ("#5f8a6b", "#9cc7a6"),
    "calibration": ("#7f8f3f", "#c3d17a"),
}
"""Colour of each account, light and dark: none of the arms' colours."""
FAINT = 0.35
"""Opacity of what stands back."""

PALETTE = {
    "page": ("#ffffff", "#14171a"),
    "ink": ("#16191d", "#e8ebee"),
    "muted": ("#5c6670", "#9aa5b0"),
    "rule": ("#dde2e7", "#343b43"),
    "panel": ("#f5f7f9", "#1c2126"),
    "accent": ("#16191d", "#e8ebee"),
}
"""Colours of a page besides those of arms and accounts, light and dark."""

# Matplotlib wants real colours. Each of these stands for a variable of the style sheet and is
# replaced in the SVG.
INK = "#0c0c01"
MUTED = "#0c0c02"
RULE = "#0c0c03"
PAGE = "#0c0c04"
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAGE: "page",
    **{f"#0a0a{n:02x}": f"arm-{n}" for n in range(len(COLOURS))},
    **{f"#0b0b{n:02x}": f"part-{n}" for n in range(len(PART_COLOURS))},
}
"""Placeholder of a colour -> the variable of the style sheet that it stands for."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine lays out alike
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}


def palette(*, dark: bool = False) -> dict[str, str]:
    """Return every variable of the style sheet that is a colour, and its colour.

    Args:
        dark: whether the page is dark.
    """
    pairs = dict(PALETTE)
    for n, colour in enumerate(COLOURS):
        pairs[f"arm-{n}"] = colour
    for n, colour in enumerate(PART_COLOURS.values()):
        pairs[f"part-{n}"] = colour
    return {name: pair[dark] for name, pair in pairs.items()}


def arm_colour(index: int) -> str:
    """Return the placeholder of the colour of arm `index`, which `render` replaces."""
    return f"#0a0a{index % len(COLOURS):02x}"


def arm_marker(index: int) -> str:
    """Return the marker of arm `index`."""
    return MARKERS[index % len(MARKERS)]


def part_colour(index: int) -> str:
    """Return the placeholder of the colour of part `index`, which `render` replaces."""
    return f"#0b0b{index:02x}"


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's style, whatever the user's own matplotlib settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def render(figure: Figure, name: str, description: str) -> Markup:
    """Render a figure as an `<svg>` element; the same figure gives the same text.

    Args:
        figure: drawn and rendered within `style()`.
        name: unique on the page; every id starts with it.
        description: text on what the figure shows, for screen readers.
    """
    # Ids follow from the name and no date is written, so that the bytes are the same every time.
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(
            buffer,
            format="svg",
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )

    # Names without namespaces, as HTML has them; ids that are unique on the page.
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = _attributes(element.tag, element.attrib, name)
    for child in list(root):
        # The page has its own style sheet.
        if child.tag == "metadata" or child.find("style") is not None:
            root.remove(child)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": description}
    markup = Markup(ElementTree.tostring(root, encoding="unicode"))
    pictures.offer_picture(name, figure, markup, palette(), VARIABLES)
    return markup


def _attributes(tag: str, attributes: Mapping[str, str], name: str) -> dict[str, str]:
    """Return an element's attributes with ids of this figure and colours of the style sheet."""
    renamed = {
        key.rpartition("}")[2]: value.replace("url(#", f"url(#{name}-")
        for key, value in attributes.items()
    }
    if "id" in renamed:
        renamed["id"] = f"{name}-{renamed['id']}"
    # Only markers and clipping paths are referred to.
    if tag == "g":
        renamed.pop("id", None)
    if "href" in renamed:
        renamed["href"] = renamed["href"].replace("#", f"#{name}-", 1)
    if "style" in renamed:
        text = re.sub(
            r"#0[abc]0[abc][0-9a-f]{2}", lambda m: f"var(--{VARIABLES[m[0]]})", renamed["style"]
        )
        text = re.sub(r"\bfont: ([^;]*?px) [^;]*", r"font: \1 var(--sans)", text)
        renamed["style"] = re.sub(r"font-family:[^;]*;?", "", text)
    return renamed
