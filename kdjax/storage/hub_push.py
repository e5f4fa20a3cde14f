"""Directories pushed to the Hugging Face Hub: one commit each, or nothing.

Server and token are those of huggingface_hub, by its own environment variables and its login.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

from kdjax.errors import InputError
from kdjax.storage import hub
from kdjax.storage.hub import HubName

_TOKEN = "a token that may write there (HF_TOKEN or `hf auth login`)"


def target(repository: str, revision: str = "") -> HubName:
    """Return the branch of a repository to push to; nothing is asked of the Hub.

    Args:
        repository: OWNER/NAME.
        revision: name of the branch; empty: `main`.

    Raises:
        InputError: they could be none, there is no token, or HF_HUB_OFFLINE is set.
    """
    from huggingface_hub import constants, get_token  # noqa: PLC0415 - other commands start sooner

    if "@" in repository or repository.startswith(hub.REPOSITORY_PREFIX):
        raise InputError(f"--push is {repository!r:.200}, expected OWNER/NAME")
    name = hub.parse(
        f"{hub.REPOSITORY_PREFIX}{repository}@{quote(revision or 'main', safe='')}", "--push"
    )
    if constants.is_offline_mode():
        raise InputError(f"{name}: HF_HUB_OFFLINE is set, expected a network to push over")
    with _one_line(name):
        token = get_token()
    if not token:
        raise InputError(f"{name}: there is no token, expected {_TOKEN}")
    return name


def push(
    directory: Path,
    name: HubName,
    message: str,
    *,
    private: bool = False,
    replaces: Collection[str] = (),
) -> str:
    """Push all files of a directory to a branch of a repository, in one commit.

    Repository and branch are made where they are not there. Files of the repository that the
    directory does not have stay, but for those named.

    Args:
        directory: directory whose files are pushed, those of its folders too; hidden ones stay.
        name: branch of the repository.
        message: the commit's message.
        private: whether a repository that is made is private.
        replaces: files of the repository that go where the directory does not have them.

    Returns:
        A line for people: the address, and the commit.

    Raises:
        InputError: the Hub refuses, or cannot be reached; the branch is then as it was.
    """
    from huggingface_hub import (  # noqa: PLC0415 - other commands start sooner
        CommitOperationAdd,
        CommitOperationDelete,
        HfApi,
        constants,
    )

    files = {}
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        is_hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not is_hidden:
            files[relative.as_posix()] = path
    with _one_line(name):
        api = HfApi()
        api.create_repo(name.repo_id, private=private or None, exist_ok=True)
        if name.revision != constants.DEFAULT_REVISION:
            api.create_branch(name.repo_id, branch=name.revision, exist_ok=True)
        stored = api.list_repo_files(name.repo_id, revision=name.revision)
        operations: list[CommitOperationAdd | CommitOperationDelete] = []
        for stored_path, path in files.items():
            operations.append(CommitOperationAdd(stored_path, str(path)))
        for stale in sorted(set(stored) & set(replaces) - files.keys()):
            operations.append(CommitOperationDelete(stale))
        # `upload_folder` may make several commits of a directory.
        commit = api.create_commit(
            name.repo_id, operations, commit_message=message, revision=name.revision
        )
    address = f"{constants.ENDPOINT}/{name.repo_id}"
    return f"{address}/tree/{quote(name.revision, safe='')}: commit {commit.oid}"


@contextlib.contextmanager
def _one_line(name: HubName) -> Iterator[None]:
    """Turn what the library raises in the block into one line.

    Raises:
        InputError: anything of the network, the Hub or a file.
    """
    from huggingface_hub import constants, errors  # noqa: PLC0415 - other commands start sooner

    try:
        yield
    except Exception as e:  # the HTTP library's, which may change, and the system's
        # Uploads run in threads, whose errors come wrapped.
        cause: BaseException | None = e
        while cause is not None and not isinstance(cause, errors.HfHubHTTPError):
            cause = cause.__cause__
        status = cause.response.status_code if cause is not None else None
        if status in (401, 403):
            raise InputError(
                f"{name}: {constants.ENDPOINT} refuses (status {status}), expected {_TOKEN}"
            ) from None
        if status is not None:
            raise InputError(
                f"{name}: {constants.ENDPOINT} answers with status {status}, expected it to take "
                "the commit; nothing of it is there"
            ) from None
        if isinstance(e, OSError) and e.filename:
            raise InputError(f"{e.filename}: cannot be read ({e.strerror})") from None
        if isinstance(e, ValueError):
            raise InputError(
                f"{name}: huggingface_hub stops ({type(e).__name__}), expected a commit that it "
                "sends and whose answer it can read"
            ) from None
        raise InputError(
            f"{name}: {constants.ENDPOINT} cannot be reached ({type(e).__name__}), expected a "
            "network; nothing of the commit is there"
        ) from None
