"""What a tokenizer.json holds: its entries, and the steps of its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LISTS = ("normalizers", "pretokenizers", "processors", "decoders")
"""Keys by which a sequence of each kind of part has its steps."""


def steps(part: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a part, in order, also of sequences within sequences.

    Args:
        part: a normalizer, a splitter, a post-processor or a decoder; None: there is none.
    """
    if not isinstance(part, dict):
        return
    if part.get("type") != "Sequence":
        yield part
        return
    for name in _LISTS:
        for step in part.get(name) or ():
            yield from steps(step)


def entries(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tokenizer's entries with their ids, those that were added included.

    Args:
        content: content of the tokenizer.json.
    """
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids: dict[str, Any] = {}
    if isinstance(vocabulary, dict):
        ids |= vocabulary
    elif isinstance(vocabulary, list):
        # Unigram's are a list of entries with their scores.
        for number, entry in enumerate(vocabulary):
            if isinstance(entry, list) and entry:
                ids[str(entry[0])] = number
    for added in content.get("added_tokens") or ():
        if isinstance(added, dict):
            ids[str(added.get("content"))] = added.get("id")
    return ids
