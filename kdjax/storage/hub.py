"""Repositories of the Hugging Face Hub: names of them, the commit a revision is, files on disk.

| name | of |
|---|---|
| `hf:OWNER/NAME[@REVISION]` | a model's repository |
| `hf://OWNER/NAME[@REVISION]/PATH` | a file in it |
| `hf://datasets/OWNER/NAME[@REVISION]/PATH` | a file of a data set |

Server, cache, token, time-outs and offline mode are those of huggingface_hub, by its own
environment variables. It is imported where it is used: other commands start sooner without it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from kdjax.errors import InputError
from kdjax.storage.secrets import without_user

REPOSITORY_PREFIX = "hf:"
"""Begins the name of a repository."""
FILE_PREFIX = "hf://"
"""Begins the name of a file, or of several by a glob."""
EXPECTED_REPOSITORY = "hf:OWNER/NAME or hf:OWNER/NAME@REVISION"
EXPECTED_FILE = "hf://datasets/OWNER/NAME@REVISION/PATH or hf://OWNER/NAME@REVISION/PATH"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""Files that hold a model's weights, or say which files do."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""A tokenizer, and what names its special tokens."""
SENTENCEPIECE = ("spiece.model", "sentencepiece.bpe.model", "spm.model", "tokenizer.model")
"""Names of models of the sentencepiece library."""
VOCABULARY_FILES = ("vocab.txt", "vocab.json", "merges.txt", *SENTENCEPIECE)
"""Files that hold a tokenizer's entries where there is no tokenizer.json."""
MODEL_FILES = (
    *WEIGHTS,
    "model-?????-of-?????.safetensors",
    "config.json",
    "teacher.json",
    *TOKENIZER_FILES,
    *VOCABULARY_FILES,
)
"""What is downloaded of a model: no pickle, and nothing that could hold code."""

_REPOSITORY_ID = r"(?P<repo_id>[\w.-]+/[\w.-]+)"
# Branches of the Hub's own have slashes; in other revisions a slash is written %2F.
_REVISION = r"(?:@(?P<revision>refs/(?:convert|pr)/[^/@\s]+|[^/@\s]+))?"
_REPOSITORY_NAME = re.compile(f"hf:{_REPOSITORY_ID}{_REVISION}", re.ASCII)
_FILE_NAME = re.compile(
    f"hf://(?P<datasets>datasets/)?{_REPOSITORY_ID}{_REVISION}/(?P<path>.+)", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PLAIN_REPOSITORY = re.compile(r"\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?", re.ASCII)
# What git refuses in names of branches and tags: they are paths of its files, and of the cache's.
_UNSAFE_REVISION = re.compile(r"[\x00-\x20\x7f\ufffd~^:?*\[\\]|\.\.|//|^/|/$|(?:^|/)\.")
LONGEST_REPOSITORY = 96
"""Most characters of OWNER/NAME on the Hub."""
LONGEST_PART = 255
"""Most bytes of a revision, and of a file's name, as on common file systems."""
LONGEST_FILE = 1024
"""Most bytes of a file's path in a repository."""
_KINDS = ("datasets", "models", "spaces", "buckets")
"""First parts of paths on the Hub that are no owners."""


@dataclass(frozen=True)
class HubName:
    """The name of a repository, or of files in one.

    Attributes:
        kind: what the repository holds, in the Hub's word.
        repo_id: OWNER/NAME.
        revision: branch, tag or commit.
        path: path or glob of files in the repository; empty: the repository.
    """

    kind: Literal["model", "dataset"]
    repo_id: str
    revision: str = "main"
    path: str = ""

    def __str__(self) -> str:
        # Slashes stay in the Hub's own branches alone, as they are read.
        safe = "/" if self.revision.startswith(("refs/convert/", "refs/pr/")) else ""
        name = f"{self.repo_id}@{quote(self.revision, safe=safe)}"
        if self.kind == "dataset":
            name = f"datasets/{name}"
        elif not self.path:
            return f"{REPOSITORY_PREFIX}{name}"
        return f"{FILE_PREFIX}{name}/{self.path}".rstrip("/")

    @property
    def has_commit(self) -> bool:
        """Return whether the revision is a commit, which never moves."""
        return _COMMIT.fullmatch(self.revision) is not None


def is_hub_name(text: str) -> bool:
    """Return whether a setting names something on the Hub, well-formed or not."""
    return text.startswith(REPOSITORY_PREFIX)


def is_repository(text: str) -> bool:
    """Return whether a setting names a repository of the Hub, not a file, well-formed or not."""
    return text.startswith(REPOSITORY_PREFIX) and not text.startswith(FILE_PREFIX)


def parse(text: str, name: str = "") -> HubName:
    """Read the name of a repository or of files in one; nothing is asked of the Hub.

    Args:
        text: the name as the user wrote it.
        name: dotted name of the setting, for messages; empty: the message begins with the text.

    Raises:
        InputError: it is no such name, its path has an empty part, `.` or `..`, its revision could
            be none, or a part is too long.
    """
    # Which kind of name it is, by its beginning
    shown = without_user(text)
    where = f"{name} is {shown!r:.200}" if name else f"{shown:.200}"
    if is_repository(text):
        match = _REPOSITORY_NAME.fullmatch(text)
        expected = EXPECTED_REPOSITORY
    else:
        match = _FILE_NAME.fullmatch(text)
        expected = EXPECTED_FILE
    if match is None or match["repo_id"].split("/")[0] in _KINDS or "\0" in text:
        raise InputError(f"{where}, expected {expected}")

    # Each part as the Hub and the file system have it
    groups = match.groupdict()
    path = groups.get("path") or ""
    if path and any(part in ("", ".", "..") for part in path.split("/")):
        raise InputError(f"{where}, expected {expected} with a plain path, without '..'")
    repo_id = groups["repo_id"]
    is_plain = _PLAIN_REPOSITORY.fullmatch(repo_id) and ".." not in repo_id and "--" not in repo_id
    if not is_plain or len(repo_id) > LONGEST_REPOSITORY:
        raise InputError(
            f"{where}, expected {expected} with an OWNER/NAME as the Hub has them, of at most "
            f"{LONGEST_REPOSITORY} characters"
        )
    # Checked as it will be used: what is a slash or a NUL may have been written %2F or %00.
    revision = unquote(groups["revision"] or "main")
    if _UNSAFE_REVISION.search(revision) or len(revision.encode()) > LONGEST_PART:
        raise InputError(
            f"{where}, expected {expected} with a branch, a tag or a commit, of at most "
            f"{LONGEST_PART} bytes and without '..'"
        )
    sizes = [len(os.fsencode(part)) for part in path.split("/")]
    if max(sizes) > LONGEST_PART or len(os.fsencode(path)) > LONGEST_FILE:
        raise InputError(
            f"{where}, expected {expected} with a path of at most {LONGEST_FILE:,} bytes, and "
            f"{LONGEST_PART} between two slashes"
        )
    kind: Literal["model", "dataset"] = "dataset" if groups.get("datasets") else "model"
    return HubName(kind, repo_id, revision, path)


def at_commit(name: HubName) -> HubName:
    """Return a name with the commit that its revision is now, asked once per process.

    In offline mode it is the commit that the revision was when the cache was last filled.

    Raises:
        InputError: there is no such repository or revision, access is not granted, the Hub cannot
            be reached, or in offline mode the cache does not have it.
    """
    from huggingface_hub import constants  # noqa: PLC0415 - other commands start sooner

    if name.has_commit:
        return name
    # The server and the cache belong to what is asked.
    place = f"{constants.ENDPOINT} {constants.HF_HUB_CACHE} {constants.is_offline_mode()}"
    return replace(name, revision=_commit(replace(name, path=""), place))


@functools.cache
def _commit(name: HubName, _place: str) -> str:
    """Return the commit of a repository's revision."""
    from huggingface_hub import HfApi, constants  # noqa: PLC0415 - other commands start sooner

    if constants.is_offline_mode():
        ref = repository_cache(name) / "refs" / name.revision
        if not ref.is_file():
            raise not_cached_error(name)
        commit = ref.read_text(encoding="utf-8", errors="replace").strip()
        # It becomes a folder's name, and what stands there instead is not shown.
        if not _COMMIT.fullmatch(commit):
            raise InputError(
                f"{name}: {ref} holds no commit, expected 40 hexadecimal digits, as `hf download` "
                "writes them"
            )
        return commit
    with hub_errors(name):
        info = HfApi().repo_info(
            name.repo_id,
            revision=name.revision,
            repo_type=name.kind,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        commit = info.sha or ""
    # It becomes a folder's name.
    if not _COMMIT.fullmatch(commit):
        raise InputError(f"{name}: the Hub names no commit of it, expected 40 hexadecimal digits")
    return commit


def model_directory(name: HubName) -> Path:
    """Download a model to the cache, or find it there: `MODEL_FILES` and nothing else.

    Raises:
        InputError: the repository cannot be read (`at_commit`), or has no weights in safetensors
            files.
    """
    directory = _snapshot(name, MODEL_FILES)
    if not any((directory / file).is_file() for file in WEIGHTS):
        raise InputError(
            f"{name}: has no model.safetensors, expected weights in safetensors files: pickles, "
            "such as pytorch_model.bin, are never downloaded"
        )
    return directory


def tokenizer_directory(name: HubName) -> Path:
    """Download a repository's tokenizer to the cache, or find it there.

    That is its tokenizer.json with what names its special tokens, or, where it has none, the files
    that one can be made of.

    Raises:
        InputError: the repository cannot be read (`at_commit`), or there is none.
    """
    directory = _snapshot(name, TOKENIZER_FILES)
    if (directory / "tokenizer.json").is_file():
        return directory
    directory = _snapshot(name, (*TOKENIZER_FILES, *VOCABULARY_FILES, "config.json"))
    if not any((directory / file).is_file() for file in VOCABULARY_FILES):
        raise InputError(
            f"{name}: has no tokenizer.json, expected one, or one of {', '.join(VOCABULARY_FILES)}"
        )
    return directory


def download_file(name: HubName) -> Path:
    """Download one file to the cache, or find it there.

    Raises:
        InputError: the repository cannot be read (`at_commit`), or there is no such file.
    """
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - other commands start sooner

    pinned = at_commit(name)
    with hub_errors(name):
        path = hf_hub_download(
            pinned.repo_id, pinned.path, repo_type=pinned.kind, revision=pinned.revision
        )
    return Path(path)


def cached_file(name: HubName) -> Path | None:
    """Return the cache's path of a file; None where it has none. Nothing is asked of the Hub."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - others start sooner

    path = try_to_load_from_cache(
        name.repo_id, name.path, revision=name.revision, repo_type=name.kind
    )
    # The cache also knows which files a repository lacks.
    if not isinstance(path, str):
        return None
    return Path(path)


def cached_directory(name: HubName) -> Path | None:
    """Return the cache's path of a model; None where it has none. Nothing is asked of the Hub."""
    config = cached_file(replace(name, path="config.json"))
    return config and config.parent


def cached_files(name: HubName) -> list[HubName]:
    """List the cached files of a commit that a name's path or glob matches, sorted."""
    snapshot = repository_cache(name) / "snapshots" / name.revision
    paths = [snapshot / name.path]
    if not paths[0].is_file():
        paths = sorted(path for path in snapshot.glob(name.path) if path.is_file())
    return [replace(name, path=path.relative_to(snapshot).as_posix()) for path in paths]


def repository_cache(name: HubName) -> Path:
    """Return the folder of a repository in the library's cache, whether it is there or not."""
    from huggingface_hub import constants  # noqa: PLC0415 - other commands start sooner

    folder = f"{name.kind}s--{name.repo_id.replace('/', '--')}"
    return Path(constants.HF_HUB_CACHE) / folder


def not_cached_error(name: HubName) -> InputError:
    """Return the error of something that offline mode does not find."""
    return InputError(
        f"{name}: is not in the cache of huggingface_hub and HF_HUB_OFFLINE is set, expected it "
        "there: run once without HF_HUB_OFFLINE, or `hf download`"
    )


def _snapshot(name: HubName, files: Sequence[str]) -> Path:
    """Download some files of a repository to the cache, or find them there.

    Args:
        name: the repository.
        files: names and globs of what is downloaded.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - other commands start sooner

    pinned = at_commit(name)
    with hub_errors(name):
        directory = snapshot_download(
            pinned.repo_id,
            repo_type=pinned.kind,
            revision=pinned.revision,
            allow_patterns=list(files),
        )
    return Path(directory)


@contextlib.contextmanager
def hub_errors(name: HubName) -> Iterator[None]:
    """Turn what the library raises in the block into one line.

    The library's own messages are left out: they have several lines, and signed addresses.

    Raises:
        InputError: anything of the network, the Hub, the cache or the disk.
    """
    from huggingface_hub import constants, errors  # noqa: PLC0415 - other commands start sooner

    try:
        yield
    except InputError:
        raise
    except errors.GatedRepoError:
        raise InputError(
            f"{name}: access is not granted, expected a token (HF_TOKEN or `hf auth login`) of a "
            "user who has accepted the repository's terms"
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(
            f"{name}: the repository has no revision {name.revision!r}, expected a branch, a tag "
            "or a commit"
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputError(
            f"{name}: no such {name.kind} on the Hub, or a private one without a token that may "
            f"read it (HF_TOKEN), expected OWNER/NAME of a {name.kind}"
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise InputError(f"{name}: the repository has no such file, expected one of it") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        if constants.is_offline_mode():
            raise not_cached_error(name) from None
        raise _unreachable(name) from None
    except errors.HfHubHTTPError as e:
        raise InputError(
            f"{name}: {constants.ENDPOINT} answers with status {e.response.status_code}, expected "
            "the repository: try again later"
        ) from None
    except Exception as e:  # the HTTP library's, which may change, and the system's
        if isinstance(e, OSError) and e.strerror:
            raise InputError(
                f"{name}: cannot be read ({e.strerror}), expected room and a cache of "
                "huggingface_hub that can be written to (HF_HOME)"
            ) from None
        if isinstance(e, ValueError):
            raise InputError(
                f"{name}: huggingface_hub refuses it ({type(e).__name__}), expected a repository "
                "with plain names"
            ) from None
        raise _unreachable(name, type(e).__name__) from None


def _unreachable(name: HubName, reason: str = "no connection") -> InputError:
    from huggingface_hub import constants  # noqa: PLC0415 - other commands start sooner

    return InputError(
        f"{name}: {constants.ENDPOINT} cannot be reached ({reason}), expected a network, or "
        "HF_HUB_OFFLINE=1 and the files in the cache"
    )
