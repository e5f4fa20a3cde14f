"""Damaged files of text, tables and weights are read, or refused in one line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from kdjax import models
from kdjax.config import EvaluationConfig, TaskConfig
from kdjax.config.suites import GLUE
from kdjax.data.tasks.load import load_tasks
from kdjax.errors import InputError
from kdjax.text import sources
from tests.fuzz.mutations import changed_bytes, numbered
from tests.support import glue, small_study
from tests.support.corpora import make_tokenizer

pytestmark = pytest.mark.system
SECONDS = 7.0
"""Time for each kind of file in the suite; `make test-all` takes ten times as long."""
DURATIONS = [SECONDS, pytest.param(10 * SECONDS, marks=pytest.mark.exhaustive)]
TEXTS = [f"The {n}th text, über naïve 漢字 and \U0001f600.\nSecond line." for n in range(40)]


def _jsonl() -> bytes:
    return "".join(
        json.dumps({"text": text, "id": n}) + "\n" for n, text in enumerate(TEXTS)
    ).encode()


def _json() -> bytes:
    return json.dumps([{"text": text} for text in TEXTS], ensure_ascii=False).encode()


def _parquet(path: Path) -> bytes:
    parquet.write_table(pa.table({"text": TEXTS}), path)
    content = path.read_bytes()
    path.unlink()
    return content


def text_files(directory: Path) -> dict[str, bytes]:
    """Return a file of each format and compression, by its suffix."""
    plain = "\n\n".join(TEXTS).encode()
    return {
        ".txt": plain,
        ".jsonl": _jsonl(),
        ".json": _json(),
        ".parquet": _parquet(directory / "made.parquet"),
        ".txt.gz": gzip.compress(plain),
        ".jsonl.gz": gzip.compress(_jsonl()),
        ".txt.bz2": bz2.compress(plain),
        ".jsonl.xz": lzma.compress(_jsonl()),
    }


def refused(read: Callable[[], object], where: str) -> bool:
    """Return whether reading is refused; anything but an InputError of one line is a failure."""
    try:
        read()
    except InputError as e:
        assert "\n" not in str(e), where
        assert str(e), where
        return True
    except BaseException as e:
        raise AssertionError(f"{where}: {type(e).__name__}: {e}") from e
    return False


@pytest.mark.parametrize("seconds", DURATIONS)
def test_damaged_text_is_read_or_refused_in_one_line(seconds: float, tmp_path: Path) -> None:
    files = text_files(tmp_path)
    counts = [0, 0]
    for number in numbered(seconds):
        rng = random.Random(f"text file {number}")
        suffix = rng.choice(sorted(files))
        path = tmp_path / f"text{suffix}"
        path.write_bytes(changed_bytes(files[suffix], rng))
        where = f"text file {number}, {suffix}"
        counts[refused(lambda path=path: list(sources.documents(str(path), ["text"])), where)] += 1
        path.unlink()
    print(f"{sum(counts)} files, {counts[1]} refused")
    assert min(counts) > 0, counts


@pytest.mark.parametrize("seconds", DURATIONS)
def test_damaged_table_is_read_or_refused_in_one_line(seconds: float, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json")
    table = small_study.make_task(tmp_path / "halves.csv", "halves").read_bytes()
    files = {".csv": table, ".tsv": table.replace(b",", b"\t")}
    counts = [0, 0]
    for number in numbered(seconds):
        rng = random.Random(f"table {number}")
        suffix = rng.choice(sorted(files))
        path = tmp_path / f"task{suffix}"
        path.write_bytes(changed_bytes(files[suffix], rng))
        task = TaskConfig(file=str(path), dev=0.2, test=0.2)
        config = EvaluationConfig(tasks={"task": task})
        where = f"table {number}, {suffix}"
        counts[refused(lambda config=config: load_tasks(config, tokenizer, 16), where)] += 1
    print(f"{sum(counts)} files, {counts[1]} refused")
    assert min(counts) > 0, counts


@pytest.mark.parametrize("seconds", DURATIONS)
def test_damaged_suite_is_read_or_refused_in_one_line(seconds: float, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json")
    writers = {"official": glue.write_official, "hub": glue.write_hub}
    files = []
    for layout, write in writers.items():
        root = write(tmp_path / layout)
        for task in GLUE:
            directory = root / (task.title if layout == "official" else task.name)
            files += [(root, task.name, path) for path in sorted(directory.iterdir())]
    counts = [0, 0]
    for number in numbered(seconds):
        rng = random.Random(f"suite {number}")
        root, name, path = rng.choice(files)
        whole = path.read_bytes()
        path.write_bytes(changed_bytes(whole, rng))
        config = EvaluationConfig(suite="glue", glue=str(root), suite_tasks=(name,))
        where = f"suite {number}, {path}"

        def read(config: EvaluationConfig = config) -> object:
            return load_tasks(config, tokenizer, 16, with_unlabelled=True)

        counts[refused(read, where)] += 1
        path.write_bytes(whole)
    print(f"{sum(counts)} files, {counts[1]} refused")
    assert min(counts) > 0, counts


@pytest.mark.parametrize("seconds", DURATIONS)
def test_damaged_model_is_read_or_refused_in_one_line(seconds: float, tmp_path: Path) -> None:
    whole = small_study.make_teacher(tmp_path / "made" / "encoder", head=True)
    names = ("config.json", "model.safetensors", "config.json", "tokenizer.json")
    counts = [0, 0]
    for number in numbered(seconds):
        rng = random.Random(f"model {number}")
        name = rng.choice(names)
        directory = tmp_path / "model"
        shutil.copytree(whole, directory)
        (directory / name).write_bytes(changed_bytes((whole / name).read_bytes(), rng))
        where = f"model {number}, {name}"
        counts[refused(lambda path=directory: models.from_pretrained(path), where)] += 1
        shutil.rmtree(directory)
    print(f"{sum(counts)} files, {counts[1]} refused")
    assert min(counts) > 0, counts


@pytest.mark.parametrize("seconds", DURATIONS)
def test_damaged_tokenizer_is_read_or_refused_in_one_line(seconds: float, tmp_path: Path) -> None:
    whole = make_tokenizer(tmp_path / "whole.json").read_bytes()
    path = tmp_path / "tokenizer.json"
    table = small_study.make_task(tmp_path / "halves.csv", "halves")
    config = EvaluationConfig(tasks={"task": TaskConfig(file=str(table), dev=0.2, test=0.2)})
    counts = [0, 0]
    for number in numbered(seconds):
        path.write_bytes(changed_bytes(whole, random.Random(f"tokenizer {number}")))
        where = f"tokenizer {number}"
        counts[refused(lambda: load_tasks(config, path, 16), where)] += 1
    print(f"{sum(counts)} files, {counts[1]} refused")
    assert min(counts) > 0, counts
