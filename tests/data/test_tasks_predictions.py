"""Files of predictions as GLUE's server takes them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from kdjax.data.tasks.predictions import write_predictions
from kdjax.errors import InputError

PREDICTIONS = {
    "cola": np.array([1, 0]),
    "sst2": np.array([0, 1]),
    "mrpc": np.array([1]),
    "qqp": np.array([0]),
    "stsb": np.array([-0.2, 2.34567, 7.5], np.float32),
    "mnli": np.array([0, 1, 2]),
    "mnli-mm": np.array([2]),
    "qnli": np.array([0, 1]),
    "rte": np.array([1]),
    "wnli": np.array([1, 0]),
}


def test_every_file_has_the_servers_name_columns_and_labels(tmp_path: Path) -> None:
    archive = write_predictions(tmp_path / "out", PREDICTIONS)
    rows = {}
    for path in archive.parent.glob("*.tsv"):
        header, *lines = path.read_text().splitlines()
        assert header == "index\tprediction"
        indices = [line.split("\t")[0] for line in lines]
        assert indices == [str(number) for number in range(len(lines))]
        rows[path.name] = [line.split("\t")[1] for line in lines]
    assert rows == {
        "CoLA.tsv": ["1", "0"],
        "SST-2.tsv": ["0", "1"],
        "MRPC.tsv": ["1"],
        "QQP.tsv": ["0"],
        "STS-B.tsv": ["0.000", "2.346", "5.000"],
        "MNLI-m.tsv": ["entailment", "neutral", "contradiction"],
        "MNLI-mm.tsv": ["contradiction"],
        "QNLI.tsv": ["entailment", "not_entailment"],
        "RTE.tsv": ["not_entailment"],
        "WNLI.tsv": ["1", "0"],
    }


def test_zip_holds_the_files_and_equal_predictions_make_equal_bytes(tmp_path: Path) -> None:
    first = write_predictions(tmp_path / "a", PREDICTIONS)
    second = write_predictions(tmp_path / "b", PREDICTIONS)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            assert archive.read(name) == (first.parent / name).read_bytes()
        assert len(archive.namelist()) == len(PREDICTIONS)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ({"rte": np.array([0, 2])}, r"prediction 1 of rte is 2, expected the index of one of 2"),
        ({"rte": np.array([0.5])}, r"prediction 0 of rte is 0\.5, expected the index"),
        ({"stsb": np.array([np.nan])}, r"prediction 0 of stsb is nan, expected a finite number"),
        ({"sst-2": np.array([0])}, r"predictions of 'sst-2' \(did you mean 'sst2'\?\): expected"),
    ],
)
def test_predictions_that_cannot_be_leave_nothing(
    tmp_path: Path, predictions: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_predictions(tmp_path / "out", {"cola": np.array([0]), **predictions})
    assert list(tmp_path.iterdir()) == []


def test_directory_with_files_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files, expected an empty directory, or none"):
        write_predictions(tmp_path, PREDICTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_place_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"out: cannot be written .*expected a writable place"):
        write_predictions(tmp_path / "file" / "out", PREDICTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
