"""Leases: how one process at a time writes to a place in a bucket (gs://), where no kernel knows
which processes live.

A lease is an object that its holder writes anew every `RENEW_SECONDS`. One that was not written for
`LIFETIME_SECONDS` has lapsed, and whoever comes takes it over. Every write names the generation of
the object that it replaces, and Cloud Storage refuses it where that has changed: of two that take
over one lapsed lease, one gets it. How old a lease is follows from the server's clock alone, so the
clocks of the machines may differ and may jump.

A holder that could not renew for `GIVE_UP_SECONDS`, which is sooner than others may take over, ends
its process at once. What it had sent by then may still arrive: Cloud Storage cannot refuse that.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from kdjax.errors import InUse, Stopped
from kdjax.runtime import process_logging
from kdjax.storage import gcs
from kdjax.storage.holder import describe, this_process

RENEW_SECONDS = 20.0
"""Seconds between two writes of a lease."""
GIVE_UP_SECONDS = 90.0
"""Seconds without a renewal after which a holder takes its lease for lost."""
LIFETIME_SECONDS = 120.0
"""Seconds without a renewal after which others may take a lease over."""
REQUEST_SECONDS = 20.0
"""Seconds after which a request counts as failed."""
_TRIES = 3
"""Tries to take a lease that changes while it is looked at."""


class GenerationChanged(Exception):
    """An object is not, or no longer, of the generation that a write named."""


@dataclass(frozen=True)
class StoredLease:
    """A lease as it lies in the bucket.

    Attributes:
        content: what its holder wrote.
        generation: number that Cloud Storage gave this writing of the object.
        age: seconds since it was written, by the server's clock.
    """

    content: Any
    generation: int
    age: float


class ObjectStore(Protocol):
    """Objects of one place, with writes that name what they replace."""

    def read(self, name: str) -> StoredLease | None:
        """Read an object; None: there is none."""

    def write(self, name: str, content: Any, generation: int) -> int:
        """Write an object in place of one generation of it, 0 for none; return the new generation.

        Args:
            name: name of the object.
            content: its content, as plain JSON.
            generation: generation that is replaced; 0: there is no such object.

        Raises:
            GenerationChanged: the object is of another generation.
        """

    def delete(self, name: str, generation: int) -> None:
        """Delete one generation of an object.

        Raises:
            GenerationChanged: the object is of another generation.
        """

    def names(self, prefix: str) -> list[str]:
        """List the objects whose name begins in some way."""


class Lease:
    """A lease on a place; `acquire`, then `renew` in time, then `release`."""

    def __init__(
        self,
        objects: ObjectStore,
        place: str,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Name the lease; nothing is read or written yet.

        Args:
            objects: objects of the place.
            place: the place, for messages.
            name: name of the lease's object.
            clock: seconds that only go forward.
        """
        self._objects = objects
        self._place = place
        self._name = name
        self._clock = clock
        self._content = {**this_process(), "lease": uuid.uuid4().hex}
        self._generation = 0
        self._renewed = 0.0

    def acquire(self) -> None:
        """Take the lease, where nobody holds it or it has lapsed.

        Raises:
            InUse: another process holds it.
        """
        for _ in range(_TRIES):
            stored = self._objects.read(self._name)
            check_lapsed(stored, self._place)
            begun = self._clock()
            with suppress(GenerationChanged):  # another came first: looked at again
                self._generation = self._objects.write(
                    self._name, self._content, stored.generation if stored else 0
                )
                self._renewed = begun
                return
        raise InUse(f"{self._place}: {describe(None)}, expected it to end first")

    def renew(self) -> bool:
        """Write the lease anew; return whether it is still held.

        One that cannot be written stays held until `GIVE_UP_SECONDS` have passed.
        """
        begun = self._clock()
        if begun - self._renewed < GIVE_UP_SECONDS:
            try:
                self._generation = self._objects.write(self._name, self._content, self._generation)
                self._renewed = begun
            except GenerationChanged:
                return self._is_written(begun)
            except Exception:  # of many kinds: the network's, the cloud's
                pass
        return self._clock() - self._renewed < GIVE_UP_SECONDS

    def _is_written(self, begun: float) -> bool:
        """Return whether the lease is this one still: a write whose answer was lost has changed it.

        Args:
            begun: when the write began that found it changed.
        """
        with suppress(Exception):
            stored = self._objects.read(self._name)
            if stored is None or stored.content.get("lease") != self._content["lease"]:
                return False
            self._generation = stored.generation
            self._renewed = max(self._renewed, begun - stored.age)
        return self._clock() - self._renewed < GIVE_UP_SECONDS

    def release(self) -> None:
        """Delete the lease; one that another holds by now stays, and one that stays lapses."""
        with suppress(Exception):
            self._objects.delete(self._name, self._generation)


def check_lapsed(stored: StoredLease | None, place: str) -> None:
    """Check that a lease is not there, or has lapsed.

    Raises:
        InUse: somebody holds it.
    """
    if stored is not None and stored.age < LIFETIME_SECONDS:
        rest = LIFETIME_SECONDS - stored.age
        raise InUse(
            f"{place}: {describe(stored.content)}, expected it to end first (if it was killed, "
            f"this place is free in {rest:.0f} s)"
        )


@contextmanager
def hold(place: Any, name: str) -> Iterator[None]:
    """Hold the lease on a place in the block, renewed by a thread.

    If it is lost the process ends at once, as by a kill, so that it writes no more.

    Args:
        place: gs://bucket/path.
        name: name of the lease's object.

    Raises:
        InUse: another process holds it.
    """
    objects = _objects(place)
    if objects is None:
        process_logging.warn(
            f"{place}: without the packages of `pip install 'kdjax[gcs]'` it is not kept from "
            "others; see to it that nothing else writes here"
        )
        yield
        return
    lease = Lease(objects, str(place), name)
    lease.acquire()
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(RENEW_SECONDS):
            if not lease.renew():
                _end_process(place)

    keeper = threading.Thread(target=keep, name="kdjax-lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()
        lease.release()


def check_free(place: Any, name: str) -> None:
    """Check that nobody holds a lease on a place.

    Args:
        place: gs://bucket/path.
        name: name of the lease's object; with a `*` at its end, of all that begin so.

    Raises:
        InUse: somebody does.
    """
    objects = _objects(place)
    if objects is None:
        return
    names = objects.names(name[:-1]) if name.endswith("*") else [name]
    for lease_name in names:
        check_lapsed(objects.read(lease_name), str(place))


def _end_process(place: Any) -> None:
    """End this process at once: it may not write to a place that another may hold."""
    process_logging.warn(
        f"{place}: could not be kept from other processes for {GIVE_UP_SECONDS:.0f} s, so this one "
        "ends; the same command goes on"
    )
    os._exit(Stopped.STATUS)


def _objects(place: Any) -> ObjectStore | None:
    """Return the objects of a place; None where the packages for them are missing."""
    try:
        return GcsObjects(str(place))
    except ImportError:
        return None


class GcsObjects:
    """Objects of a place at gs://, by Cloud Storage's JSON interface."""

    def __init__(self, place: str):
        """Open the place.

        Args:
            place: gs://bucket/path.

        Raises:
            ImportError: gcsfs is missing.
        """
        import fsspec  # noqa: PLC0415 - an extra
        import gcsfs  # noqa: F401, PLC0415 - an extra

        gcs.silence()
        self._files: Any = fsspec.filesystem("gs")
        self._bucket, _, path = place.removeprefix("gs://").rstrip("/").partition("/")
        self._prefix = f"{path}/" if path else ""

    def read(self, name: str) -> StoredLease | None:
        """Read an object; None: there is none."""
        key = self._prefix + name
        try:
            headers, metadata = self._call("GET", "b/{}/o/{}", self._bucket, key)
            facts = json.loads(metadata)
            _, content = self._call("GET", "b/{}/o/{}", self._bucket, key, alt="media")
        except FileNotFoundError:
            return None
        age = parsedate_to_datetime(headers["Date"]) - datetime.fromisoformat(facts["updated"])
        try:
            values = json.loads(content)
        except ValueError:
            values = {}
        return StoredLease(values, int(facts["generation"]), max(0.0, age.total_seconds()))

    def write(self, name: str, content: Any, generation: int) -> int:
        """Write an object in place of one generation of it, 0 for none; return the new generation.

        Raises:
            GenerationChanged: the object is of another generation.
        """
        try:
            _, metadata = self._call(
                "POST",
                f"{self._files._location}/upload/storage/v1/b/{self._bucket}/o",
                uploadType="media",
                name=self._prefix + name,
                ifGenerationMatch=str(generation),
                data=json.dumps(content).encode(),
            )
        except FileExistsError:
            raise GenerationChanged from None
        return int(json.loads(metadata)["generation"])

    def delete(self, name: str, generation: int) -> None:
        """Delete one generation of an object.

        Raises:
            GenerationChanged: the object is of another generation.
        """
        key = self._prefix + name
        try:
            self._call("DELETE", "b/{}/o/{}", self._bucket, key, ifGenerationMatch=str(generation))
        except FileExistsError:
            raise GenerationChanged from None

    def names(self, prefix: str) -> list[str]:
        """List the objects whose name begins in some way."""
        _, listing = self._call("GET", "b/{}/o", self._bucket, prefix=self._prefix + prefix)
        items = json.loads(listing).get("items", [])
        return [item["name"].removeprefix(self._prefix) for item in items]

    def _call(self, *words: str, **parameters: Any) -> Any:
        """Send a request; return the answer's headers and content."""
        from fsspec.asyn import sync  # noqa: PLC0415 - an extra

        files = self._files
        return sync(files.loop, files._call, *words, timeout=REQUEST_SECONDS, **parameters)
