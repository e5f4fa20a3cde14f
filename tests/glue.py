"""A small synthetic GLUE in each layout that is read: nine tasks, alike in all of them.

The class of a row follows from the first word of its last text, so that a small model can learn
it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.config.suites import BABYLM, GLUE, SuiteTask
from kdjax.data.tasks.official import MRPC_DEV_IDS, MRPC_TEST, MRPC_TRAIN
from kdjax.data.tasks.official_rows import COLUMNS
from kdjax.data.tasks.suite import splits_of
from tests.corpora import WORDS

ROWS = {"train": 120, "dev": 20, "test": 7}
"""Rows of each split."""
SHORT_ROWS = 2
"""Rows of the official QQP training file that lack columns."""
OFFICIAL_HEADERS = {
    "mrpc": ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    "qqp": ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
    "stsb": ("index", "genre", "filename", "sentence1", "sentence2", "score"),
    "mnli": ("index", "promptID", "genre", "sentence1", "sentence2", "label1", "gold_label"),
    "qnli": ("index", "question", "sentence", "label"),
    "rte": ("index", "sentence1", "sentence2", "label"),
    "wnli": ("index", "sentence1", "sentence2", "label"),
    "sst2": ("sentence", "label"),
}
"""Task -> columns of its labelled files; CoLA's have no header."""


@dataclass(frozen=True)
class Row:
    """A row: its texts, and the index of its class or its score."""

    texts: tuple[str, ...]
    label: float


def rows_of(task: SuiteTask, split: str, ending: str = "", count: int = 0) -> list[Row]:
    """Draw the rows of a split: always the same ones for the same names and number.

    Args:
        task: task of GLUE or BabyLM.
        split: `train`, `dev` or `test`.
        ending: what the split's name ends in, such as `_mismatched`.
        count: number of rows; 0: that of `ROWS`.
    """
    seed = sum(map(ord, f"{task.title} {split}{ending}"))
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count or ROWS[split]):
        texts = [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in task.columns]
        if task.classes:
            label = float(number % len(task.classes))
            word = WORDS[int(label) * 8 + rng.integers(8)]
        else:
            label = float(rng.integers(0, 26)) / 5
            word = WORDS[int(label * 5)]
        texts[-1] = f"{word} {texts[-1]}"
        # A quotation mark that is never closed.
        if number == 3:
            texts[0] = f'"{texts[0]}'
        rows.append(Row(tuple(texts), label))
    return rows


def write_official(root: Path, tasks: Sequence[SuiteTask] = GLUE, **counts: int) -> Path:
    """Write the official TSV files.

    Args:
        root: directory of the tasks' directories.
        tasks: tasks to write.
        counts: split -> number of rows, where it is not that of `ROWS`.
    """
    for task in tasks:
        for split, _, ending in splits_of(task):
            lines = _official_lines(task, split, rows_of(task, split, ending, counts.get(split, 0)))
            mark = "\ufeff" if task.name == "mrpc" else ""
            _write(root / task.title / f"{split}{ending}.tsv", mark + lines)
    return root


def write_microsoft_mrpc(root: Path) -> Path:
    """Write MRPC as Microsoft distributes it, with GLUE's list of dev rows."""
    task = next(task for task in GLUE if task.name == "mrpc")
    rows = rows_of(task, "train") + rows_of(task, "dev")
    directory = root / task.title
    _write(directory / MRPC_TRAIN, "\ufeff" + _official_lines(task, "train", rows))
    dev_ids = range(ROWS["train"], len(rows))
    _write(directory / MRPC_DEV_IDS, "".join(f"{n}\t{n + 1000}\n" for n in dev_ids))
    test = _official_lines(task, "train", rows_of(task, "test"))
    _write(directory / MRPC_TEST, test)
    return root


def write_hub(
    root: Path, suffix: str = ".parquet", tasks: Sequence[SuiteTask] = GLUE, **counts: int
) -> Path:
    """Write files as on Hugging Face's hub.

    Args:
        root: directory of the tasks' directories.
        suffix: `.parquet` or `.jsonl`.
        tasks: tasks to write.
        counts: split -> number of rows, where it is not that of `ROWS`.
    """
    for task in tasks:
        for split, _, ending in splits_of(task):
            rows = rows_of(task, split, ending, counts.get(split, 0))
            name = "validation" if split == "dev" else split
            records = list(_records(task, rows, hidden=split == "test"))
            directory = root / task.name
            if suffix == ".parquet":
                import pyarrow as pa
                from pyarrow import parquet

                directory.mkdir(parents=True, exist_ok=True)
                path = directory / f"{name}{ending}-00000-of-00001.parquet"
                parquet.write_table(pa.Table.from_pylist(records), path)
            else:
                _write(directory / f"{name}{ending}.jsonl", _json_lines(records))
    return root


def write_tfds(root: Path, tasks: Sequence[SuiteTask] = GLUE) -> Path:
    """Prepare a TFDS data set `glue` with a configuration for each task, as array_record.

    Returns:
        The directory of the tasks' directories.
    """
    # Imported here: it takes a second.
    tfds: Any = importlib.import_module("tensorflow_datasets")

    class Glue(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("2.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=task.name) for task in GLUE]  # noqa: RUF012
        pkg_dir_path = Path(__file__).parent

        @property
        def task(self) -> SuiteTask:
            return next(task for task in GLUE if task.name == self.builder_config.name)

        def _info(self) -> Any:
            features: dict[str, Any] = {name: tfds.features.Text() for name in self.task.columns}
            label: Any = np.float32
            if self.task.classes:
                label = tfds.features.ClassLabel(names=list(self.task.classes))
            features |= {"label": label, "idx": np.int32}
            described = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=described, disable_shuffling=True)

        def _split_generators(self, _: Any) -> dict[str, Any]:
            splits = {}
            for split, _, ending in splits_of(self.task):
                name = "validation" if split == "dev" else split
                rows = rows_of(self.task, split, ending)
                splits[f"{name}{ending}"] = self._generate_examples(rows, split == "test")
            return splits

        def _generate_examples(self, rows: list[Row], hidden: bool) -> Iterator[Any]:
            yield from enumerate(_records(self.task, rows, hidden))

    for task in tasks:
        builder = Glue(config=task.name, data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    return root / "glue"


def write_babylm(root: Path, **counts: int) -> Path:
    """Write BabyLM's `glue_filtered`."""
    for task in BABYLM:
        for split, name in (("train", "train"), ("dev", "valid")):
            rows = rows_of(task, split, count=counts.get(split, 0))
            records = list(_records(task, rows, hidden=False))
            for number, record in enumerate(records):
                # Two tasks have their texts in parts.
                if task.name == "multirc":
                    record["answer"] = WORDS[number % len(WORDS)]
                if task.name == "wsc":
                    record["span1_text"] = record.pop("question")
                    record["span2_text"] = WORDS[number % len(WORDS)]
            _write(root / f"{task.name}.{name}.jsonl", _json_lines(records))
    return root


def _official_lines(task: SuiteTask, split: str, rows: Sequence[Row]) -> str:
    """Return the text of an official file."""
    lines = []
    if split == "test" and task.name == "cola":
        lines.append("index\tsentence")
        lines += [f"{number}\t{row.texts[0]}" for number, row in enumerate(rows)]
    elif task.name == "cola":
        lines += [f"gj04\t{int(row.label)}\t\t{row.texts[0]}" for row in rows]
    else:
        columns = COLUMNS[task.name]
        header = OFFICIAL_HEADERS[task.name]
        if split == "test":
            rest = [name for name in header if name not in (columns.label, "label1", "index")]
            header = ("index", *rest)
        lines.append("\t".join(header))
        for number, row in enumerate(rows):
            fields = {name: f"x{number}" for name in header}
            fields |= dict(zip(columns.texts, row.texts, strict=True))
            fields |= {"#1 ID": str(number), "#2 ID": str(number + 1000)}
            fields[columns.label] = _official_label(task, row.label)
            lines.append("\t".join(fields[name] for name in header))
    if task.name == "qqp" and split == "train":
        lines += ["900\t1\t2\twhat is", "this ?\tw1\t1"]
        assert len(lines) == len(rows) + 1 + SHORT_ROWS
    return "\n".join(lines) + "\n"


def _official_label(task: SuiteTask, label: float) -> str:
    if not task.classes:
        return f"{label:.3f}"
    return task.classes[int(label)] if task.named else str(int(label))


def _records(task: SuiteTask, rows: Sequence[Row], hidden: bool) -> Iterator[dict[str, Any]]:
    """Yield rows as records with the hub's fields; labels that are hidden are -1."""
    for number, row in enumerate(rows):
        label: float = int(row.label) if task.classes else row.label
        if hidden:
            label = -1 if task.classes else -1.0
        yield {**dict(zip(task.columns, row.texts, strict=True)), "label": label, "idx": number}


def _json_lines(records: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
