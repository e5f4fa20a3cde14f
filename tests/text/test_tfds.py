"""Directories that TensorFlow Datasets prepared are read without TensorFlow."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdjax.errors import InputError
from kdjax.text.document import Document
from kdjax.text.sources import TextError, digest, documents, expand


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 40 training and 10 test examples in array_record format."""
    # Imported here: it takes a second, and every worker collects this file.
    tfds: Any = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("importlib_resources")

    class Little(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = Path(__file__).parent

        def _info(self) -> Any:
            text = tfds.features.Text()
            label = tfds.features.ClassLabel(num_classes=2)
            features = tfds.features.FeaturesDict({"id": text, "text": text, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, _: Any) -> dict[str, Any]:
            return {"train": self._generate_examples(40), "test": self._generate_examples(10)}

        def _generate_examples(self, rows: int) -> Iterator[tuple[int, dict[str, Any]]]:
            for n in range(rows):
                yield n, {"id": f"document {n}", "text": f"text {n} é", "label": n % 2}

    builder = Little(data_dir=tmp_path_factory.mktemp("tfds"), file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def expected(first: int, stop: int) -> list[Document]:
    return [Document(f"document {n}", f"text {n} é") for n in range(first, stop)]


@pytest.mark.parametrize(
    ("split", "documents_"),
    [
        ("train", expected(0, 40)),
        ("train[:25%]", expected(0, 10)),
        ("train[30:]+test", expected(30, 40) + expected(0, 10)),
    ],
)
def test_split_or_a_slice_of_it_is_read_in_order(
    prepared: Path, split: str, documents_: list[Document]
) -> None:
    assert list(documents(f"tfds:{prepared}:{split}", "text")) == documents_
    assert "tensorflow" not in sys.modules


def test_digests_tell_splits_and_contents_apart_but_not_places(
    prepared: Path, tmp_path: Path
) -> None:
    def digests(directory: Path) -> list[str]:
        return [
            digest(*expand(f"tfds:{directory}:{split}")) for split in ("train", "test", "train[:5]")
        ]

    # A path with a colon, too.
    moved = tmp_path / "a:b" / "moved"
    shutil.copytree(prepared, moved)
    assert digests(moved) == digests(prepared)
    assert len(set(digests(prepared))) == 3
    shard = next(moved.glob("*train*array_record*"))
    data = bytearray(shard.read_bytes())
    # A flipped bit of one split.
    data[-1] ^= 1
    shard.write_bytes(data)
    assert digests(moved)[0] != digests(prepared)[0]
    assert digests(moved)[1] == digests(prepared)[1]


def test_missing_tfds_split_or_directory_is_named(prepared: Path) -> None:
    for name, message in (
        (
            f"tfds:{prepared}",
            "has the splits train, test, expected tfds:DIRECTORY:SPLIT with one of them",
        ),
        (f"tfds:{prepared}:dev", "no such split .*expected one of train, test"),
        (f"tfds:{prepared}:train[x]", "no such split .*expected one of train, test"),
        (
            f"tfds:{prepared.parent}:train",
            "holds no dataset_info.json, expected the directory of one version",
        ),
        ("tfds:", "is '', expected a path on this machine"),
        (str(prepared), "no file matches .a TFDS directory: 'tfds:.*:SPLIT'"),
    ):
        with pytest.raises(InputError, match=message) as e:
            expand(name)
        assert "\n" not in str(e.value)
    with pytest.raises(
        TextError, match=r"example 0: has none of the text fields body; see data\.text_field"
    ):
        list(documents(f"tfds:{prepared}:train", "body"))
    with pytest.raises(TextError, match=r"example 0: the field 'label' is a \w+, expected text"):
        list(documents(f"tfds:{prepared}:train", "label"))


def test_damaged_directory_is_refused(prepared: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(prepared, broken)
    next(broken.glob("*test*array_record*")).unlink()
    with pytest.raises(InputError, match=r"test\.array_record.* cannot be read"):
        digest(*expand(f"tfds:{broken}:test"))
    (broken / "features.json").write_text("{")
    with pytest.raises(TextError, match="not readable as a data set"):
        expand(f"tfds:{broken}:train")


def test_format_that_needs_tensorflow_is_refused_with_what_to_install(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(prepared, other)
    info = json.loads((other / "dataset_info.json").read_text())
    (other / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        InputError,
        match=r"is stored as tfrecord, which only TensorFlow reads: pip install tensorflow",
    ):
        expand(f"tfds:{other}:train")


def test_missing_tfds_library_is_named(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        InputError, match=r"needs tensorflow_datasets .*: pip install 'kdjax\[tfds\]'"
    ):
        expand(f"tfds:{prepared}:train")
