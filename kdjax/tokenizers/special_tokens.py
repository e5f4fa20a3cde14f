"""Special tokens by what they are for: which of a tokenizer's entries pads, masks, begins a text, …

A tokenizer's families name them differently: BERT's [CLS] and [SEP] are RoBERTa's <s> and </s>. So
roles are read from what a tokenizer says of itself, in tokenizer_config.json,
special_tokens_map.json and tokenizer.json, and from names only where it says nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kdjax.errors import InputError
from kdjax.storage.files import read_json
from kdjax.tokenizers import tokenizer_json

COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json")
"""Files beside a tokenizer.json that name special tokens; the first that names a role counts."""
KEYS = {
    "pad": ("pad_token",),
    "unknown": ("unk_token",),
    "start": ("cls_token", "bos_token"),
    "end": ("sep_token", "eos_token"),
    "mask": ("mask_token",),
}
"""Role -> its keys in these files, in the words of transformers."""
_USUAL_NAMES = {
    "pad": ("[PAD]", "<pad>", "<|pad|>", "<|padding|>"),
    "unknown": ("[UNK]", "<unk>", "<|unk|>"),
    "start": ("[CLS]", "<s>", "<cls>", "<|cls|>", "[BOS]", "<bos>"),
    "end": ("[SEP]", "</s>", "<sep>", "<|sep|>", "[EOS]", "<eos>"),
    "mask": ("[MASK]", "<mask>", "<|mask|>"),
}
"""Role -> names by which published tokenizers have it."""

Template = tuple[str | int, ...]
"""A framed row: special tokens, and 0 and 1 where its first and its second text stand."""


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens, by role.

    Attributes:
        pad: fills a sequence up; BERT's [PAD].
        unknown: stands for text that no entry covers; [UNK]. None where every text has entries.
        start: begins a text; [CLS].
        end: ends a text; [SEP].
        mask: takes the place of a token to be predicted; [MASK].
    """

    pad: int
    unknown: int | None
    start: int
    end: int
    mask: int

    def count_unknown(self, ids: ArrayLike) -> int:
        """Count the tokens that stand for unknown text: 0 where there is no such token."""
        if self.unknown is None:
            return 0
        return int(np.count_nonzero(np.asarray(ids) == self.unknown))


def find_roles(content: Mapping[str, Any], path: Path, entries: Collection[str]) -> dict[str, str]:
    """Find the entry of each role in a tokenizer.

    `unknown` is what the tokenizer's model itself makes of unknown text. Other roles are read from
    `COMPANIONS`, which count only beside a file named tokenizer.json; then `start` and `end` from
    the post-processor, which frames a text by them; then from usual names.

    Args:
        content: content of the tokenizer.json.
        path: its path.
        entries: its entries, those that were added included.

    Returns:
        role -> entry, without the roles that no entry has for sure.

    Raises:
        InputError: a companion names a token that is no entry, or is damaged.
    """
    roles = _from_companions(path, entries)
    # A text's own frame: its first token begins it, its last one ends it.
    single = templates(content, path).get("single") or (0,)
    for role, token in (("start", single[0]), ("end", single[-1])):
        if isinstance(token, str):
            roles.setdefault(role, token)
    roles = {**_usual_roles(entries, _marked(content)), **roles}
    unknown = _unknown_of_model(content)
    if unknown is not None:
        roles["unknown"] = unknown
    return roles


def usual_role_names(path: Path, entries: Collection[str]) -> dict[str, str]:
    """Find the entry of each role, by companions and usual names alone.

    Args:
        path: path of a tokenizer.json, which need not be there.
        entries: the tokenizer's entries.

    Raises:
        InputError: a companion names a token that is no entry, or is damaged.
    """
    return {**_usual_roles(entries, ()), **_from_companions(path, entries)}


def special_tokens(
    content: Mapping[str, Any], path: Path, vocabulary: Mapping[str, int]
) -> SpecialTokens:
    """Find the ids of a tokenizer's special tokens.

    Args:
        content: content of the tokenizer.json.
        path: its path.
        vocabulary: entry -> id, entries that were added included.

    Raises:
        InputError: a role cannot be told, or a companion names a token that is no entry.
    """
    roles = find_roles(content, path, vocabulary)
    ids: dict[str, int | None] = {role: vocabulary.get(token) for role, token in roles.items()}
    missing = [role for role in KEYS if role != "unknown" and ids.get(role) is None]
    if missing:
        keys = " and ".join(KEYS[role][0] for role in missing)
        raise InputError(
            f"{path}: cannot tell which entry is its {' and '.join(missing)} token, expected "
            f"{keys} in {COMPANIONS[0]} or {COMPANIONS[1]} beside a tokenizer.json"
        )
    return SpecialTokens(**{role: ids.get(role) for role in KEYS})  # type: ignore[arg-type]


def templates(content: Mapping[str, Any], path: Path) -> dict[str, Template]:
    """Read how a tokenizer frames a text (`single`) and a pair of texts (`pair`).

    BERT's pair is `("[CLS]", 0, "[SEP]", 1, "[SEP]")`, RoBERTa's `("<s>", 0, "</s>", "</s>", 1,
    "</s>")`. Empty where the tokenizer has no post-processor that frames.

    Args:
        content: content of tokenizer.json.
        path: its path, for messages.

    Raises:
        InputError: the post-processor is no whole one.
    """
    framed: dict[str, Template] = {}
    try:
        for step in tokenizer_json.steps(content.get("post_processor")):
            kind = step.get("type")
            if kind in ("BertProcessing", "RobertaProcessing"):
                start = str(step["cls"][0])
                end = str(step["sep"][0])
                between = (end, end) if kind == "RobertaProcessing" else (end,)
                framed["single"] = (start, 0, end)
                framed["pair"] = (start, 0, *between, 1, end)
            elif kind == "TemplateProcessing":
                for name in ("single", "pair"):
                    pieces = step[name]
                    framed[name] = tuple(_pieces(pieces, step["special_tokens"]))
    except (KeyError, IndexError, TypeError, AttributeError):
        raise InputError(
            f"{path}: its post_processor is not a whole one, expected a Hugging Face tokenizer.json"
        ) from None
    return framed


def _pieces(pieces: Any, known: Mapping[str, Any]) -> Iterator[str | int]:
    """Yield the pieces of a template: tokens, and the number of a text."""
    for piece in pieces:
        if "Sequence" in piece:
            yield 0 if piece["Sequence"]["id"] == "A" else 1
        else:
            # A name may stand for several tokens.
            yield from map(str, known[piece["SpecialToken"]["id"]]["tokens"])


def _from_companions(path: Path, entries: Collection[str]) -> dict[str, str]:
    """Read roles from the files beside a tokenizer.json."""
    roles: dict[str, str] = {}
    if path.name != "tokenizer.json":
        return roles
    files = [path.with_name(name) for name in COMPANIONS]
    settings = {file: read_companion(file) for file in files if file.is_file()}
    for role, keys in KEYS.items():
        # A key that says more, such as cls_token, goes before bos_token in either file.
        for key, file in itertools.product(keys, settings):
            token = _text_of(settings[file].get(key))
            if token is None or role in roles:
                continue
            if token in entries:
                roles[role] = token
            elif role != "unknown":
                raise InputError(
                    f"{file}: {key} is {token!r}, expected an entry of {path.name} beside it"
                )
    return roles


def read_companion(file: Path) -> Mapping[str, Any]:
    """Read one of `COMPANIONS`.

    Raises:
        InputError: the file is damaged, or holds no object.
    """
    settings = read_json(file)
    if not isinstance(settings, dict):
        raise InputError(f"{file}: expected an object, found {settings!r:.40}")
    return settings


def _marked(content: Mapping[str, Any]) -> set[str]:
    """Return the tokens that a tokenizer.json marks as special."""
    marked = set()
    for added in content.get("added_tokens") or ():
        if isinstance(added, dict) and added.get("special"):
            marked.add(str(added.get("content")))
    return marked


def _usual_roles(entries: Collection[str], marked: Collection[str]) -> dict[str, str]:
    """Return roles by the usual names of their tokens.

    Where two names stand for one role, the one that is marked as special counts; where both are
    marked, or neither, the role is left out.
    """
    roles = {}
    for role, names in _USUAL_NAMES.items():
        known = [name for name in names if name in entries]
        if len(known) > 1:
            known = [name for name in known if name in marked]
        if len(known) == 1:
            roles[role] = known[0]
    return roles


def _text_of(token: Any) -> str | None:
    """Return a token's text; files have it alone or with properties."""
    if isinstance(token, dict):
        token = token.get("content")
    if not isinstance(token, str):
        return None
    return token


def _unknown_of_model(content: Mapping[str, Any]) -> str | None:
    """Return the token that a tokenizer's model makes of unknown text; None: it names none."""
    model = content.get("model")
    if not isinstance(model, dict):
        return None
    if isinstance(model.get("unk_token"), str):
        return str(model["unk_token"])
    # Unigram's is named by its place among the entries.
    index = model.get("unk_id")
    vocabulary = model.get("vocab")
    if isinstance(index, int) and isinstance(vocabulary, list) and index < len(vocabulary):
        return str(vocabulary[index][0])
    return None
