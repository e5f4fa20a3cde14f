"""The table of phrases: filled in plainly, without pronouns for one and for several."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

import kdjax
from kdjax.plan import phrases as plan_phrases
from kdjax.report import phrases
from kdjax.report.phrases import counted, sentence
from kdjax.sweep import phrases as sweep_phrases

TABLES = {
    "report": phrases.PHRASES,
    "sweep": sweep_phrases.PHRASES,
    "plan": plan_phrases.PHRASES,
}


@pytest.mark.parametrize("table", TABLES)
def test_every_phrase_is_used(table: str) -> None:
    source = ""
    for path in Path(kdjax.__file__).parent.rglob("*.py"):
        if path.name != "phrases.py":
            source += path.read_text(encoding="utf-8")
    # A name is written out, or begins with a prefix that a verdict, kind or case completes.
    prefixes = set(re.findall(r'f["\']([a-z]+_)\{', source))
    for name in TABLES[table]:
        assert f'"{name}"' in source or any(map(name.startswith, prefixes)), name


@pytest.mark.parametrize("table", TABLES)
def test_fields_of_phrases_are_plain_names(table: str) -> None:
    for name, template in TABLES[table].items():
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
        assert all(field.isidentifier() for field in fields), name


@pytest.mark.parametrize("table", ["sweep", "plan"])
def test_phrase_has_its_name_in_one_table(table: str) -> None:
    others = [names for name, names in TABLES.items() if name != table]
    for names in others:
        assert not TABLES[table].keys() & names.keys()


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (1, ("seed",), "1 seed"),
        (3, ("seed",), "3 seeds"),
        (2, ("study", "studies"), "2 studies"),
        (1200, ("run",), "1,200 runs"),
    ],
)
def test_counted_word_is_plural_but_for_one(count: int, words: tuple[str, ...], text: str) -> None:
    assert counted(count, *words) == text


def test_sentence_leaves_out_empty_parts() -> None:
    assert sentence("One.", "", "Two.") == "One. Two."
