"""A server on this machine that speaks as much of the Hugging Face Hub's protocol as reading needs.

It also serves plain files, as any web server does.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

FIRST = "a" * 40
SECOND = "b" * 40
"""Commits."""
TOKEN = "hf_" + "T" * 34
LARGE = (".parquet", ".safetensors")
"""Suffixes of files that the Hub stores by their SHA-256."""


@dataclass
class Repository:
    """A repository: branch -> commit, commit -> path -> content."""

    branches: dict[str, str] = field(default_factory=lambda: {"main": FIRST})
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {FIRST: {}})
    gated: bool = False


@dataclass
class Hub:
    """The server's content, and what was asked of it.

    `repositories` are by `models/OWNER/NAME` or `datasets/OWNER/NAME`, `files` by path. `failing`
    is the status of every answer, `cut_after` the byte from which ranges are refused,
    `refused_after` the number of downloads after which all are.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    failing: int = 0
    cut_after: int | None = None
    refused_after: int | None = None
    requests: list[str] = field(default_factory=list)

    def refuses_download(self) -> bool:
        """Count a download and return whether it is refused."""
        if self.refused_after is None:
            return False
        self.refused_after -= 1
        return self.refused_after < 0

    def downloads(self) -> set[str]:
        """Return the names of files whose content was asked for."""
        asked = (request for request in self.requests if request.startswith("GET"))
        return {path.rpartition("/")[2] for path in asked if "/resolve/" in path}


def entry(path: str, content: bytes) -> dict[str, Any]:
    """Return a file as the Hub lists it."""
    facts: dict[str, Any] = {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }
    if path.endswith(LARGE):
        sha256 = hashlib.sha256(content).hexdigest()
        facts["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return facts


def tree(content: dict[str, bytes], under: str, *, recursive: bool) -> list[dict[str, Any]]:
    """List the files and folders below a folder as the Hub does."""
    prefix = f"{under}/" if under else ""
    files = {path: data for path, data in content.items() if path.startswith(prefix)}
    listed = [entry(path, data) for path, data in files.items()]
    folders = {str(folder) for path in files for folder in PurePosixPath(path).parents}
    listed += [
        {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
        for folder in sorted(folders)
        if folder.startswith(prefix) and folder != "."
    ]
    if recursive:
        return listed
    return [facts for facts in listed if "/" not in facts["path"].removeprefix(prefix)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.failing:
            self.send(self.hub.failing, b"")
        elif match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(\w+)/(.+)", path):
            self.api(*match.groups())
        elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind, name, revision, file = match.groups()
            self.resolve(kind or "models/", name, revision, file)
        elif self.command == "GET" and self.hub.refuses_download():
            self.send(503, b"")
        elif path in self.hub.files:
            self.content(self.hub.files[path], {})
        else:
            self.send(404, b"")

    def api(self, kind: str, name: str, verb: str, rest: str) -> None:
        revision, _, under = rest.partition("/")
        files = self.commit(f"{kind}/{name}", revision)
        if files is None:
            return
        commit, content = files
        if verb == "revision":
            siblings = [{"rfilename": path} for path in content]
            self.json({"id": name, "sha": commit, "siblings": siblings, "tags": []})
            return
        listed = tree(content, under, recursive="recursive=true" in self.path.lower())
        if under and not listed:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        self.json(listed)

    def resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        files = self.commit(f"{kind}{name}", revision)
        if files is None:
            return
        commit, content = files
        if file not in content:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        facts = entry(file, content[file])
        etag = facts.get("lfs", facts)["oid"]
        self.content(content[file], {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

    def commit(self, place: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return commit and files of a revision; None after an error has been sent."""
        repository = self.hub.repositories.get(place)
        if repository is None:
            self.send(401, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send(403, b"", {"X-Error-Code": "GatedRepo"})
            return None
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return None
        return commit, repository.commits[commit]

    def json(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def content(self, content: bytes, headers: dict[str, str]) -> None:
        """Send a file, or the range of it that is asked for."""
        etag = hashlib.md5(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes", **headers}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            self.send(200, content, headers)
            return
        start = int(match[1])
        end = min(int(match[2] or len(content)), len(content) - 1)
        if self.hub.cut_after is not None and start >= self.hub.cut_after:
            self.send(503, b"")
            return
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self.send(206, content[start : end + 1], headers)

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve an empty Hub in the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use(hub: Hub, cache: Path, patch: pytest.MonkeyPatch, *, offline: bool = False) -> None:
    """Have huggingface_hub ask this server and keep its cache in a directory."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    patch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", offline)
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    patch.delenv("HF_TOKEN", raising=False)


def lay_out(cache: Path, folder: str, files: dict[str, bytes], commit: str = FIRST) -> Path:
    """Write a snapshot, and the branch `main` that stands for it, as the library's cache has
    them."""
    snapshot = cache / folder / "snapshots" / commit
    for name, content in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(content)
    (cache / folder / "refs").mkdir(exist_ok=True)
    (cache / folder / "refs" / "main").write_text(commit)
    return snapshot
