"""A server on this machine that speaks as much of the Hugging Face Hub's protocol as reading and
committing need.

It also serves plain files, as any web server does.
"""

from __future__ import annotations

import base64
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
PUSHES = re.compile(
    r"/api/validate-yaml|/uploads/\w+|/api/repos/create|/.+\.git/info/lfs/objects/batch"
    r"|/api/models/[^/]+/[^/]+/(branch|preupload|commit)/[^/]+"
)
"""Paths of requests that change something."""


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
    `refused_after` the number of downloads after which all are. Of what was pushed, `uploads` are
    large files by their SHA-256, `messages` those of commits, `private` the repositories that were
    made so; `refuses_uploads` is whether large files are refused.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    failing: int = 0
    cut_after: int | None = None
    refused_after: int | None = None
    requests: list[str] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    private: list[str] = field(default_factory=list)
    refuses_uploads: bool = False

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
    body: bytes = b""

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.body = self.read_body()
        self.answer()

    def do_PUT(self) -> None:
        self.body = self.read_body()
        self.answer()

    def read_body(self) -> bytes:
        """Read what was sent, in one piece or in chunks."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.failing:
            self.send(self.hub.failing, b"")
        elif PUSHES.fullmatch(path):
            self.push(path)
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

    def push(self, path: str) -> None:
        """Answer a request that changes something, of a user with the token."""
        if path == "/api/validate-yaml":
            self.json({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/uploads/(\w+)", path):
            # The address itself is the permission, as with the Hub's stores.
            self.hub.uploads[match[1]] = self.body
            self.send(503 if self.hub.refuses_uploads else 200, b"")
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send(401, b"")
        elif path == "/api/repos/create":
            self.create(json.loads(self.body))
        elif match := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            self.batch(json.loads(self.body))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(\w+)/([^/]+)", path):
            repository = self.hub.repositories[f"models/{match[1]}"]
            verb = match[2]
            if verb == "branch":
                self.branch(repository, match[3])
            elif verb == "preupload":
                self.preupload(json.loads(self.body))
            elif verb == "commit":
                self.take_commit(match[1], match[3])
            else:
                self.send(404, b"")
        else:
            self.send(404, b"")

    def create(self, wanted: dict[str, Any]) -> None:
        """Make a repository with the Hub's first commit."""
        name = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.hub.url}/{name}"}
        if f"models/{name}" in self.hub.repositories:
            self.send(409, json.dumps(url).encode(), {"Content-Type": "application/json"})
            return
        self.hub.repositories[f"models/{name}"] = Repository(
            commits={FIRST: {".gitattributes": b"*.safetensors filter=lfs"}}
        )
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.hub.private.append(name)
        self.json(url)

    def branch(self, repository: Repository, name: str) -> None:
        """Make a branch where `main` is."""
        if name in repository.branches:
            self.send(409, b"{}", {"Content-Type": "application/json"})
            return
        repository.branches[name] = repository.branches["main"]
        self.json({})

    def preupload(self, wanted: dict[str, Any]) -> None:
        """Say which files are sent beforehand: large ones."""
        files = []
        for file in wanted["files"]:
            mode = "lfs" if file["path"].endswith(LARGE) else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
        self.json({"files": files})

    def batch(self, wanted: dict[str, Any]) -> None:
        """Say where large files are sent to."""
        objects = []
        for large in wanted["objects"]:
            href = f"{self.hub.url}/uploads/{large['oid']}"
            objects.append({**large, "actions": {"upload": {"href": href}}})
        self.json({"transfer": "basic", "objects": objects})

    def take_commit(self, name: str, branch: str) -> None:
        """Commit files to a branch, all at once."""
        repository = self.hub.repositories[f"models/{name}"]
        content = dict(repository.commits[repository.branches[branch]])
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif operation["key"] == "file":
                content[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                content[value["path"]] = self.hub.uploads[value["oid"]]
            else:
                del content[value["path"]]
        oid = hashlib.sha1(self.body).hexdigest()
        repository.commits[oid] = content
        repository.branches[branch] = oid
        self.json({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

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
    # Large files go by git's protocol, which this server speaks.
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
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
