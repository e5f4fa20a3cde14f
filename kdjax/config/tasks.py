"""Settings of labelled tasks of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kdjax.config.values import check_mapping, check_number, expect
from kdjax.errors import InputError, nearest
from kdjax.storage.paths import check_setting

CLASS_METRICS = ("accuracy", "f1", "f1_macro", "matthews")
"""Metrics of classes."""
NUMBER_METRICS = ("pearson", "spearman")
"""Metrics of numbers."""


@dataclass(frozen=True)
class TaskConfig:
    """A labelled task: a file whose rows are split by the hash of their identity, or a file for
    each split."""

    file: str = ""
    """A .csv, .tsv, .jsonl, .json or .parquet file (path or package:NAME/PATH) whose rows are split
    by `dev` and `test`. Empty: `train`, `dev` and `test` are files."""
    train: str = ""
    """File of the rows to train on; not with `file`."""
    text: str = "text"
    """Column of the text."""
    text_b: str = ""
    """Column of the second text, where rows are pairs. Empty: they are single texts."""
    label: str = "label"
    """Column of the label."""
    identity: str = ""
    """Column whose hash decides the split. Empty: the record's key in a .json mapping, else the
    texts."""
    where: dict[str, str] = field(default_factory=dict)
    """Values by column: only rows that have all of them are used."""
    drop_labels: tuple[str, ...] = ()
    """Labels whose rows are left out."""
    classes: tuple[str, ...] = ()
    """The labels, in the order of their indices; the second is the one that `f1` is of. Empty: all
    that occur, in the order of the alphabet."""
    regression: bool = False
    """Whether the label is a number to predict; else it is a class."""
    metrics: tuple[str, ...] = ()
    """Metrics, of which the score is the mean: accuracy, f1, f1_macro, matthews for classes,
    pearson, spearman for numbers. Empty: accuracy, or pearson."""
    dev: float | str = 0.1
    """Share of rows by which settings are chosen, between 0 and 1; with `train`: their file."""
    test: float | str = 0.1
    """Share of rows for the reported figure; with `train`: their file. A task on the corpus's own
    documents is tested on none that the student was trained on only if this is at most
    `data.validation`. Between 0 and 1; with `dev` less than 1."""

    def check(self, name: str) -> None:
        """Check the settings.

        Args:
            name: dotted name of the task, for messages.

        Raises:
            InputError: a setting is out of range, or contradicts another one.
        """
        if bool(self.file) == bool(self.train):
            state = "set" if self.file else "empty"
            raise InputError(
                f"{name}.file and {name}.train are both {state}, expected one of them: a file that "
                "is split, or one for each split"
            )
        if self.file:
            self._check_shares(name)
        else:
            self._check_files(name)
        check_setting(self.file, f"{name}.file", hub_file=True)
        check_setting(self.train, f"{name}.train", hub_file=True)
        check_mapping(self.where, f"{name}.where")
        _check_metrics(self, name)
        _check_classes(self, name)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Return the metrics, the default one where none is set."""
        return self.metrics or ("pearson" if self.regression else "accuracy",)

    @property
    def shares(self) -> tuple[float, float]:
        """Return the shares of dev and test rows of a file that is split."""
        return float(self.dev), float(self.test)

    def _check_shares(self, name: str) -> None:
        for setting_name in ("dev", "test"):
            value = getattr(self, setting_name)
            if isinstance(value, str):
                raise InputError(
                    f"{name}.{setting_name} is {value!r:.80}, expected a share of the rows of "
                    f"{name}.file; files of splits need {name}.train in its place"
                )
            check_number(value, f"{name}.{setting_name}", 0, 1, above=True)
        total = sum(self.shares)
        expected = "less than 1: the rest is trained on"
        expect(total < 1, f"{name}.dev and {name}.test", f"{total:g} together", expected)

    def _check_files(self, name: str) -> None:
        for setting_name in ("dev", "test"):
            value = getattr(self, setting_name)
            is_file = isinstance(value, str) and bool(value)
            expect(is_file, f"{name}.{setting_name}", repr(value), "a file, as train is one")
            check_setting(str(value), f"{name}.{setting_name}", hub_file=True)
        unused = "nothing: files of splits are not split by a hash"
        expect(not self.identity, f"{name}.identity", repr(self.identity), unused)


def _check_metrics(task: TaskConfig, name: str) -> None:
    """Raise an InputError for a metric that is unknown, of the other kind, or named twice."""
    valid = NUMBER_METRICS if task.regression else CLASS_METRICS
    kind = "numbers" if task.regression else "classes"
    for metric in task.metrics:
        if metric not in valid:
            raise InputError(
                f"{name}.metrics has {metric!r:.80}{nearest(str(metric), valid)}, expected metrics "
                f"of {kind}"
            )
    _check_once(task.metrics, f"{name}.metrics")


def _check_classes(task: TaskConfig, name: str) -> None:
    """Raise an InputError for classes that cannot be."""
    if not task.classes:
        return
    classes = list(task.classes)
    expect(
        not task.regression, f"{name}.classes", classes, "none: labels of a regression are numbers"
    )
    expect(len(task.classes) > 1, f"{name}.classes", classes, "two or more")
    _check_once(task.classes, f"{name}.classes")


def _check_once(names: Sequence[str], setting_name: str) -> None:
    expect(len(set(names)) == len(names), setting_name, list(names), "each name once")
