"""Small files that are whole JSON and not what kdjax wrote: a line says the file and the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kdjax.data.prepare import blocks, ngram_losses, preparation
from kdjax.data.shards import SHARDS
from kdjax.errors import InputError
from kdjax.report import wall_clock
from kdjax.results.store import read_results, run_result
from kdjax.storage.typed_json import check_fields, from_plain
from kdjax.study.manifest import read_manifest
from kdjax.study.measures.reference_models import read_measured
from kdjax.study.runs.run_backup import RunBackup
from kdjax.study.tuned import read_tuning
from kdjax.sweep.schema import read_sweep
from kdjax.training.teacher.directories import read_card, read_own_card
from kdjax.tuning.trial import read_record

NAN = float("nan")
PRICE = dict.fromkeys(
    (
        "total",
        "student_forward",
        "student_backward",
        "teacher_forward",
        "objective",
        "optimizer",
        "jaxpr_matmul",
        "jaxpr_elementwise",
    ),
    1,
)
LOSSES = {
    "version": ngram_losses.VERSION,
    "corpus": "d",
    "unigram": 1.0,
    "left_neighbor": 1.0,
    "both_neighbors": 1.0,
    "tokens": 1,
    "fitted_tokens": 1,
    "held_out_tokens": 1,
    "unknown": {"train": 0.0},
}
CARD = {"training_flops": 1, "params_sha256": "a", "identity": {}}


def read_plan(path: Path) -> None:
    preparation.check_plan(path.parent, {"version": 1, "sources": {}, "settings": {}})


@dataclass(frozen=True)
class Reader:
    """A file that kdjax reads again, what reads it, and its content as it was written."""

    name: str
    read: Callable[[Path], Any]
    content: Any


READERS = {
    "study": Reader(
        "study.json", read_manifest, {"config": {}, "costs": {"a": {"prices": [PRICE]}}}
    ),
    "wall clock": Reader(wall_clock.NAME, lambda p: wall_clock.read(p.parent), {"compile": 1.0}),
    "reference losses": Reader("reference-losses-d.json", ngram_losses.read, LOSSES),
    "reference": Reader("result.json", read_measured, {"metrics": {"a": 1.0}, "details": {}}),
    "card": Reader("teacher.json", lambda p: read_card(p.parent), CARD),
    "trial": Reader("trial.json", read_record, {"settings": {}, "diverged": None}),
    "run manifest": Reader(
        "manifest.json", lambda p: RunBackup("", p.parent).local_manifest(), {"arm": "a"}
    ),
}
"""Kinds of files, each with a small one that can be read."""
DAMAGE: list[tuple[str, list[Any], Any, str]] = [
    ("study", ["costs", "a", "prices"], None, "costs.a.prices is None"),
    ("study", ["costs", "a", "prices", 0, "total"], "many", "costs.a.prices[0].total is 'many'"),
    ("study", ["config"], [], "config is []"),
    ("wall clock", ["compile"], NAN, "compile is nan, expected"),
    ("wall clock", ["compile"], "long", "compile is 'long'"),
    ("reference losses", ["unigram"], NAN, "unigram is nan, expected a finite number"),
    ("reference losses", ["unigram"], "text", "unigram is 'text', expected float"),
    ("reference losses", ["unknown", "train"], None, "unknown.train is None"),
    ("reference losses", ["version"], "1", "version is '1'"),
    ("reference", ["metrics", "a"], NAN, "metrics.a is nan"),
    ("reference", ["metrics"], [], "metrics is []"),
    ("card", ["training_flops"], "words", "training_flops is 'words'"),
    ("card", ["params_sha256"], 3, "params_sha256 is 3"),
    ("card", ["pretraining"], {"seed": "x"}, "pretraining.seed is 'x'"),
    ("card", ["mlm_loss"], NAN, "mlm_loss is nan"),
    ("trial", ["settings"], None, "settings is None"),
    ("trial", ["diverged"], {"seed": 0}, "diverged.charged is missing"),
]


@pytest.mark.parametrize("kind", READERS)
def test_file_as_it_was_written_is_read(kind: str, tmp_path: Path) -> None:
    reader = READERS[kind]
    (tmp_path / reader.name).write_text(json.dumps(reader.content))
    reader.read(tmp_path / reader.name)


@pytest.mark.parametrize(("kind", "keys", "value", "field"), DAMAGE)
def test_damaged_field_is_named(
    kind: str, keys: list[str | int], value: Any, field: str, tmp_path: Path
) -> None:
    reader = READERS[kind]
    content = json.loads(json.dumps(reader.content))
    branch = content
    for key in keys[:-1]:
        branch = branch[key]
    branch[keys[-1]] = value
    path = tmp_path / reader.name
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        reader.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: "), message
    assert field in message
    assert "expected" in message


WHOLE_FILES = {
    **{kind: (reader.name, reader.read) for kind, reader in READERS.items()},
    "results": ("results.json", read_results),
    "run": ("result.json", lambda path: run_result(json.loads(path.read_text()), path)),
    "sweep": ("sweep.json", read_sweep),
    "tuning": ("tuning.json", read_tuning),
    "own card": ("teacher.json", lambda path: read_own_card(path.parent)),
    "plan": (preparation.PLAN, read_plan),
}


@pytest.mark.parametrize("kind", WHOLE_FILES)
@pytest.mark.parametrize("text", ["null", "[]", "[1, 2]", '"words"', "3", "NaN", "true"])
def test_file_that_is_no_object_is_named(kind: str, text: str, tmp_path: Path) -> None:
    name, read = WHOLE_FILES[kind]
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name):
        read(tmp_path / name)


@pytest.mark.parametrize(
    "kind", ["study", "reference losses", "reference", "card", "trial", "run", "own card", "plan"]
)
def test_empty_object_is_named(kind: str, tmp_path: Path) -> None:
    name, read = WHOLE_FILES[kind]
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=name):
        read(tmp_path / name)


@pytest.mark.parametrize("text", ["null", '{"index": 0}', '{"index": 0, "shards": null}'])
def test_record_of_a_block_that_is_damaged_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / SHARDS / "part-00000.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(InputError, match=r"part-00000\.json: "):
        blocks.read_block(tmp_path, 0)


def test_value_that_a_detail_has_and_metrics_lack_is_named(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"metrics": {}, "details": {"mlm_loss": {}}}))
    with pytest.raises(InputError, match=r"result\.json: metrics\.mlm_loss is missing"):
        read_measured(path)


def test_card_of_kdjax_without_the_hash_of_its_weights_is_refused(tmp_path: Path) -> None:
    card = {name: value for name, value in CARD.items() if name != "params_sha256"}
    (tmp_path / "teacher.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"teacher\.json: params_sha256 is missing"):
        read_card(tmp_path)


@pytest.mark.parametrize("value", [NAN, float("inf"), {"a": [1, {"b": NAN}]}])
def test_number_that_is_not_finite_is_refused_wherever_it_stands(value: Any) -> None:
    with pytest.raises(InputError, match=r"file\.json: field.* is (nan|inf), expected a finite"):
        from_plain(dict[str, Any], {"field": value}, "file.json:")
    with pytest.raises(InputError, match=r"file\.json: field"):
        check_fields({"field": value}, {"field": float}, "file.json:")
