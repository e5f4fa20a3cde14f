"""Directories pushed to the Hugging Face Hub: one commit, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdjax.errors import InputError
from kdjax.storage import hub_push
from tests.support import hub_server
from tests.support.hub_server import TOKEN, Hub, Repository

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "README.md": b"---\nlicense: unknown\n---\n# A card\n",
    "1_Pooling/config.json": b"{}",
}
REPOSITORY = "models/me/student"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server.serving() as server:
        hub_server.use(server, tmp_path / "cache", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "out" / ".lock").write_bytes(b"held")
    return tmp_path / "out"


def content_of(server: Hub, branch: str = "main") -> dict[str, bytes]:
    repository = server.repositories[REPOSITORY]
    return repository.commits[repository.branches[branch]]


def test_pushed_directory_is_one_commit_of_a_new_repository(server: Hub, directory: Path) -> None:
    line = hub_push.push(directory, hub_push.target("me/student"), "scratch, seed 0")
    pushed = content_of(server)
    assert {name: pushed[name] for name in FILES} == FILES
    assert pushed.keys() - FILES.keys() == {".gitattributes"}
    assert server.messages == ["scratch, seed 0"]
    # Weights went beforehand, by their digest.
    assert list(server.uploads.values()) == [b"weights"]
    assert line.startswith(f"{server.url}/me/student/tree/main: commit ")


def test_branch_is_made_and_main_stays(server: Hub, directory: Path) -> None:
    name = hub_push.target("me/student", "chck_1M")
    hub_push.push(directory, name, "after 1,000,000 words", private=True)
    assert content_of(server, "chck_1M").keys() >= FILES.keys()
    assert content_of(server).keys() == {".gitattributes"}
    assert server.private == ["me/student"]


def test_files_of_an_earlier_export_go_and_others_stay(server: Hub, directory: Path) -> None:
    server.repositories[REPOSITORY] = Repository()
    content_of(server).update({"modules.json": b"[]", "scores.csv": b"mine", "config.json": b"old"})
    name = hub_push.target("me/student")
    hub_push.push(directory, name, "again", replaces=("modules.json", "config.json"))
    pushed = content_of(server)
    assert pushed["config.json"] == b"{}"
    assert pushed["scores.csv"] == b"mine"
    assert "modules.json" not in pushed


def refuse_all(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "F" * 34)


def fail(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.failing = 500


def refuse_uploads(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    # The library asks again for minutes where a store is busy, not where it says no.
    from huggingface_hub import lfs

    monkeypatch.setattr(lfs, "http_backoff", refused_request)
    server.refuses_uploads = True


def refused_request(method: str, url: str, **options: object) -> object:
    from huggingface_hub.utils import get_session

    if method == "PUT":
        return get_session().put(url, content=b"cut")
    return get_session().post(url, **options)


def go_away(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (refuse_all, "refuses (status 401), expected a token that may write there (HF_TOKEN or"),
        (fail, "answers with status 500, expected it to take the commit"),
        (refuse_uploads, "answers with status 503, expected it to take the commit"),
        (go_away, "http://127.0.0.1:9 cannot be reached (ConnectError), expected a network"),
    ],
)
def test_push_that_fails_is_one_line_and_leaves_the_branch_as_it_was(
    server: Hub,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Hub, pytest.MonkeyPatch], None],
    line: str,
) -> None:
    server.repositories[REPOSITORY] = Repository()
    name = hub_push.target("me/student")
    spoil(server, monkeypatch)
    with pytest.raises(InputError) as refused:
        hub_push.push(directory, name, "scratch")
    assert line in str(refused.value)
    assert str(refused.value).startswith("hf:me/student@main: ")
    assert "\n" not in str(refused.value)
    assert TOKEN not in str(refused.value)
    assert content_of(server) == {}
    assert server.messages == []


@pytest.mark.parametrize(
    ("repository", "revision", "line"),
    [
        ("student", "", "--push is 'hf:student@main', expected hf:OWNER/NAME"),
        ("hf:me/student", "", "--push is 'hf:me/student', expected OWNER/NAME"),
        ("me/student@v1", "", "--push is 'me/student@v1', expected OWNER/NAME"),
        ("me/student", "a..b", "with a branch, a tag or a commit"),
    ],
)
@pytest.mark.usefixtures("server")
def test_impossible_target_is_refused(repository: str, revision: str, line: str) -> None:
    with pytest.raises(InputError) as refused:
        hub_push.target(repository, revision)
    assert line in str(refused.value)


def test_missing_token_is_one_line_before_anything_is_asked(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError) as refused:
        hub_push.target("me/student")
    assert "there is no token, expected a token that may write there" in str(refused.value)
    assert server.requests == []


def test_offline_mode_is_refused(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as refused:
        hub_push.target("me/student")
    assert "HF_HUB_OFFLINE is set, expected a network" in str(refused.value)
