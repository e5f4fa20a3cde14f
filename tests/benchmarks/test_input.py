"""The input benchmark measures all it says on models and texts of no size."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import cases
from benchmarks import input as benchmark
from kdjax.training.phase import BatchShape

pytestmark = pytest.mark.system

OPTIONS = argparse.Namespace(rounds=1, megabytes=0.2, seconds=0.01)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make models, vocabulary, batches, text and runs as small as they go."""
    sizes = {"layers": 1, "width": 16, "heads": 2, "ffn": 16, "max_positions": 16}
    model = replace(cases.PAIRS["tiny"].student, **sizes)
    monkeypatch.setattr(cases, "PAIRS", dict.fromkeys(cases.PAIRS, cases.Pair(model, model)))
    monkeypatch.setattr(benchmark, "PAIRS", cases.PAIRS)
    monkeypatch.setattr(benchmark, "TOKENIZER", str(benchmark.DEMO_TOKENIZER))
    shape = BatchShape(batch_size=2, seq_len=16, max_predictions=2)
    monkeypatch.setattr(benchmark, "DEMO", shape)
    monkeypatch.setattr(benchmark, "LARGE", shape)
    for name, value in (("FEW", 2), ("MANY", 12), ("TEXT", 100_000), ("SLEEP", 0.0)):
        monkeypatch.setattr(benchmark, name, value)


NUMBER = r"-?[\d,.]+"  # a difference of two timings this short can fall below nothing
LINES = {
    "preparation": [
        f"all cores: kdjax {NUMBER} tokens/s, tokenizer alone {NUMBER}, ratio .*",
        "a core: .*",
    ],
    "loader": [
        f"by the clock: {NUMBER} tokens/s, a step of logit takes {NUMBER}, ratio .*",
        "by processor seconds: .*",
    ],
    "real": [f"(demo|large), by .*: {NUMBER} ms with real input, {NUMBER} ms without, ratio .*"]
    * 4,
    "host": [
        f"a step: {NUMBER} ms",
        *(
            f"{way}: {NUMBER} ms, {NUMBER}% .* of it"
            for way in ("ledger, records and progress", "all")
        ),
    ],
}


@pytest.mark.parametrize(
    "part",
    [
        "preparation",
        "loader",
        *(pytest.param(part, marks=pytest.mark.exhaustive) for part in ("real", "host")),
    ],
)
def test_part_prints_a_line_for_each_of_its_figures(part: str, tmp_path: Path) -> None:
    lines = LINES[part]
    printed = list(benchmark.PARTS[part](tmp_path, OPTIONS))
    assert len(printed) == len(lines)
    for pattern, line in zip(lines, printed, strict=True):
        assert re.fullmatch(pattern, line)
