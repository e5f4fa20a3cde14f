"""Exported runs as transformers loads them, live: models, heads for tasks, tokenizers, pipelines.

`make test-parity` also has them loaded by the older versions that BabyLM's evaluation pins, in an
environment of their own: KDJAX_BABYLM_PYTHON names its Python.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

from kdjax.config import Config, ModelConfig
from kdjax.evaluation.finetuning import FinetunedTask, Setting
from kdjax.models import FeatureRequest, Model, abstract_params, classify, forward
from kdjax.study.export import export
from kdjax.study.export.export import ExportOptions, export_run
from kdjax.study.runs.recorded_run import recorded_run
from tests.parity.load_export import ASKED, MASKED, facts_of
from tests.support import small_study
from tests.support.corpora import WORDS
from tests.support.finished_run import recipe_in, write_run

SMALL = {
    "layers": 2,
    "width": 24,
    "heads": 3,
    "ffn": 40,
    "vocab_size": small_study.STUDENT["vocab_size"],
    "max_positions": 24,
}
STUDENTS: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "roberta": {**SMALL, "family": "roberta"},
    "distilbert": {**SMALL, "family": "distilbert"},
    "modernbert": {
        **SMALL,
        "family": "modernbert",
        "layers": 3,
        "attention_window": 4,
        "global_every": 2,
    },
    "bert, pre-LN": {**SMALL, "norm": "pre"},
    "bert, pre-LN and rotary": {
        **SMALL,
        "norm": "pre",
        "positions": "rotary",
        "type_vocab_size": 0,
    },
}
TASK_SETTING = Setting(1e-2, 8, None, 3)
TOLERANCE = 1e-4


def random_params(config: ModelConfig) -> Any:
    """Return parameters that are all away from their start."""
    rng = np.random.default_rng(0)
    shapes = abstract_params(config)
    return jax.tree.map(lambda x: rng.normal(0.05, 0.3, x.shape).astype(np.float32), shapes)


def finished_run(directory: Path, name: str, evaluation: dict[str, Any] | None = None) -> Path:
    """Write a run of a student of random parameters, with details of its tasks."""
    evaluation = evaluation or {}
    config = recipe_in(directory, student=STUDENTS[name], evaluation=evaluation)
    details = {}
    for task in config.evaluation.tasks:
        details[f"fixed.{task}"] = FinetunedTask(
            task, "fixed", "", TASK_SETTING, 0.5, {}, {}, {}, (), 0, 0
        )
    return write_run(directory / "runs" / "scratch-seed0", config, student_params(config), details)


def student_params(config: Config) -> Any:
    from kdjax.models import zoo

    return random_params(zoo.resolve(config.student))


def encoded(tokenizer: Any, texts: list[Any]) -> dict[str, np.ndarray]:
    """Return a batch as kdjax takes it, of texts or pairs that transformers tokenised."""
    firsts = [text if isinstance(text, str) else text[0] for text in texts]
    seconds = None if isinstance(texts[0], str) else [text[1] for text in texts]
    arrays = tokenizer(firsts, seconds, padding=True, return_tensors="np")
    valid = arrays["attention_mask"].astype(np.int32)
    places = np.arange(valid.shape[1], dtype=np.int32)
    batch = {
        "tokens": arrays["input_ids"].astype(np.int32),
        "segments": valid,
        "valid": valid > 0,
        "positions": valid * places,
    }
    if "token_type_ids" in arrays:
        batch["types"] = arrays["token_type_ids"].astype(np.int32)
    return batch


def loaded(kind: Any, directory: Path, **options: Any) -> Any:
    """Return a model of transformers of which no tensor is missing or left over."""
    model, report = kind.from_pretrained(directory, output_loading_info=True, **options)
    for problem in ("missing_keys", "mismatched_keys"):
        assert not report[problem], report
    return model.eval()


@pytest.mark.parametrize("name", STUDENTS)
def test_exported_student_has_our_logits_and_states(tmp_path: Path, name: str) -> None:
    run = finished_run(tmp_path, name)
    export_run(run, tmp_path / "out")
    config = recorded_run(run).arm.student_config
    params = recorded_run(run).params()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.is_fast
    batch = encoded(tokenizer, ASKED)
    request = FeatureRequest(hidden=frozenset({config.layers}), token_logits=True)
    ours = forward(config, params, batch, request)

    inputs = tokenizer(ASKED, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = loaded(AutoModelForMaskedLM, tmp_path / "out")(**inputs).logits.numpy()
        encoder = AutoModel.from_pretrained(tmp_path / "out").eval()
        states = encoder(**inputs).last_hidden_state.numpy()
    valid = batch["valid"]
    np.testing.assert_allclose(
        np.asarray(ours.token_logits)[valid], logits[valid], rtol=0, atol=TOLERANCE
    )
    np.testing.assert_allclose(
        np.asarray(ours.hidden[config.layers])[valid], states[valid], rtol=0, atol=TOLERANCE
    )


def test_fill_mask_pipeline_answers_as_our_logits_do(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "modernbert")
    export_run(run, tmp_path / "out")
    config = recorded_run(run).arm.student_config
    fill = pipeline("fill-mask", model=str(tmp_path / "out"))
    text = MASKED.replace("MASK", fill.tokenizer.mask_token)
    answers = fill(text, top_k=3)
    batch = encoded(fill.tokenizer, [text])
    request = FeatureRequest(token_logits=True)
    logits = forward(config, recorded_run(run).params(), batch, request).token_logits
    (place,) = np.flatnonzero(batch["tokens"][0] == fill.tokenizer.mask_token_id)
    probs = np.asarray(jax.nn.softmax(logits[0, place]))
    best = np.argsort(-probs)[:3]
    assert [answer["token"] for answer in answers] == list(best)
    np.testing.assert_allclose([answer["score"] for answer in answers], probs[best], atol=1e-5)


def write_tasks(directory: Path) -> dict[str, Any]:
    """Write a task of classes on pairs and one of numbers; return the recipe's evaluation."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(80):
        words = rng.choice(WORDS, (2, 4))
        label = "same" if words[0, 0] < words[1, 0] else "other"
        first = " ".join(words[0])
        second = " ".join(words[1])
        rows.append({"a": first, "b": second, "label": label, "number": float(len(first))})
    for name in ("pairs", "lengths"):
        lines = []
        for row in rows:
            label = row["label"] if name == "pairs" else row["number"]
            lines.append(json.dumps({"a": row["a"], "b": row["b"], "label": label}))
        (directory / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    shared = {"label": "label", "dev": 0.2, "test": 0.2}
    return {
        "protocols": ["fixed"],
        "tasks": {
            "pairs": {
                "file": str(directory / "pairs.jsonl"),
                "text": "a",
                "text_b": "b",
                **shared,
            },
            "lengths": {
                "file": str(directory / "lengths.jsonl"),
                "text": "a",
                "regression": True,
                **shared,
            },
        },
        "finetune": {"steps": 3, "batch_size": 8},
    }


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("bert", "pairs"),
        ("roberta", "pairs"),
        ("distilbert", "pairs"),
        ("modernbert", "pairs"),
        ("modernbert", "lengths"),
        ("bert, pre-LN and rotary", "lengths"),
    ],
)
def test_fine_tuned_student_has_our_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, task: str
) -> None:
    run = finished_run(tmp_path, name, write_tasks(tmp_path))
    tuned = []
    tune_again = export.tune_again

    def note(*arguments: Any, **options: Any) -> Any:
        tuned.append(tune_again(*arguments, **options))
        return tuned[0]

    monkeypatch.setattr(export, "tune_again", note)
    export_run(run, tmp_path / "out", ExportOptions(task=task))
    (student,) = tuned
    texts: list[Any] = ASKED
    if task == "pairs":
        texts = [(ASKED[0], ASKED[1]), (ASKED[1], ASKED[0])]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = encoded(tokenizer, texts)
    if task == "pairs" and "types" in batch:
        assert batch["types"].any()
    config = recorded_run(run).arm.student_config
    ours = classify(config, student.encoder, student.head.params, batch)

    model = loaded(AutoModelForSequenceClassification, tmp_path / "out")
    firsts = [text if isinstance(text, str) else text[0] for text in texts]
    seconds = [text[1] for text in texts] if task == "pairs" else None
    inputs = tokenizer(firsts, seconds, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**inputs).logits.numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=TOLERANCE)

    # The pipeline names the classes; of a regression it gives the number.
    classifier = pipeline("text-classification", model=model, tokenizer=tokenizer)
    asked = [{"text": first} for first in firsts]
    if seconds is not None:
        asked = [{"text": a, "text_pair": b} for a, b in zip(firsts, seconds, strict=True)]
    answers = classifier(asked)
    if task == "pairs":
        classes = [student.head.classes[n] for n in np.asarray(ours).argmax(axis=1)]
        assert [answer["label"] for answer in answers] == classes
    else:
        scores = [answer["score"] for answer in answers]
        np.testing.assert_allclose(scores, np.asarray(ours)[:, 0], rtol=1e-4)
        assert np.abs(scores).max() > 5  # lengths in characters, not standardised ones


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "modernbert"])
def test_versions_that_babylm_pins_load_an_export(tmp_path: Path, name: str) -> None:
    python = os.environ.get("KDJAX_BABYLM_PYTHON", "")
    if not python:
        pytest.skip("KDJAX_BABYLM_PYTHON is not set; make test-parity sets it")
    run = finished_run(tmp_path, name)
    export_run(run, tmp_path / "out")
    script = Path(__file__).with_name("load_export.py")
    ended = subprocess.run(
        [python, str(script), str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    older = json.loads(ended.stdout.splitlines()[-1])
    now = facts_of(tmp_path / "out")
    assert older.pop("transformers") == "4.51.3"
    assert older.pop("tokenizers") == "0.21.1"
    assert now.keys() - older.keys() == {"transformers", "tokenizers"}
    for fact in ("offsets", "ids", "special", "inputs", "fast", "first", "longest", "filled"):
        assert older[fact] == now[fact], fact
    assert older["inputs"] == now["inputs"]
    assert older["fast"]
    for fact in ("logits", "states"):
        np.testing.assert_allclose(older[fact], now[fact], rtol=0, atol=TOLERANCE)
    config = recorded_run(run).arm.student_config
    model = Model(config, recorded_run(run).params())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = encoded(tokenizer, ASKED[:1])
    ours = forward(*model, batch, FeatureRequest(token_logits=True)).token_logits
    np.testing.assert_allclose(np.asarray(ours)[0], older["logits"], rtol=0, atol=TOLERANCE)
