"""The programs in examples/ run as they stand, on a small text and a small budget."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from kdjax import models
from tests.support.corpora import make_corpus

EXAMPLES = Path(__file__).parents[1] / "examples"
FLOPS = 5e9
"""A budget of a few steps, in FLOPs."""

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("one_device")]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that both programs write to: the second finds the text prepared."""
    directory = tmp_path_factory.mktemp("examples")
    make_corpus(directory / "text.jsonl", documents=400)
    return directory


def run(name: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--flops", f"{FLOPS}", "--text", str(out / "text.jsonl"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_one_arm_spends_the_budget_and_saves_models_that_can_be_read(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("one_arm", out, monkeypatch)
    scratch, logit = capsys.readouterr().out.splitlines()
    assert scratch.startswith("scratch: 6 steps of 7.251e+08 FLOPs, 4.350e+09 spent")
    assert logit.startswith("logit: 4 steps of 1.195e+09 FLOPs, 4.780e+09 spent")
    for name in ("scratch", "logit"):
        assert models.from_pretrained(out / f"{name}-student").config.layers == 2
        closing = json.loads((out / name / "ledger.jsonl").read_text().splitlines()[-1])
        assert closing["event"] == "close"


def test_own_loop_takes_as_many_steps_as_the_budget_affords(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("own_loop", out, monkeypatch)
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("step 0: loss ")
    assert last.startswith("5 steps, ")
    assert last.endswith("of 5.000e+09 FLOPs")
    assert models.from_pretrained(out / "student").config.layers == 2
