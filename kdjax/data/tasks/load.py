"""The labelled tasks of a recipe: one's own and a suite's, as text and as token ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kdjax.config import EvaluationConfig
from kdjax.config.suites import suite_tasks
from kdjax.data.tasks.encoding import EncodedRows, encode, is_selection_row
from kdjax.data.tasks.raw import RawTask, RowSource
from kdjax.data.tasks.suite_layouts import babylm_tasks, glue_tasks
from kdjax.data.tasks.task import Split, Task
from kdjax.data.tasks.user_tasks import user_task
from kdjax.data.text_figures import check_unknown
from kdjax.errors import InputError, counted
from kdjax.tokenizers.text_tokenizer import TextTokenizer


def raw_tasks(config: EvaluationConfig) -> Iterator[RawTask]:
    """Yield the tasks as text: one's own, then the suite's. Nothing is tokenised.

    Args:
        config: settings of the evaluation.

    Raises:
        InputError: files are missing or have another layout; while rows are read, one is damaged.
    """
    for name, task in config.tasks.items():
        yield user_task(name, task)
    chosen = suite_tasks(config.suite, config.suite_tasks)
    if config.suite == "glue":
        yield from glue_tasks(config.suite_place, chosen)
    elif config.suite == "babylm":
        yield from babylm_tasks(config.suite_place, chosen)


def load_tasks(
    config: EvaluationConfig, tokenizer_path: Path, length: int, *, with_unlabelled: bool = False
) -> tuple[Task, ...]:
    """Read and tokenise the tasks: one's own, then the suite's.

    Training and selection rows are in the order of a hash of their texts (of one's own tasks, of
    their identities), which says nothing of the label. A suite's dev and test rows are in the order
    of their files.

    Args:
        config: settings of the evaluation.
        tokenizer_path: path of a tokenizer.json.
        length: most tokens of a row, special tokens included; longer rows are cut.
        with_unlabelled: whether a suite's test rows are read, too; QQP has 391 thousand.

    Raises:
        InputError: files are missing, damaged or of another layout, a label is missing or none of
            the task's, a split is empty or has one class, or texts are mostly [UNK].
    """
    if not config.task_results:
        return ()
    tokenizer = TextTokenizer.read(tokenizer_path)
    return tuple(
        _load(task, config, tokenizer, length, with_unlabelled) for task in raw_tasks(config)
    )


def _load(
    raw: RawTask,
    config: EvaluationConfig,
    tokenizer: TextTokenizer,
    length: int,
    with_unlabelled: bool,
) -> Task:
    """Tokenise a task, and say which of its rows are for what; see `load_tasks`."""
    left_out: Counter[str] = Counter()
    encoded: list[EncodedRows] = []

    def read(source: RowSource) -> EncodedRows:
        rows = encode(raw, source, source.rows(left_out), tokenizer, length)
        _check_rows(raw, source, rows.split)
        encoded.append(rows)
        return rows

    # One's own tasks have a dev and a test split; of a suite the official dev rows are reported, as
    # the labels of its test rows are nobody's.
    (train_source,) = raw.of_split("train")
    train_rows = read(train_source)
    dev = {source.result: read(source) for source in raw.of_split("dev")}
    if not raw.from_suite:
        train = train_rows.split
        selection = dev[raw.name].split
        reported = {source.result: read(source).split for source in raw.of_split("test")}
    else:
        reported = {result: rows.split for result, rows in dev.items()}
        # The first result's rows: of MNLI those whose genres are trained on.
        selection = reported[raw.name]
        share = config.selection if config.report_on == "unseen" else 0.0
        train, unseen = _split_by_hash(train_rows, share)
        if config.report_on == "unseen":
            selection = unseen
            _check_part(raw, train_source, train, "left to train on")
            _check_part(raw, train_source, unseen, f"in evaluation.selection, {share:g}")

    # Texts of another vocabulary are refused.
    tokens = sum(rows.text_tokens for rows in encoded)
    unknown = sum(rows.unknown for rows in encoded) / max(1, tokens)
    check_unknown({"all": unknown}, f"task {raw.name}, {train_source.place}")

    # Rows to predict, for GLUE's server
    unlabelled = {}
    if with_unlabelled and raw.from_suite:
        unlabelled = {source.result: read(source).split for source in raw.of_split("test")}
    return Task(
        raw.name,
        raw.classes,
        raw.metrics,
        train,
        selection,
        reported,
        unlabelled,
        unknown,
        dict(left_out),
    )


def _split_by_hash(rows: EncodedRows, share: float) -> tuple[Split, Split]:
    """Split rows by the hash of their texts: those with equal texts are in one part.

    Returns:
        The rows to train on, and the selection rows, each in the order of the hash.
    """
    order = np.argsort(rows.fractions, kind="stable")
    is_selected = np.array([is_selection_row(rows.fractions[n], share) for n in order], np.bool_)
    return rows.split.take(order[~is_selected]), rows.split.take(order[is_selected])


def _check_rows(task: RawTask, source: RowSource, split: Split) -> None:
    """Raise an InputError for a split without rows, or with rows of one class."""
    where = f"task {task.name}, {source.place}"
    if not len(split):
        raise InputError(f"{where}: the {source.split} split has no rows, expected some")
    if task.classes and split.labels is not None:
        present = np.unique(split.labels)
        if len(present) == 1:
            raise InputError(
                f"{where}: the {source.split} split has {counted(len(split), 'row')}, all of them "
                f"{task.classes[present[0]]!r}, expected rows of 2 classes or more"
            )


def _check_part(task: RawTask, source: RowSource, split: Split, part: str) -> None:
    """Raise an InputError where a part of a suite's training rows has too few of them.

    Args:
        task: the task.
        source: its training split.
        split: the part.
        part: what the part is for, for the message.
    """
    few = len(split) < 2
    if task.classes and split.labels is not None:
        few = len(np.unique(split.labels)) < 2
    if few:
        raise InputError(
            f"task {task.name}, {source.place}: too few rows are {part} ({len(split)}), expected "
            "two, of two classes; evaluation.report_on dev takes none out"
        )
