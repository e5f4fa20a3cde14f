"""Text at URLs: of the Hugging Face Hub and of web servers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdjax import recipes
from kdjax.config import Config, DataConfig
from kdjax.data.prepare.local import prepare
from kdjax.errors import InputError, Unfinished
from kdjax.text import remote, sources
from kdjax.text.sources import TextError, documents, expand
from tests.support import hub_server
from tests.support.corpora import make_corpus
from tests.support.hub_server import FIRST, SECOND, Hub, Repository

TEXT = "hf://datasets/some/text"


def parquet(texts: list[str]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), file)
    return file.getvalue()


FILES = {
    "data/a.parquet": parquet(["one", "two"]),
    "data/b.jsonl": b'{"text": "three"}\n',
    "data/c.txt.gz": gzip.compress(b"four\n\nfive"),
    "data/d.json": b'[{"text": "six"}]',
    "README.md": b"card",
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server.serving() as server:
        hub_server.use(server, tmp_path / "cache", monkeypatch)
        server.repositories["datasets/some/text"] = Repository(commits={FIRST: FILES})
        yield server


def read(*files: str) -> list[str]:
    return [document.text for document in documents(files, "text")]


def test_glob_of_the_hub_reads_every_format(server: Hub) -> None:
    assert read(f"{TEXT}/data/*") == ["one", "two", "three", "four", "five", "six"]


def test_file_of_the_hub_is_named_with_its_commit(server: Hub) -> None:
    (source,) = expand(f"{TEXT}@main/data/*.jsonl")
    assert str(source) == f"{TEXT}@{FIRST}/data/b.jsonl"


def test_file_of_the_hub_has_the_digest_that_it_has_on_disk(server: Hub) -> None:
    for source in expand(f"{TEXT}/data/*"):
        path = str(source).partition(f"@{FIRST}/")[2]
        assert sources.digest(source) == hashlib.sha256(FILES[path]).hexdigest()


def test_large_file_of_the_hub_is_not_read_for_its_digest(server: Hub) -> None:
    (source,) = expand(f"{TEXT}/data/*.parquet")
    sources.digest(source)
    assert not server.downloads()


@pytest.mark.parametrize("path", ["none/*.txt", "data/none.txt", "data/*.zip"])
def test_name_without_a_file_says_that_none_matches(server: Hub, path: str) -> None:
    with pytest.raises(TextError, match=r"no file matches, expected .txt"):
        expand(f"{TEXT}/{path}")


def test_repository_that_is_missing_is_one_line(server: Hub) -> None:
    with pytest.raises(InputError, match=r"hf://datasets/some/none@main: no such dataset"):
        expand("hf://datasets/some/none/*.txt")


def test_offline_mode_reads_text_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.lay_out(tmp_path, "datasets--some--text", FILES)
    hub_server.use(Hub("http://127.0.0.1:9"), tmp_path, monkeypatch, offline=True)
    assert read(f"{TEXT}/data/*") == ["one", "two", "three", "four", "five", "six"]
    with pytest.raises(InputError, match=r"zip: is not in the cache of huggingface_hub"):
        expand(f"{TEXT}/data/*.zip")


def test_file_that_is_in_the_cache_is_not_downloaded_again(server: Hub, tmp_path: Path) -> None:
    hub_server.lay_out(tmp_path / "cache", "datasets--some--text", FILES)
    assert read(f"{TEXT}/data/b.jsonl") == ["three"]
    assert not server.downloads()


@pytest.mark.parametrize("name", ["a.parquet", "b.jsonl", "c.txt.gz", "d.json"])
def test_web_server_gives_the_text_that_the_file_has(server: Hub, name: str) -> None:
    server.files[f"/{name}"] = FILES[f"data/{name}"]
    (tmp,) = expand(f"{server.url}/{name}")
    assert read(str(tmp)) == read(f"{TEXT}/data/{name}")


def test_file_of_a_web_server_is_known_by_its_etag(server: Hub) -> None:
    server.files["/a.txt"] = b"one"
    (source,) = expand(f"{server.url}/a.txt")
    assert sources.digest(source) == f"etag:{hashlib.md5(b'one').hexdigest()}:3"


def test_weak_etag_is_no_identity_and_the_bytes_are_hashed(server: Hub) -> None:
    server.files["/a.txt"] = b"one"
    (source,) = expand(f"{server.url}/a.txt")
    assert isinstance(source, remote.RemoteFile)
    assert replace(source, identity="").digest() == hashlib.sha256(b"one").hexdigest()
    assert remote._identity({"ETag": 'W/"x"', "size": 3}) == ""


def test_file_that_changes_before_it_is_read_is_refused(server: Hub) -> None:
    server.files["/a.txt"] = b"one"
    (source,) = expand(f"{server.url}/a.txt")
    assert isinstance(source, remote.RemoteFile)
    server.files["/a.txt"] = b"two"
    with pytest.raises(InputError, match=r"a.txt: has changed since it was found"):
        source.open()


def test_connection_that_breaks_while_it_is_read_can_be_tried_again(server: Hub) -> None:
    line = json.dumps({"text": "word " * 200}) + "\n"
    server.files["/a.jsonl"] = line.encode() * 12_000
    server.cut_after = 1
    stream = documents(f"{server.url}/a.jsonl", "text")
    # A TextError, and any other InputError, would have what is prepared deleted.
    with pytest.raises(Unfinished, match=r"a.jsonl: cannot be read \(status 503\).*goes on"):
        list(stream)


@pytest.mark.parametrize("status", [403, 500, 503])
def test_web_server_that_refuses_is_one_line_with_its_status(server: Hub, status: int) -> None:
    server.failing = status
    with pytest.raises(InputError, match=rf"a.txt: cannot be read \(status {status}\)"):
        expand(f"{server.url}/a.txt")


def test_web_server_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match=r"a.txt: cannot be read \(ClientConnectorError\)"):
        expand("http://127.0.0.1:9/a.txt")


def test_backend_that_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(protocol: str) -> None:
        raise ImportError(f"Install a backend of {protocol}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(InputError, match=r"s3:// is missing: pip install 'kdjax\[s3\]'"):
        expand("s3://bucket/a.txt")
    with pytest.raises(InputError, match=r"abfs:// is missing: Install a backend of abfs"):
        expand("abfs://bucket/a.txt")


@pytest.mark.parametrize("url", ["ftp://h/a.txt", "github://o/a.txt", "webhdfs://h/a.txt"])
def test_protocol_that_needs_settings_of_its_own_is_one_line(url: str) -> None:
    with pytest.raises(
        InputError, match=r"a.txt: .*:// needs settings of its own \(.*, expected for inst"
    ):
        expand(url)


def test_failure_of_google_s_library_is_not_logged_beside_our_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fsspec

    def unreachable(protocol: str, **_: object) -> None:
        logging.getLogger("gcsfs").error("a traceback of many lines")
        raise ConnectionError(protocol)

    monkeypatch.setattr(fsspec, "filesystem", unreachable)
    with pytest.raises(InputError, match=r"gs://bucket/a.txt: cannot be read \(ConnectionError\)"):
        expand("gs://bucket/a.txt")
    assert not caplog.records


def test_protocol_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match=r"nowhere:// is unknown to fsspec"):
        expand("nowhere://server/a.txt")


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secret@server/a.txt",
        "https://secret@server/a.txt",
        "https://server/a.txt?signature=secret",
        "https://server/a.txt#secret",
    ],
)
def test_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InputError, match=r"data.files is 'https://server/a.txt' with") as refusal:
        recipes.changed(Config(), {"data.files": url})
    assert "secret" not in str(refusal.value)
    with pytest.raises(InputError) as refusal:
        expand(url)
    assert "secret" not in str(refusal.value)


def test_preparation_that_a_broken_connection_ended_goes_on(
    server: Hub, tmp_path: Path, tokenizer: Path
) -> None:
    for seed, name in enumerate("ab"):
        path = make_corpus(tmp_path / f"{name}.jsonl", 60, seed)
        server.files[f"/{name}.jsonl"] = path.read_bytes()
    config = DataConfig(
        files=(f"{server.url}/a.jsonl", f"{server.url}/b.jsonl"),
        seq_len=24,
        validation=0.2,
        workers=1,
        shard_documents=20,
    )
    whole = prepare(config, tokenizer, tmp_path / "whole")
    server.refused_after = 1
    with pytest.raises(Unfinished, match=r"b.jsonl: cannot be read"):
        prepare(config, tokenizer, tmp_path / "out")
    assert list((tmp_path / "out" / "shards").iterdir())
    server.refused_after = None
    assert prepare(config, tokenizer, tmp_path / "out") == whole


def test_corpus_of_the_hub_is_the_corpus_of_the_same_files(
    server: Hub, tmp_path: Path, tokenizer: Path
) -> None:
    path = make_corpus(tmp_path / "text.jsonl", 60)
    server.repositories["datasets/some/text"].commits[FIRST] = {"text.jsonl": path.read_bytes()}
    config = DataConfig(files=str(path), seq_len=24, validation=0.2, workers=1)
    here = prepare(config, tokenizer, tmp_path / "here")
    on_hub = replace(config, files=f"{TEXT}@main/text.jsonl")
    there = prepare(on_hub, tokenizer, tmp_path / "there")
    assert there.shards == here.shards
    assert there.sources == {
        f"{TEXT}@{FIRST}/text.jsonl": hashlib.sha256(path.read_bytes()).hexdigest()
    }


def test_directory_of_a_corpus_refuses_another_commit_with_other_text(
    server: Hub, tmp_path: Path, tokenizer: Path
) -> None:
    repository = server.repositories["datasets/some/text"]
    for commit, documents_there in ((FIRST, 60), (SECOND, 61)):
        path = make_corpus(tmp_path / "text.jsonl", documents_there)
        repository.commits[commit] = {"text.jsonl": path.read_bytes()}
    config = DataConfig(files=f"{TEXT}@{FIRST}/text.jsonl", seq_len=24, validation=0.2, workers=1)
    prepare(config, tokenizer, tmp_path / "out")
    moved = replace(config, files=f"{TEXT}@{SECOND}/text.jsonl")
    with pytest.raises(InputError, match=r"was prepared from other text than hf://datasets/some"):
        prepare(moved, tokenizer, tmp_path / "out")
