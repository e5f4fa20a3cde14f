"""Texts and identities that repeat: which split a document goes to, and whether it is left out.

A text that stands in the training and in the held-out split would be measured by heart. So all
documents with one text go where the identity of the first of them says; a text that occurs once
goes where its own says, as it always did. Texts are told apart by 63 bits of a hash: of a hundred
million different ones, two are taken for the same with one chance in 1,800.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from kdjax.text.document import Document

RECENT = 2**16
"""Texts whose hashes are kept in a dictionary, before they are sorted into an array."""
CANDIDATES = 64
"""Identities that are counted at a time. An identity is missed by a 65th of the documents at most
(Misra and Gries 1982)."""


@dataclass(frozen=True)
class Fingerprint:
    """The part of a document that is compared.

    Attributes:
        text: 63 bits of a hash of its text.
        identity: 64 bits of a hash of its identity; 0 where the text is its identity.
        held_out: whether its identity alone puts it into the held-out split.
        size: bytes of its text in UTF-8.
    """

    text: int
    identity: int
    held_out: bool
    size: int

    @classmethod
    def from_document(cls, document: Document, validation: float) -> Fingerprint:
        """Compute a document's, under a share of documents that are held out."""
        text = document.text.encode()
        identity = _hash(document.identity.encode()) if document.identity != document.text else 0
        held_out = document.is_held_out(validation)
        return cls(_hash(text) >> 1, identity, held_out, len(text))


@dataclass(frozen=True)
class SplitDocument:
    """A document's text, and the split it belongs to."""

    text: str
    held_out: bool

    @property
    def size(self) -> int:
        """Count the bytes of the text in UTF-8."""
        return len(self.text.encode())


class RepeatFinder:
    """Decides where documents go, one after another.

    It holds 8 bytes for each different text, twice that while arrays are joined, and a few
    megabytes besides.

    Attributes:
        repeated: documents whose text an earlier one has.
        moved: those of them that would have been in the other split by their own identity.
        removed: those of them that were left out.
    """

    def __init__(self, *, deduplicate: bool) -> None:
        self.repeated = 0
        self.moved = 0
        self.removed = 0
        self._deduplicate = deduplicate
        self._seen = _HeldOutByText()
        self._identities: dict[int, int] = {}

    def place(self, fingerprint: Fingerprint) -> bool | None:
        """Return whether a document is held out; None where it is left out."""
        self._count_identity(fingerprint.identity)
        first = self._seen.find_or_add(fingerprint.text, fingerprint.held_out)
        if first is None:
            return fingerprint.held_out
        self.repeated += 1
        if self._deduplicate:
            self.removed += 1
            return None
        self.moved += first != fingerprint.held_out
        return first

    def split(self, documents: Iterable[Document], validation: float) -> Iterator[SplitDocument]:
        """Yield the documents that stay, each with its split.

        Args:
            documents: the documents, in order.
            validation: share of documents that are held out by their identity.
        """
        for document in documents:
            held_out = self.place(Fingerprint.from_document(document, validation))
            if held_out is not None:
                yield SplitDocument(document.text, held_out)

    @property
    def same_identity(self) -> int:
        """Return a number of documents that share an identity: the most, or some fewer."""
        return max(self._identities.values(), default=0)

    def _count_identity(self, identity: int) -> None:
        """Count frequent identities: each new one that has no room takes one from all."""
        counts = self._identities
        if not identity:
            return
        if identity in counts or len(counts) < CANDIDATES:
            counts[identity] = counts.get(identity, 0) + 1
            return
        self._identities = {known: count - 1 for known, count in counts.items() if count > 1}


class _HeldOutByText:
    """A map from texts' hashes to a bit, in sorted arrays whose sizes at least halve."""

    def __init__(self) -> None:
        self._recent: dict[int, bool] = {}
        self._sorted: list[np.ndarray] = []

    def find_or_add(self, text: int, held_out: bool) -> bool | None:
        """Return the bit that a text has; None where it is new, and gets this one."""
        known = self._recent.get(text)
        if known is not None:
            return known
        # The lowest bit of an entry is what the text maps to.
        key = np.uint64(text << 1)
        for entries in self._sorted:
            index = int(np.searchsorted(entries, key))
            if index < len(entries) and int(entries[index]) >> 1 == text:
                return bool(int(entries[index]) & 1)
        self._recent[text] = held_out
        if len(self._recent) == RECENT:
            self._sort_recent()
        return None

    def _sort_recent(self) -> None:
        """Put the dictionary into an array, and join arrays of about one size."""
        entries = [text << 1 | held_out for text, held_out in self._recent.items()]
        self._recent = {}
        self._sorted.append(np.sort(np.array(entries, np.uint64)))
        while len(self._sorted) > 1 and len(self._sorted[-2]) <= len(self._sorted[-1]):
            joined = np.concatenate(self._sorted[-2:])
            del self._sorted[-2:]
            joined.sort(kind="stable")
            self._sorted.append(joined)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
