"""What a rehearsal reads in place of a recipe's inputs: text, a teacher, tasks, minimal pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdjax.config import Config, TaskConfig, TokenizerConfig
from kdjax.config.minimal_pairs import PairSetName
from kdjax.config.suites import suite_tasks
from kdjax.models import Model, init, save_pretrained, zoo
from kdjax.rehearsal import made_up_text, suites
from kdjax.rehearsal.scale import VOCABULARY, Inputs, scale_recipe
from kdjax.storage.files import write_text
from kdjax.tokenizers import tokenizer_training

DOCUMENTS = 400
"""Documents of the text."""
ROWS = 240
"""Rows of a task of one's own."""
SUITE_ROWS = {"train": 60, "dev": 16, "test": 4}
"""Rows of each split of a suite's tasks."""
PAIRS = 12
"""Minimal pairs of a set."""
TOKENIZERS: dict[str, Literal["wordpiece", "bpe", "unigram"]] = {
    "roberta": "bpe",
    "modernbert": "bpe",
    "xlm-roberta": "unigram",
    "camembert": "unigram",
}
"""Family -> kind of tokenizer that its models come with; of others wordpiece."""


def write_inputs(config: Config, directory: Path) -> Inputs:
    """Write all that a recipe's rehearsal reads.

    Args:
        config: the recipe as it is.
        directory: new directory for the files.

    Raises:
        InputError: a setting of the recipe contradicts another, or a library is missing that its
            kind of tokenizer needs.
    """
    texts = {}
    for number, name in enumerate(config.evaluation.texts, start=1):
        path = directory / f"text-{name}.jsonl"
        texts[name] = _write_text(path, DOCUMENTS // 4, 10 * number)
    inputs = Inputs(
        text=_write_text(directory / "text.jsonl", DOCUMENTS, 0),
        texts=texts,
        tasks=dict(_own_tasks(config, directory)),
        suite=_suite(config, directory),
        pairs=_pairs(config, directory),
        backup=directory / "backup" if config.train.checkpoint.directory else None,
    )
    # A tokenizer that the recipe does not train comes from the teacher's directory, or a file.
    named_tokenizer = None
    beside_teacher = None
    if not isinstance(config.data.tokenizer, TokenizerConfig):
        path = _tokenizer(config, inputs, directory / "tokenizer.json", config.student.family)
        beside_teacher = path
        if config.data.tokenizer or not config.teacher.source:
            named_tokenizer = path
    if config.data.teacher_tokenizer:
        path = directory / "teacher-tokenizer.json"
        family = config.teacher.architecture.family
        beside_teacher = _tokenizer(config, inputs, path, family)
    teacher = None
    if not config.teacher.train.budget:
        teacher = directory / "teacher"
        _write_teacher(config, replace(inputs, teacher=teacher), beside_teacher)
    return replace(inputs, teacher=teacher, tokenizer=named_tokenizer)


def _write_text(path: Path, count: int, seed: int) -> Path:
    """Write documents as JSON lines."""
    rows = []
    for number, document in enumerate(made_up_text.documents(count, seed)):
        rows.append({"id": f"{path.stem} {number}", "text": document})
    suites.write(path, suites.json_lines(rows))
    return path


def _tokenizer(config: Config, inputs: Inputs, path: Path, family: str) -> Path:
    """Train a tokenizer of the kind that a family's models have, and write its file.

    Args:
        config: the recipe as it is.
        inputs: what is read in place of its text.
        path: the tokenizer's file.
        family: the family's name.
    """
    settings = TokenizerConfig(TOKENIZERS.get(family, "wordpiece"), VOCABULARY)
    data = replace(
        config.data,
        files=str(inputs.text),
        text_field="text",
        tokenizer=settings,
        teacher_tokenizer="",
        teacher_seq_len=0,
    )
    write_text(path, tokenizer_training.train_on_corpus(data).json)
    return path


def _write_teacher(config: Config, inputs: Inputs, tokenizer: Path | None) -> None:
    """Write a directory of an untrained teacher; without an MLM head where the recipe fits one."""
    assert inputs.teacher is not None
    model = init(zoo.resolve(scale_recipe(config, inputs).teacher.architecture), seed=1)
    params = dict(model.params)
    if config.teacher.head.budget:
        del params["mlm"]
    save_pretrained(Model(model.config, params), inputs.teacher, tokenizer=tokenizer)


def _suite(config: Config, directory: Path) -> Path | None:
    """Write the recipe's suite of tasks; None where it has none."""
    evaluation = config.evaluation
    if evaluation.suite == "glue":
        tasks = suite_tasks("glue", evaluation.suite_tasks)
        return suites.write_glue(directory / "glue", made_up_text.words(), tasks, **SUITE_ROWS)
    if evaluation.suite == "babylm":
        return suites.write_babylm(directory / "babylm", made_up_text.words(), **SUITE_ROWS)
    return None


def _own_tasks(config: Config, directory: Path) -> Iterator[tuple[str, TaskConfig]]:
    """Write a stand-in for each of the recipe's own tasks, and yield its settings."""
    for number, (name, task) in enumerate(config.evaluation.tasks.items()):
        if task.file:
            path = directory / f"{name}.jsonl"
            suites.write(path, suites.json_lines(_task_rows(task, ROWS, number)))
            # Shares so large that every split has rows.
            dev = max(float(task.dev), 0.1)
            test = max(float(task.test), 0.1)
            yield name, replace(task, file=str(path), dev=dev, test=test)
            continue
        files = {}
        for split, count in (("train", ROWS), ("dev", ROWS // 4), ("test", ROWS // 4)):
            path = directory / f"{name}-{split}.jsonl"
            suites.write(path, suites.json_lines(_task_rows(task, count, 100 * number + count)))
            files[split] = str(path)
        yield name, replace(task, train=files["train"], dev=files["dev"], test=files["test"])


def _task_rows(task: TaskConfig, count: int, seed: int) -> list[dict[str, Any]]:
    """Return rows with a task's columns; the first word tells the label."""
    rng = np.random.default_rng(seed)
    words = made_up_text.words()
    labels = list(task.classes or ("no", "yes"))
    # Labels that are left out have to occur.
    labels += [label for label in task.drop_labels if label not in labels]
    rows = []
    for number, sentence in enumerate(made_up_text.sentences(count, seed)):
        label: str | float = labels[number % len(labels)]
        first = words[number % len(labels)]
        if task.regression:
            label = float(rng.integers(0, 26)) / 5
            first = words[int(label * 5)]
        row = {task.text: f"{first} {sentence}", task.label: label, **task.where}
        if task.text_b:
            row[task.text_b] = sentence
        if task.identity:
            row[task.identity] = f"row {number}"
        rows.append(row)
    return rows


def _pairs(config: Config, directory: Path) -> Path | None:
    """Write the recipe's sets of minimal pairs; None where it has none."""
    settings = config.evaluation.minimal_pairs
    if not settings.directory:
        return None
    root = directory / "pairs"
    for name in settings.sets:
        path = root / f"{name}_filtered" / "rehearsal.jsonl"
        suites.write(path, suites.json_lines(_pair_rows(name)))
    return root


def _pair_rows(name: PairSetName) -> list[dict[str, Any]]:
    """Return minimal pairs that differ in the order of two words."""
    rows: list[dict[str, Any]] = []
    words = made_up_text.words()
    for number in range(PAIRS):
        first, second, third, fourth = words[number : number + 4]
        good = f"{first} {second} {third}"
        bad = f"{first} {third} {second}"
        if name == "ewok":
            row = {"Context1": f"{fourth} {first}", "Context2": f"{second} {first}"}
            row |= {"Target1": good, "Target2": bad, "Domain": "rehearsal"}
            rows.append({**row, "ContextType": "direct"})
        else:
            terms = {"field": "rehearsal", "linguistics_term": "order", "UID": "word_order"}
            rows.append({"sentence_good": good, "sentence_bad": bad, **terms})
    return rows
