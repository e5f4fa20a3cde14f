"""A small synthetic GLUE in each layout that is read: nine tasks, alike in all of them
(`kdjax.rehearsal.suites`, whose words are those of `tests.support.corpora` here)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.config.suites import GLUE, SuiteTask
from kdjax.data.tasks.official import MRPC_DEV_IDS, MRPC_TEST, MRPC_TRAIN
from kdjax.data.tasks.suite import splits_of
from kdjax.rehearsal import suites
from kdjax.rehearsal.suites import OFFICIAL_HEADERS, ROWS, SHORT_ROWS, Row
from tests.support.corpora import WORDS

__all__ = ["OFFICIAL_HEADERS", "ROWS", "SHORT_ROWS", "Row"]


def rows_of(task: SuiteTask, split: str, ending: str = "", count: int = 0) -> list[Row]:
    """Draw the rows of a split: always the same ones for the same names and number."""
    return suites.rows_of(task, split, WORDS, ending, count)


def write_official(root: Path, tasks: Sequence[SuiteTask] = GLUE, **counts: int) -> Path:
    """Write the official TSV files."""
    return suites.write_glue(root, WORDS, tasks, **counts)


def write_babylm(root: Path, **counts: int) -> Path:
    """Write BabyLM's `glue_filtered`."""
    return suites.write_babylm(root, WORDS, **counts)


def write_microsoft_mrpc(root: Path) -> Path:
    """Write MRPC as Microsoft distributes it, with GLUE's list of dev rows."""
    task = next(task for task in GLUE if task.name == "mrpc")
    rows = rows_of(task, "train") + rows_of(task, "dev")
    directory = root / task.title
    suites.write(directory / MRPC_TRAIN, "\ufeff" + suites.official_lines(task, "train", rows))
    dev_ids = range(ROWS["train"], len(rows))
    suites.write(directory / MRPC_DEV_IDS, "".join(f"{n}\t{n + 1000}\n" for n in dev_ids))
    test = suites.official_lines(task, "train", rows_of(task, "test"))
    suites.write(directory / MRPC_TEST, test)
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
            records = list(suites.records_of(task, rows, hidden=split == "test"))
            directory = root / task.name
            if suffix == ".parquet":
                import pyarrow as pa
                from pyarrow import parquet

                directory.mkdir(parents=True, exist_ok=True)
                path = directory / f"{name}{ending}-00000-of-00001.parquet"
                parquet.write_table(pa.Table.from_pylist(records), path)
            else:
                suites.write(directory / f"{name}{ending}.jsonl", suites.json_lines(records))
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
            yield from enumerate(suites.records_of(self.task, rows, hidden))

    for task in tasks:
        builder = Glue(config=task.name, data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    return root / "glue"
