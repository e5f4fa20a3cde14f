"""Where words begin among tokens, told by the tokens alone: for masks of whole words.

A word is what stands between white space; a mark of punctuation is a word of its own. So are BERT's
words, and so they are here for every kind of tokenizer. WordPiece marks the tokens that go on with
a word ("##ing"), byte-level BPE ("Ġdog") and Unigram ("▁dog") those behind a space.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdjax.tokenizers import tokenizer_json

SPACE = "\u2581"
"""Stands for a space in entries of Unigram tokenizers."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class WordBoundaries:
    """What each of V entries says of words.

    Attributes:
        begins: `[V]`: the token begins a word, whatever is before it.
        ends: `[V]`: the token behind it begins a word, whatever it is.
    """

    begins: Bools
    ends: Bools

    @classmethod
    def from_tokenizer(
        cls, content: Mapping[str, Any], vocabulary: Mapping[str, int]
    ) -> WordBoundaries | None:
        """Read the marks of a tokenizer's entries; None where its kind has none that are known.

        Args:
            content: content of the tokenizer.json.
            vocabulary: entry -> id, entries that were added included.
        """
        model = content.get("model") or {}
        kinds = set()
        for part in (content.get("pre_tokenizer"), content.get("decoder")):
            kinds |= {step.get("type") for step in tokenizer_json.steps(part)}
        rows = max(vocabulary.values()) + 1
        begins = np.ones(rows, bool)
        ends = np.zeros(rows, bool)
        prefix = model.get("continuing_subword_prefix")
        suffix = model.get("end_of_word_suffix")
        if model.get("type") in ("WordPiece", "WordLevel"):
            # Each word of BERT's splitter begins with an entry that has no prefix.
            for token, index in vocabulary.items():
                begins[index] = not (prefix and token.startswith(prefix))
        elif "ByteLevel" in kinds:
            for token, index in vocabulary.items():
                begins[index], ends[index] = _marks(_text_of_bytes(token))
        elif "Metaspace" in kinds or model.get("type") == "Unigram" or model.get("byte_fallback"):
            for token, index in vocabulary.items():
                begins[index], ends[index] = _marks(token.replace(SPACE, " "))
        elif suffix:
            begins[:] = False
            for token, index in vocabulary.items():
                ends[index] = token.endswith(suffix)
        else:
            return None
        return cls(begins, ends)

    def to_json(self) -> dict[str, Any]:
        """Return both arrays as text, eight entries a byte."""
        return {
            "entries": len(self.begins),
            "begins": _packed(self.begins),
            "ends": _packed(self.ends),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> WordBoundaries:
        """Rebuild boundaries from the plain values of `to_json`.

        Raises:
            KeyError, ValueError: it is something else.
        """
        entries = int(values["entries"])
        return cls(_unpacked(values["begins"], entries), _unpacked(values["ends"], entries))

    def starts(self, tokens: np.ndarray) -> Bools:
        """Return whether each of `[L]` tokens begins a word; the first one does."""
        starts: Bools = self.begins[tokens]
        starts[1:] |= self.ends[tokens[:-1]]
        starts[:1] = True
        return starts


def _marks(text: str) -> tuple[bool, bool]:
    """Return whether a token of this text begins a word, and whether it ends one."""
    # A space belongs to the word behind it; a word may begin with a mark of punctuation.
    word = text.removeprefix(" ")
    if not word:
        return text != "", False
    begins = word != text or word[0].isspace() or _is_punctuation(word[0])
    # After other white space, and after punctuation, there is a new word.
    ends = _is_punctuation(word[-1]) or (word[-1].isspace() and word[-1] != " ")
    return begins, ends


def _is_punctuation(character: str) -> bool:
    """Return whether BERT takes a character for punctuation: all of ASCII's signs, and Unicode's P
    (Devlin et al. 2019, the published code)."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return unicodedata.category(character).startswith("P")


def _byte_of_character() -> dict[str, int]:
    """Return the byte that each character of byte-level entries stands for.

    Bytes that are printable characters of Latin-1 stand for themselves, all others in order for the
    code points from 256 (Radford et al. 2019, the published code).
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table |= {chr(256 + n): byte for n, byte in enumerate(others)}
    return table


_BYTES = _byte_of_character()


def _text_of_bytes(token: str) -> str:
    """Return the text of a byte-level entry; parts of characters become U+FFFD."""
    if not set(token) <= _BYTES.keys():  # an added token, which is text as it stands
        return token
    return bytes(_BYTES[character] for character in token).decode("utf-8", "replace")


def _packed(bits: Bools) -> str:
    return base64.b64encode(np.packbits(bits).tobytes()).decode("ascii")


def _unpacked(text: str, entries: int) -> Bools:
    raw = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    return np.unpackbits(raw, count=entries).astype(bool)
