"""Repositories of the Hugging Face Hub: names, commits, what is downloaded, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kdjax.errors import InputError
from kdjax.storage import hub
from kdjax.storage.hub import HubName
from tests.support import hub_server
from tests.support.hub_server import FIRST, SECOND, TOKEN, Hub, Repository

MODEL = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"tokens",
    "vocab.txt": b"[PAD]",
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"code",
    "onnx/model.onnx": b"graph",
    "onnx/model.safetensors": b"others",
    "README.md": b"card",
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server.serving() as server:
        hub_server.use(server, tmp_path / "cache", monkeypatch)
        server.repositories["models/some/bert"] = Repository(commits={FIRST: MODEL})
        yield server


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf:some/bert", HubName("model", "some/bert")),
        ("hf:some/bert@v1.0", HubName("model", "some/bert", "v1.0")),
        ("hf:some/bert@refs/pr/1", HubName("model", "some/bert", "refs/pr/1")),
        ("hf:some/bert@a%2Fb", HubName("model", "some/bert", "a/b")),
        ("hf://some/bert@x/a/b.txt", HubName("model", "some/bert", "x", "a/b.txt")),
        ("hf://datasets/some/text/**/*.txt", HubName("dataset", "some/text", "main", "**/*.txt")),
        (
            "hf://datasets/some/text@refs/convert/parquet/a/0.parquet",
            HubName("dataset", "some/text", "refs/convert/parquet", "a/0.parquet"),
        ),
    ],
)
def test_name_is_read_and_written_back_to_the_same(text: str, name: HubName) -> None:
    assert hub.parse(text) == name
    assert hub.parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        "hf:bert",
        "hf:some/bert/model",
        "hf:some/bert@",
        "hf:../bert@x y",
        "hf:datasets/text",
        "hf://some/bert",
        "hf://spaces/some/bert/a.txt",
        "hf://buckets/some/bert/a.txt",
        "hf://some/bert/a/../../b.txt",
        "hf://some/bert//b.txt",
        "hf:../bert",
        "hf:./.",
        "hf:some/..",
        "hf:-some/bert",
        "hf:some/bert.",
        "hf:some/be--rt",
        "hf:some/" + "b" * 100,
        "hf:some/bert@%2Fetc%2Fpasswd",
        "hf:some/bert@..",
        "hf:some/bert@..%2Fx",
        "hf:some/bert@a%2F%2E%2E%2Fb",
        "hf:some/bert@a%00",
        "hf:some/bert@a%0Ab",
        "hf:some/bert@a%20b",
        "hf:some/bert@%FF",
        "hf:some/bert@.git",
        "hf:some/bert@a%5Cb",
        "hf:some/bert@" + "a" * 5000,
        "hf://some/bert/" + "a" * 300,
        "hf://some/bert/" + "a/" * 600 + "b",
    ],
)
def test_ill_formed_name_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"teacher.source is '.*expected hf:"):
        hub.parse(text, "teacher.source")


def test_branch_becomes_its_commit_once_per_process(server: Hub) -> None:
    assert hub.at_commit(hub.parse("hf:some/bert@main")).revision == FIRST
    server.repositories["models/some/bert"].branches["main"] = SECOND
    assert hub.at_commit(hub.parse("hf:some/bert@main")).revision == FIRST
    assert len([request for request in server.requests if "/revision/" in request]) == 1


def test_commit_stands_for_itself_without_a_request(server: Hub) -> None:
    assert hub.at_commit(HubName("model", "some/bert", SECOND)).revision == SECOND
    assert not server.requests


def test_model_download_takes_weights_json_and_text_alone(server: Hub) -> None:
    directory = hub.model_directory(hub.parse("hf:some/bert"))
    files = {path.relative_to(directory).as_posix() for path in directory.rglob("*.*")}
    assert files == {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt"}
    assert (directory / "model.safetensors").read_bytes() == b"weights"
    assert server.downloads() == files


def test_downloaded_model_is_read_again_without_a_request(server: Hub) -> None:
    name = HubName("model", "some/bert", FIRST)
    directory = hub.model_directory(name)
    server.requests.clear()
    assert hub.model_directory(name) == directory
    assert not server.requests


def test_model_of_pickles_alone_is_refused_and_not_downloaded(server: Hub) -> None:
    server.repositories["models/some/old"] = Repository(
        commits={FIRST: {"config.json": b"{}", "pytorch_model.bin": b"pickle"}}
    )
    with pytest.raises(InputError, match=r"hf:some/old@main: has no model.safetensors.*pickles"):
        hub.model_directory(hub.parse("hf:some/old"))
    assert "pytorch_model.bin" not in server.downloads()


def test_tokenizer_of_a_repository_is_downloaded_alone(server: Hub) -> None:
    path = hub.tokenizer_directory(hub.parse("hf:some/bert"))
    assert (path / "tokenizer.json").read_bytes() == b"tokens"
    assert server.downloads() == {"tokenizer.json"}


def test_tokenizer_without_its_json_comes_with_what_one_is_made_of(server: Hub) -> None:
    old = {name: content for name, content in MODEL.items() if name != "tokenizer.json"}
    server.repositories["models/some/old"] = Repository(commits={FIRST: old})
    path = hub.tokenizer_directory(hub.parse("hf:some/old"))
    assert (path / "vocab.txt").read_bytes() == b"[PAD]"
    assert server.downloads() == {"vocab.txt", "config.json"}
    server.repositories["models/some/none"] = Repository(commits={FIRST: {"config.json": b"{}"}})
    with pytest.raises(InputError, match=r"hf:some/none@main: has no tokenizer.json, expected one"):
        hub.tokenizer_directory(hub.parse("hf:some/none"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:some/none", r"hf:some/none@main: no such model on the Hub, or a private one"),
        ("hf:some/bert@none", r"hf:some/bert@none: the repository has no revision 'none'"),
        (f"hf:some/bert@{SECOND}", r"the repository has no revision 'bbb"),
        ("hf:some/gated", r"hf:some/gated@main: access is not granted, expected a token"),
        ("hf://some/bert/none.json", r"none.json: the repository has no such file"),
    ],
)
def test_what_the_hub_does_not_give_is_one_line(server: Hub, name: str, message: str) -> None:
    server.repositories["models/some/gated"] = Repository(commits={FIRST: MODEL}, gated=True)
    parsed = hub.parse(name)
    read = hub.download_file if parsed.path else hub.model_directory
    with pytest.raises(InputError, match=message):
        read(parsed)


def test_token_opens_a_gated_repository(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.repositories["models/some/gated"] = Repository(commits={FIRST: MODEL}, gated=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (hub.model_directory(hub.parse("hf:some/gated")) / "model.safetensors").is_file()


def test_message_of_a_refused_token_does_not_repeat_it(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(InputError, match=r"no such model") as refusal:
        hub.model_directory(hub.parse("hf:some/none"))
    assert TOKEN not in str(refusal.value)


def test_server_that_fails_is_one_line_with_its_status(server: Hub) -> None:
    server.failing = 503
    with pytest.raises(InputError, match=r"answers with status 503"):
        hub.model_directory(hub.parse("hf:some/bert@other"))


def test_network_that_is_missing_is_one_line(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Hub("http://127.0.0.1:9")
    hub_server.use(nowhere, tmp_path, monkeypatch)
    with pytest.raises(InputError, match=r"127.0.0.1:9 cannot be reached.*HF_HUB_OFFLINE=1"):
        hub.model_directory(hub.parse("hf:some/bert"))


def test_commit_that_would_be_a_path_is_refused(server: Hub) -> None:
    server.repositories["models/some/bert"].branches["main"] = "../../x"
    server.repositories["models/some/bert"].commits["../../x"] = MODEL
    with pytest.raises(InputError, match=r"names no commit of it"):
        hub.model_directory(hub.parse("hf:some/bert"))


def test_file_name_with_dots_writes_nothing_outside_the_cache(server: Hub, tmp_path: Path) -> None:
    # Five characters between the hyphens: it is among the names that are asked for.
    name = "model-/../x-of-00001.safetensors"
    server.repositories["models/some/evil"] = Repository(commits={FIRST: {name: b"out", **MODEL}})
    with pytest.raises(InputError, match=r"hf:some/evil@main: huggingface_hub refuses it"):
        hub.model_directory(hub.parse("hf:some/evil"))
    assert not list(tmp_path.rglob("x-of-*"))


def test_offline_mode_reads_what_the_cache_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = hub_server.lay_out(tmp_path, "models--some--bert", MODEL)
    hub_server.use(Hub("http://127.0.0.1:9"), tmp_path, monkeypatch, offline=True)
    assert hub.model_directory(hub.parse("hf:some/bert")) == snapshot
    assert hub.tokenizer_directory(hub.parse("hf:some/bert")) == snapshot
    assert hub.at_commit(hub.parse("hf:some/bert")).revision == FIRST


@pytest.mark.parametrize("content", [b"root:x:0", b"../../snapshots", b"", b"\xff", b"A" * 40])
def test_cached_revision_that_holds_no_commit_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    hub_server.lay_out(tmp_path, "models--some--bert", MODEL)
    ref = tmp_path / "models--some--bert" / "refs" / "main"
    ref.write_bytes(content)
    hub_server.use(Hub("http://127.0.0.1:9"), tmp_path, monkeypatch, offline=True)
    with pytest.raises(InputError, match=r"refs/main holds no commit, expected 40 hex") as refusal:
        hub.model_directory(hub.parse("hf:some/bert"))
    assert "root:x:0" not in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["hf:some/bert@other", "hf:some/none", f"hf:some/bert@{SECOND}", "hf://some/bert/a.csv"]
)
def test_offline_miss_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    hub_server.lay_out(tmp_path, "models--some--bert", MODEL)
    hub_server.use(Hub("http://127.0.0.1:9"), tmp_path, monkeypatch, offline=True)
    parsed = hub.parse(name)
    read = hub.download_file if parsed.path else hub.model_directory
    with pytest.raises(InputError, match=r"is not in the cache of huggingface_hub and HF_HUB_OFF"):
        read(parsed)
