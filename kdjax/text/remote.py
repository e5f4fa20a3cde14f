"""Files of text at URLs, read by fsspec as they come: `hf://`, `https://`, `s3://`, `gs://` and
what else has a backend. Nothing is kept on disk.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import inspect
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from kdjax.errors import InputError, Unfinished
from kdjax.storage import gcs, hub
from kdjax.storage.urls import check_url

CONNECT_SECONDS = 10
"""How long a web server may take to answer."""
READ_SECONDS = 60
"""How long a web server may send nothing."""
_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Protocols -> the extra of kdjax that has their backend."""
_ABSENT = (404, 410)
"""Statuses of a web server that has no such file."""


@dataclass(frozen=True)
class RemoteFile:
    """A file at a URL, with as much of a path as readers of text use.

    Attributes:
        url: its address; of a file of the Hub, with the commit.
        identity: what tells this content from any other: the SHA-256 that the Hub has of it, or
            `etag:` and a server's; empty: neither is known.
    """

    url: str
    identity: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Return the last part of its path."""
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def suffix(self) -> str:
        """Return the last suffix of its name."""
        return PurePosixPath(self.name).suffix

    @property
    def suffixes(self) -> list[str]:
        """Return the suffixes of its name."""
        return PurePosixPath(self.name).suffixes

    def open(self, mode: str = "rb", buffering: int = io.DEFAULT_BUFFER_SIZE) -> BinaryIO:
        """Open its bytes; a file of the Hub that is in the cache of huggingface_hub is read there.

        Args:
            mode: `rb`, the only one.
            buffering: bytes read at a time.

        Raises:
            Unfinished: the server cannot be reached or refuses it; also while it is read.
            InputError: the file is another one by now.
        """
        if mode != "rb":
            raise ValueError(f"mode is {mode!r}, expected 'rb'")
        if self.url.startswith(hub.FILE_PREFIX):
            name = hub.parse(self.url)
            cached = hub.cached_file(name)
            if cached is not None:
                return cached.open("rb", buffering=buffering)
        files = _file_system(self.url)
        with _interruptions(self.url):
            # The Hub's are at a commit, which has one content for ever.
            identity = self.identity
            if identity.startswith("etag:"):
                files.invalidate_cache()
                identity = _identity(files.info(self.url))
            file = files.open(self.url, "rb")
        if identity != self.identity:
            raise InputError(
                f"{self.url}: has changed since it was found, expected the same file: run the "
                "command again"
            )
        return io.BufferedReader(_Reader(file, self.url), buffering)

    def digest(self) -> str:
        """Return its identity; where that is not known, the SHA-256 of its bytes, in hex.

        Raises:
            InputError: the file is another one by now.
        """
        if self.identity:
            return self.identity
        with self.open() as file:
            content: Any = file
            return hashlib.file_digest(content, "sha256").hexdigest()


def find(pattern: str) -> list[RemoteFile]:
    """List the files that a URL or a glob of URLs names, sorted; none where nothing matches.

    Args:
        pattern: the URL or glob, as the user wrote it.

    Raises:
        InputError: the server cannot be reached or refuses it; its backend is not installed.
    """
    check_url(pattern, "the URL")
    if pattern.startswith(hub.FILE_PREFIX):
        return _find_on_hub(hub.parse(pattern))
    return _list(pattern, glob.has_magic(pattern), _read_errors(pattern), _identity)


def _find_on_hub(name: hub.HubName) -> list[RemoteFile]:
    """List the files of a repository of the Hub, at the commit that its revision is now."""
    from huggingface_hub import constants  # noqa: PLC0415 - a worker starts sooner

    pinned = hub.at_commit(name)
    if constants.is_offline_mode():
        cached = [RemoteFile(str(path), "") for path in hub.cached_files(pinned)]
        if not cached:
            raise hub.not_cached_error(name)
        return cached
    is_glob = glob.has_magic(pinned.path)
    return _list(str(pinned), is_glob, hub.hub_errors(name), _hub_identity)


def _list(
    url: str,
    is_glob: bool,
    errors: contextlib.AbstractContextManager[None],
    identity_of: Callable[[dict[str, Any]], str],
) -> list[RemoteFile]:
    """List the files of a server, sorted; none where nothing matches.

    Args:
        url: a URL, or a glob of URLs.
        is_glob: whether it is a glob.
        errors: turns what goes wrong in its block into one line.
        identity_of: takes a file's identity from what the server says of it.
    """
    files = _file_system(url)
    with errors:
        try:
            listing = files.glob(url, detail=True) if is_glob else {url: files.info(url)}
        except FileNotFoundError as e:
            # What goes wrong at a server comes as a file that is not there, too.
            status = getattr(e.__cause__, "status", None)
            if e.__cause__ is not None and status not in _ABSENT:
                raise e.__cause__ from None
            return []
    return [
        RemoteFile(files.unstrip_protocol(name), identity_of(info))
        for name, info in sorted(listing.items())
        if info["type"] == "file"
    ]


def _hub_identity(info: dict[str, Any]) -> str:
    """Return the SHA-256 that the Hub has of a large file; of a small one it has none."""
    large = info.get("lfs")
    if not large:
        return ""
    return str(large.sha256)


def _identity(info: dict[str, Any]) -> str:
    """Return a server's strong ETag of a file; empty where it has none.

    A weak one may be the same for other bytes.
    """
    etag = info.get("ETag") or info.get("etag") or ""
    if not etag or etag.startswith("W/"):
        return ""
    value = etag.strip('"')
    return f"etag:{value}:{info.get('size')}"


def _file_system(url: str) -> Any:
    """Return fsspec's file system of a URL.

    Raises:
        InputError: there is none, its backend is not installed, or needs more than a URL.
    """
    import fsspec  # noqa: PLC0415 - a worker starts sooner

    protocol = urlsplit(url).scheme
    try:
        backend = fsspec.get_filesystem_class(protocol)
    except ValueError:
        known = ", ".join(f"{name}://" for name in ("hf", *_EXTRAS))
        raise InputError(
            f"{url}: {protocol}:// is unknown to fsspec, expected for instance {known}"
        ) from None
    except ImportError as e:
        package = f"pip install 'kdjax[{_EXTRAS[protocol]}]'" if protocol in _EXTRAS else str(e)
        raise InputError(f"{url}: the backend of {protocol}:// is missing: {package}") from None
    if _EXTRAS.get(protocol) == "gcs":
        gcs.silence()
    # Looked at before one is made: some leave a traceback of their own when that fails.
    needed = _needed_settings(backend)
    if needed:
        known = ", ".join(f"{name}://" for name in ("hf", *_EXTRAS))
        raise InputError(
            f"{url}: {protocol}:// needs settings of its own ({', '.join(needed)}), which are not "
            f"taken from a URL, expected for instance {known}"
        )
    with _read_errors(url):
        return fsspec.filesystem(protocol, **_options(protocol))


def _needed_settings(backend: Any) -> list[str]:
    """Return the arguments without which fsspec's class of a protocol cannot be made."""
    needed = []
    # The class itself takes anything, as its instances are kept by their arguments.
    parameters = inspect.signature(backend.__init__).parameters
    for name, parameter in list(parameters.items())[1:]:
        is_variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not is_variadic:
            needed.append(name)
    return needed


def _options(protocol: str) -> dict[str, Any]:
    """Return options for a protocol's server, where fsspec's own way is not enough."""
    if protocol == "hf":
        from huggingface_hub import constants  # noqa: PLC0415 - a worker starts sooner

        # A file system is kept by its options: one for each server.
        return {"endpoint": constants.ENDPOINT}
    if protocol not in ("http", "https"):
        return {}
    import aiohttp  # noqa: PLC0415 - an extra

    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS
    )
    # Proxies are those of the environment, as other tools have them.
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}


@contextlib.contextmanager
def _read_errors(url: str) -> Iterator[None]:
    """Turn what goes wrong between here and a server into one line.

    Raises:
        InputError: anything that goes wrong.
    """
    if url.startswith(hub.FILE_PREFIX):
        with hub.hub_errors(hub.parse(url)):
            yield
        return
    try:
        yield
    except InputError:
        raise
    except Exception as e:  # of many kinds: the system's, fsspec's, each backend's
        # Messages of backends may have signed addresses in them: the kind of error says enough.
        status = getattr(e, "status", None)
        reason = f"status {status}" if status else type(e).__name__
        raise InputError(
            f"{url}: cannot be read ({reason}), expected a server that can be reached and gives "
            "the file"
        ) from None


@contextlib.contextmanager
def _interruptions(url: str) -> Iterator[None]:
    """Turn what goes wrong with a file that was there before into work that is not finished.

    Raises:
        Unfinished: what is done stays, and another try goes on with it.
    """
    try:
        with _read_errors(url):
            yield
    except InputError as e:
        raise Unfinished(f"{e}; what is done stays, the same command goes on") from None


class _Reader(io.RawIOBase):
    """A file of fsspec, whose errors are one line each."""

    def __init__(self, file: Any, url: str) -> None:
        self._file = file
        self._url = url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the file.

        Raises:
            Unfinished: the server does not give parts of files.
        """
        with _interruptions(self._url):
            return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with bytes.

        Raises:
            Unfinished: they do not come.
        """
        with _interruptions(self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()
