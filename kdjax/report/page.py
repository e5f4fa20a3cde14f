"""Self-contained HTML pages, made by the templates beside this file."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kdjax.config import plain
from kdjax.report import numbers, phrases, summary, svg


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        name: name of its template in `templates/sections/`.
        values: what the template names besides what the whole page has.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)


def render(
    template: str,
    arms: Iterable[str],
    config: Mapping[str, Any],
    sections: Sequence[Section] = (),
    **values: Any,
) -> str:
    """Make a page: no network, no other files; everything from outside is escaped.

    A page has the scripts that `values` name as `scripts`, and its policy allows these alone.

    Args:
        template: file of the template.
        arms: names of the arms, in the order that gives each its colour and marker.
        config: resolved recipe as plain values, which the page lists.
        sections: sections that the template puts one below another.
        values: further values that the template and its sections name.
    """
    keys = {}
    for n, arm in enumerate(arms):
        keys[arm] = (n % len(svg.COLOURS), svg.GLYPHS[n % len(svg.GLYPHS)])
    of_page = {
        "keys": keys,
        "light": svg.palette(),
        "dark": svg.palette(dark=True),
        "config": yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True),
        "scripts": (),
        **values,
    }
    environment = _environment()
    rendered = []
    for section in sections:
        of_section = environment.get_template(f"sections/{section.name}.html.j2")
        rendered.append(Markup(of_section.render({**of_page, **section.values})))
    return environment.get_template(template).render({**of_page, "sections": rendered})


@functools.cache
def _environment() -> Environment:
    """Return the reader of the templates; each is compiled once in a process."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Templates call the project's own formats, so that a number reads the same everywhere.
    for function in (
        numbers.metric_interval,
        numbers.budget,
        phrases.counted,
        numbers.count,
        numbers.flops,
        numbers.interval,
        phrases.listed,
        numbers.p_value,
        numbers.percent,
        numbers.score,
        numbers.signed,
        numbers.tokens,
        numbers.budget_phrase,
    ):
        environment.filters[function.__name__] = function
    environment.filters["spread"] = summary.text
    return environment
