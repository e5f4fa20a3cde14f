"""The Beam pipelines make, byte for byte, what one machine makes, and fail as it fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from kdjax.cli.main import main
from kdjax.config import DataConfig
from kdjax.data.manifest import Manifest
from kdjax.data.prepare import blocks
from kdjax.data.prepare import local as prepare
from kdjax.errors import InputError
from tests.data.directories import contents
from tests.support.corpora import make_corpus


@pytest.fixture(scope="module")
def pipeline() -> ModuleType:
    """Import Beam here: it takes seconds, and every worker collects this file."""
    pytest.importorskip("apache_beam")
    from kdjax.data.prepare import beam

    return beam


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Settings for five sources; blocks span several of them."""
    for n, documents in enumerate((100, 3, 1, 120, 40)):
        make_corpus(tmp_path / "text" / f"{n}.jsonl", documents, seed=n)
    files = f"{tmp_path}/text/*.jsonl"
    return DataConfig(
        files=files, seq_len=24, max_predictions=4, validation=0.2, shard_documents=50, workers=1
    )


def test_beam_writes_the_bytes_of_one_machine(
    pipeline: ModuleType,
    tmp_path: Path,
    config: DataConfig,
    tokenizer: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Blocks that documents bound, and blocks that bytes bound.
    for bytes_ in (blocks.BLOCK_BYTES, 3000):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", bytes_)
        alone = prepare.prepare(config, tokenizer, tmp_path / f"alone{bytes_}")
        assert pipeline.prepare(config, tokenizer, tmp_path / f"beam{bytes_}") == alone
        assert contents(tmp_path / f"beam{bytes_}") == contents(tmp_path / f"alone{bytes_}")
    assert len(alone.shards) > 2 * 6


def test_beam_and_local_preparation_resume_each_other(
    pipeline: ModuleType,
    tmp_path: Path,
    config: DataConfig,
    tokenizer: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    whole = prepare.prepare(config, tokenizer, tmp_path / "whole")
    indices: list[int] = []

    def watched(block: blocks.Block) -> blocks.FinishedBlock:
        if len(indices) == 3:
            raise InputError("no room left")
        indices.append(block.index)
        return blocks.make_block(block)

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "make_block", watched)
        with pytest.raises(InputError, match=r"^no room left$"):
            pipeline.prepare(config, tokenizer, out)
    assert len(indices) == 3
    # Three blocks are there, and nothing says that the corpus is done.
    assert not (out / "manifest.json").exists()
    progress: list[int] = []
    assert (
        prepare.prepare(config, tokenizer, out, lambda documents, *_: progress.append(documents))
        == whole
    )
    assert progress[-1] == 264 - sum(
        sum(part.documents.values()) for index in indices if (part := read(out, index))
    )
    assert contents(out) == contents(tmp_path / "whole")

    (out / "manifest.json").unlink()
    # A finished corpus that has lost its manifest and a shard.
    (out / whole.shards[1].file).unlink()
    indices.clear()
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "make_block", watched)
        assert pipeline.prepare(config, tokenizer, out) == whole
    assert indices == [1]
    assert contents(out) == contents(tmp_path / "whole")


def read(out: Path, index: int) -> blocks.FinishedBlock:
    part = blocks.read_block(out, index)
    assert part is not None
    return part


def test_unusable_text_is_one_line_and_leaves_nothing_behind(
    pipeline: ModuleType, tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    (tmp_path / "text" / "3.jsonl").write_text('{"text": "fine"}\nnot JSON\n')
    with pytest.raises(InputError, match=r"3\.jsonl, line 2: malformed JSON"):
        pipeline.prepare(config, tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["thesis.txt", ".preparation-scan.txt"])
def test_directory_of_something_else_is_left_alone(
    pipeline: ModuleType, tmp_path: Path, config: DataConfig, tokenizer: Path, name: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("years of work")
    with pytest.raises(InputError, match="is not empty and holds no prepared corpus"):
        pipeline.prepare(config, tokenizer, out)
    assert list(contents(out)) == [name]


def test_another_corpus_is_left_alone(
    pipeline: ModuleType, tmp_path: Path, config: DataConfig, tokenizer: Path
) -> None:
    out = tmp_path / "out"
    prepare.prepare(config, tokenizer, out)
    before = contents(out)
    with pytest.raises(InputError, match=r"prepared with data\.validation 0\.2, expected 0\.3"):
        pipeline.prepare(replace(config, validation=0.3), tokenizer, out)
    # Other text under the same name.
    make_corpus(tmp_path / "text" / "3.jsonl", 7)
    with pytest.raises(InputError, match="prepared from other text"):
        pipeline.prepare(config, tokenizer, out)
    assert contents(out) == before


def test_text_that_changes_between_pipelines_is_refused(
    pipeline: ModuleType,
    tmp_path: Path,
    config: DataConfig,
    tokenizer: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = pipeline.read_counts

    for documents in (90, 200):

        def changed(*arguments: object, documents: int = documents) -> object:
            make_corpus(tmp_path / "text" / "0.jsonl", documents)
            return counted(*arguments)

        # Fewer documents than were counted, or more.
        make_corpus(tmp_path / "text" / "0.jsonl", 100)
        monkeypatch.setattr(pipeline, "read_counts", changed)
        with pytest.raises(InputError, match="expected text that does not change meanwhile"):
            pipeline.prepare(config, tokenizer, tmp_path / f"out{documents}")
        assert not (tmp_path / f"out{documents}" / "manifest.json").exists()


def kdjax(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.system
@pytest.mark.usefixtures("pipeline")
def test_prepare_command_runs_beam_and_refuses_bad_options(
    tmp_path: Path, config: DataConfig, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {
        "files": config.files,
        "tokenizer": str(tokenizer),
        "seq_len": 24,
        "max_predictions": 4,
        "validation": 0.2,
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps({"data": data}))
    command = [
        "prepare",
        tmp_path / "recipe.yaml",
        "--out",
        tmp_path / "out",
        "--data.shard_documents",
        "50",
    ]
    for options, message in (
        (
            ["--", "--runner=FnApiRunner"],
            "kdjax: command line: -- --runner=FnApiRunner: expected such options of",
        ),
        (
            ["--beam", "--", "--runner=Nobody"],
            "kdjax: --beam -- --runner=Nobody: Unexpected pipeline runner: Nobody",
        ),
        (["--beam", "--", "--direct_num_workers=x"], "kdjax: --beam -- --direct_num_workers=x: "),
    ):
        assert kdjax(*command, *options) == 2
        messages = capsys.readouterr().err.splitlines()
        lines = [line for line in messages if not line.startswith("WARNING")]
        (line,) = lines
        assert line.startswith(message)
        assert not (tmp_path / "out").exists()
    assert kdjax(*command, "--beam", "--", "--runner", "FnApiRunner") == 0
    assert Manifest.read(tmp_path / "out") == prepare.prepare(config, tokenizer, tmp_path / "alone")
