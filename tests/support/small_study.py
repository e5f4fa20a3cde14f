"""A whole study small enough for a test: text, tokenizer, a teacher without an MLM head, two tasks
and a recipe.

Its models have 1 and 2 layers. Prices and programs are shared by all tests of a process that leave
models, batch and length as they are here.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kdjax import models
from kdjax.config import ModelConfig
from kdjax.models import Model
from tests.support import tiny
from tests.support.corpora import WORDS, make_corpus, make_tokenizer

ARMS = ("scratch", "logit", "tinybert", "minilm")
SEEDS = (0, 1)
TASKS = ("halves", "parity")
BUDGET = 5.0e7
HEAD = 1.0e7
"""FLOPs of a run, and of fitting the teacher's head: 8 steps of `tinybert`, 19 of `scratch`."""
STUDENT = {
    "layers": tiny.SHALLOW_STUDENT.layers,
    "width": 16,
    "heads": 2,
    "ffn": 32,
    "vocab_size": tiny.VOCABULARY,
    "max_positions": 24,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
TEACHER = {
    "layers": tiny.SHALLOW_TEACHER.layers,
    "width": 24,
    "heads": 2,
    "ffn": 48,
    "vocab_size": tiny.VOCABULARY,
    "max_positions": 24,
}


def make_teacher(
    directory: Path, *, head: bool = False, config: ModelConfig = tiny.SHALLOW_TEACHER
) -> Path:
    """Make a Hugging Face directory of an untrained encoder with its tokenizer."""
    config, params = models.init(config, 9)
    stored = {name: part for name, part in params.items() if head or name != "mlm"}
    directory.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(directory.parent / "tokenizer.json")
    models.save_pretrained(Model(config, stored), directory, tokenizer=tokenizer)
    return directory


def with_head(directory: Path) -> dict[str, Any]:
    """Make the recipe's section `teacher` with one that has its MLM head: there is nothing to
    fit."""
    return {"source": str(make_teacher(directory / "encoder", head=True)), "architecture": TEACHER}


def deeper(directory: Path) -> dict[str, Any]:
    """Make the recipe's sections `student` and `teacher` with models of 2 and 4 layers, which take
    twice as long."""
    source = make_teacher(directory / "encoder", config=tiny.TEACHER)
    return {
        "student": {**STUDENT, "layers": tiny.STUDENT.layers},
        "teacher": {
            "source": str(source),
            "architecture": {**TEACHER, "layers": tiny.TEACHER.layers},
            "head": {"budget": 2 * HEAD, "batch_size": 8},
        },
    }


def shallow(directory: Path, *, head: bool = False) -> dict[str, Any]:
    """Make the recipe's usual sections `student` and `teacher`, the teacher with or without its MLM
    head."""
    model = with_head(directory)
    if not head:
        make_teacher(directory / "encoder")
        model["head"] = {"budget": HEAD, "batch_size": 8}
    return {"student": STUDENT, "teacher": model}


def make_task(path: Path, task: str, rows: int = 160) -> Path:
    """Write short texts labelled by their first word: which half of the vocabulary it is from, or
    its parity."""
    rng = np.random.default_rng(TASKS.index(task))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for _ in range(rows):
            words = rng.integers(0, len(WORDS), rng.integers(3, 10))
            label = "ab"[words[0] * 2 // len(WORDS)] if task == "halves" else "ab"[words[0] % 2]
            writer.writerow((" ".join(WORDS[word] for word in words), label))
    return path


def settings(directory: Path, **changes: Any) -> dict[str, Any]:
    """Make the recipe as plain values, its files in `directory`; `changes` replaces whole
    sections."""
    return {
        "data": {
            "files": str(make_corpus(directory / "text.jsonl")),
            "seq_len": 16,
            "max_predictions": 3,
            "validation": 0.15,
            "workers": 1,
        },
        "student": STUDENT,
        "teacher": {
            "source": str(make_teacher(directory / "encoder")),
            "architecture": TEACHER,
            "note": "An untrained encoder.",
            "head": {"budget": HEAD, "batch_size": 8},
        },
        "arms": {arm: {} for arm in ARMS},
        "budget": {"flops": BUDGET},
        "train": {
            "batch_size": 8,
            "log": {"every": 1},
            "evaluations": 3,
            "optimizer": {"learning_rate": 1.0e-2},
        },
        "seeds": list(SEEDS),
        "evaluation": {
            "mlm_sequences": 16,
            "tasks": {
                task: {
                    "file": str(make_task(directory / f"{task}.csv", task)),
                    "dev": 0.2,
                    "test": 0.2,
                }
                for task in TASKS
            },
            "probe": {"examples": 60, "strengths": [0.1, 1.0]},
            "finetune": {"steps": 3, "batch_size": 8},
        },
        **changes,
    }


def write(directory: Path, **changes: Any) -> Path:
    """Write the recipe's file, with all it names beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    recipe = directory / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump(settings(directory, **changes), sort_keys=False), encoding="utf-8"
    )
    return recipe


@dataclass(frozen=True)
class FinishedStudy:
    """A study that was run.

    Attributes:
        recipe: its recipe.
        out: its directory.
        results: the content of its results.json.
    """

    recipe: Path
    out: Path
    results: dict[str, Any]

    @classmethod
    def read(cls, recipe: Path, out: Path) -> FinishedStudy:
        """Read the results of a study."""
        return cls(recipe, out, json.loads((out / "results.json").read_text()))

    def run(self, arm: str) -> dict[str, Any]:
        """Return the row of an arm's first run."""
        return next(run for run in self.results["runs"] if run["arm"] == arm)

    def lines(self, arm: str) -> list[dict[str, float]]:
        """Return the lines of metrics of an arm's run with seed 0."""
        path = self.out / "runs" / f"{arm}-seed0" / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]
