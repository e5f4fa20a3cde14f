"""A run's journal is only ever added to, and whoever tampers with it is found out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdjax.budget.accounting import Budget
from kdjax.budget.journal import Journal, read
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import Price
from kdjax.errors import InputError
from kdjax.storage.typed_json import from_plain, to_plain

PRICE = Price(15, 1, 2, 3, 4, 5, jaxpr_matmul=0, jaxpr_elementwise=0)


def written(path: Path) -> list[dict[str, Any]]:
    """Write a journal of four entries."""
    ledger = Ledger.open(Budget.flops(100))
    journal = Journal(path)
    journal.add("open", ledger, prices=[to_plain(PRICE)])
    for _ in range(2):
        ledger = ledger.charge(0, PRICE, 8, tokens=7, unique=7, masked=1)
        journal.add("steps", ledger)
    journal.add("close", ledger, params_sha256="ab")
    return journal.entries


def test_added_entries_are_read_back_in_order_and_linked(tmp_path: Path) -> None:
    entries = written(tmp_path / "ledger.jsonl")
    assert read(tmp_path / "ledger.jsonl") == entries
    assert [entry["event"] for entry in entries] == ["open", "steps", "steps", "close"]
    assert [entry["previous"] for entry in entries] == [
        "",
        *(entry["sha256"] for entry in entries[:-1]),
    ]
    # The ledger after two steps of 15 FLOPs.
    assert from_plain(Ledger, entries[2]["ledger"], "ledger").charged_flops == 30


def test_reopened_journal_adds_after_its_last_entry(tmp_path: Path) -> None:
    before = written(tmp_path / "ledger.jsonl")
    journal = Journal(tmp_path / "ledger.jsonl")
    journal.add("restart", Ledger.open(Budget.flops(100)), lost_steps=2)
    assert read(tmp_path / "ledger.jsonl")[:-1] == before
    assert journal.entries[-1]["previous"] == before[-1]["sha256"]
    assert journal.head == journal.entries[-1]["sha256"]


def test_line_cut_short_by_a_kill_is_dropped_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    before = written(path)
    # Half a line, as a kill leaves it.
    path.write_bytes(path.read_bytes() + b'{"entry": 4, "event": "ste')
    journal = Journal(path)
    assert journal.entries == before
    journal.add("restart", Ledger.open(Budget.flops(100)), lost_steps=0)
    assert len(read(path)) == 5


def change_a_figure(lines: list[str]) -> list[str]:
    entry = json.loads(lines[1])
    entry["ledger"]["spent"]["teacher_forward"] -= 1
    return [lines[0], json.dumps(entry), *lines[2:]]


TAMPERED: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "a figure changed": (change_a_figure, "entry 1 does not match its SHA-256"),
    "an entry removed": (
        lambda lines: [lines[0], *lines[2:]],
        "entry 1 does not follow the one before it",
    ),
    "the first removed": (lambda lines: lines[1:], "entry 0 does not follow"),
    "two swapped": (
        lambda lines: [lines[0], lines[2], lines[1], lines[3]],
        "entry 1 does not follow",
    ),
    "not JSON": (lambda lines: [lines[0], "spent: nothing", *lines[2:]], "entry 1 is not JSON"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_changed_journal_is_refused_by_its_entry(how: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    written(path)
    tamper, message = TAMPERED[how]
    path.write_text("".join(line + "\n" for line in tamper(path.read_text().splitlines())))
    with pytest.raises(InputError, match=message):
        read(path)
