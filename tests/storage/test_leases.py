"""Leases on places in a bucket: taken, renewed, lapsed, taken over; by a clock that tests set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from kdjax.errors import InUse
from kdjax.storage import leases
from kdjax.storage.leases import GenerationChanged, Lease, StoredLease


@dataclass
class Bucket:
    """A place in a bucket, with a clock of its own."""

    now: float = 0.0
    fails: bool = False
    answers: bool = True
    objects: dict[str, tuple[Any, int, float]] = field(default_factory=dict)
    writes: int = 0

    def read(self, name: str) -> StoredLease | None:
        if name not in self.objects:
            return None
        content, generation, written = self.objects[name]
        return StoredLease(content, generation, self.now - written)

    def write(self, name: str, content: Any, generation: int) -> int:
        if self.fails:
            raise OSError("unreachable")
        if generation != self.objects.get(name, (None, 0, 0.0))[1]:
            raise GenerationChanged
        self.writes += 1
        self.objects[name] = (content, self.writes, self.now)
        if not self.answers:
            raise OSError("the answer is lost")
        return self.writes

    def delete(self, name: str, generation: int) -> None:
        if generation != self.objects[name][1]:
            raise GenerationChanged
        del self.objects[name]

    def names(self, prefix: str) -> list[str]:
        return [name for name in self.objects if name.startswith(prefix)]


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def lease(bucket: Bucket) -> Lease:
    return Lease(bucket, "gs://bucket/study", ".lock", clock=lambda: bucket.now)


def test_renewed_lease_keeps_others_out_for_ever_and_released_lets_them_in(bucket: Bucket) -> None:
    first = lease(bucket)
    first.acquire()
    for _ in range(100):
        bucket.now += leases.RENEW_SECONDS
        assert first.renew()
        with pytest.raises(InUse, match=r"gs://bucket/study: process \d+ on host .* since 20"):
            lease(bucket).acquire()
    first.release()
    assert bucket.objects == {}
    lease(bucket).acquire()


def test_lease_of_a_killed_holder_is_taken_over_when_it_has_lapsed(bucket: Bucket) -> None:
    first = lease(bucket)
    first.acquire()
    bucket.now += leases.LIFETIME_SECONDS - 1
    with pytest.raises(InUse, match="free in 1 s"):
        lease(bucket).acquire()
    bucket.now += 1
    second = lease(bucket)
    second.acquire()
    # One that comes back after a long sleep neither renews nor deletes what is another's.
    assert not first.renew()
    first.release()
    assert second.renew()
    second.release()
    assert bucket.objects == {}


def test_of_two_that_take_over_one_lapsed_lease_one_gets_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease(bucket).acquire()
    bucket.now += leases.LIFETIME_SECONDS
    read = bucket.read

    def read_and_be_overtaken(name: str) -> StoredLease | None:
        found = read(name)
        monkeypatch.setattr(bucket, "read", read)
        lease(bucket).acquire()
        return found

    monkeypatch.setattr(bucket, "read", read_and_be_overtaken)
    with pytest.raises(InUse, match="has been writing here"):
        lease(bucket).acquire()


def test_holder_gives_up_before_others_may_take_over(bucket: Bucket) -> None:
    first = lease(bucket)
    first.acquire()
    bucket.fails = True
    while first.renew():
        bucket.now += leases.RENEW_SECONDS
    assert bucket.now < leases.LIFETIME_SECONDS
    # Nor does it write when the bucket is there again.
    bucket.fails = False
    assert not first.renew() and bucket.writes == 1


def test_short_failure_and_a_lost_answer_do_not_end_a_lease(bucket: Bucket) -> None:
    first = lease(bucket)
    first.acquire()
    bucket.fails = True
    bucket.now += leases.RENEW_SECONDS
    assert first.renew()
    bucket.fails = False
    bucket.answers = False
    bucket.now += leases.RENEW_SECONDS
    assert first.renew()
    bucket.answers = True
    for _ in range(10):
        bucket.now += leases.RENEW_SECONDS
        assert first.renew()


def test_clock_of_the_machine_that_asks_decides_nothing(bucket: Bucket) -> None:
    lease(bucket).acquire()
    ahead = Lease(bucket, "gs://bucket/study", ".lock", clock=lambda: 1e9)
    with pytest.raises(InUse):
        ahead.acquire()
