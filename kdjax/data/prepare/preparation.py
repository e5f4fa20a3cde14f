"""What is prepared, into which directory, and the manifest that says so: the same for every way to
prepare."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.config import DataConfig, TokenizerConfig
from kdjax.data import manifest
from kdjax.data.manifest import SPLITS, Manifest, total
from kdjax.data.prepare import wordpiece
from kdjax.data.prepare.blocks import BlockSettings, Part
from kdjax.data.prepare.packing import RecordFormat
from kdjax.data.shards import SHARDS, held
from kdjax.data.text import sources
from kdjax.data.text.sources import Source, TextError
from kdjax.data.tokenizer import TextTokenizer
from kdjax.errors import InputError
from kdjax.files import read_json, write_json, write_text

PLAN = "preparation.json"
"""What the directory is prepared from; written first, so that a restart can tell whether it may go
on."""
TOKENIZER = "tokenizer.json"
"""The corpus's own tokenizer, where it was trained on this text."""
SCAN = ".preparation-scan"
"""Where a pipeline of several machines keeps what it found in the sources; gone when it is done."""


@dataclass(frozen=True)
class Preparation:
    """A corpus to be prepared.

    Attributes:
        sources: where its text is, in the order in which it is read.
        text_fields: of a record's fields, the first one present holds the text.
        most: documents of a block.
        tokenizer: what makes tokens of the text; None: one is trained first, see `with_tokenizer`.
        blocks: what makes shards of a block.
        config: the settings that all of this comes from.
    """

    sources: tuple[Source, ...]
    text_fields: tuple[str, ...]
    most: int
    tokenizer: TextTokenizer | None
    blocks: BlockSettings
    config: DataConfig

    @classmethod
    def of(
        cls, config: DataConfig, tokenizer: Path | None, out: Path, *, held_out: bool = False
    ) -> Preparation:
        """What the settings ask for.

        Args:
            config: files and settings.
            tokenizer: a tokenizer.json; None: the one that is trained as `data.tokenizer` says.
            out: the corpus's directory.
            held_out: whether all of the text is held out: the training split is then empty.

        Raises:
            InputError: no text is there, it is of a kind that cannot be read here, or the tokenizer
                is unusable.
        """
        found = tuple(sources.expand(config.files))
        fields = (
            (config.text_field,) if isinstance(config.text_field, str) else tuple(config.text_field)
        )
        read = TextTokenizer.read(tokenizer) if tokenizer is not None else None
        digest = read.sha256 if read is not None else ""
        path = tokenizer or out / TOKENIZER
        # A document is held out where its fraction, below 1, is below this share.
        validation = 1.0 if held_out else config.validation
        blocks = BlockSettings(out, path, digest, config.seq_len, validation)
        return cls(found, fields, config.shard_documents, read, blocks, config)

    @property
    def out(self) -> Path:
        """The corpus's directory."""
        return self.blocks.directory

    def plan(self, digests: Sequence[str]) -> dict[str, Any]:
        """All that the result depends on, given the digests of the sources.

        A tokenizer that is still to be trained has no digest; how it is trained is among the
        settings then.
        """
        trained = self.config.tokenizer
        training = (
            {"tokenizer": dataclasses.asdict(trained)}
            if isinstance(trained, TokenizerConfig)
            else {}
        )
        return {
            "version": manifest.VERSION,
            "tokenizer_sha256": self.tokenizer.sha256 if self.tokenizer is not None else None,
            "sources": dict(zip(map(str, self.sources), digests, strict=True)),
            "settings": {
                "length": self.blocks.length,
                "validation": self.blocks.validation,
                "shard_documents": self.most,
                "text_field": list(self.text_fields),
                **training,
            },
        }

    def with_tokenizer(self) -> Preparation:
        """Return the same with its tokenizer: the one given, or the one trained on this text, now
        or before.

        A trained one lies in the corpus's directory, and its digest in the plan there, before any
        block is made.

        Raises:
            TextError: unusable text, or too little for so many entries.
            InputError: the directory's blocks were made with another tokenizer, which is gone.
        """
        if self.tokenizer is not None:
            return self
        path = self.out / TOKENIZER
        plan = read_json(self.out / PLAN)
        expected = plan["tokenizer_sha256"]
        if expected is None or not path.is_file() or sources.sha256(path) != expected:
            write_text(path, wordpiece.train_on_corpus(self.config).json)
        tokenizer = TextTokenizer.read(path)
        if expected is None:
            write_json(self.out / PLAN, {**plan, "tokenizer_sha256": tokenizer.sha256})
        elif tokenizer.sha256 != expected:
            raise InputError(
                f"{path}: trained again, it has the digest {tokenizer.sha256[:12]}, expected "
                f"{expected[:12]}, which "
                "the text here was prepared with; expected that file, or a new directory"
            )
        blocks = dataclasses.replace(self.blocks, tokenizer_sha256=tokenizer.sha256)
        return dataclasses.replace(self, tokenizer=tokenizer, blocks=blocks)

    def done(self) -> Manifest | None:
        """The manifest, where everything it lists is there and whole."""
        if not (self.out / manifest.NAME).exists():
            return None
        found = Manifest.read(self.out)
        return found if all(shard.intact(self.out) for shard in found.shards) else None

    def finish(self, plan: Mapping[str, Any], parts: Sequence[Part]) -> Manifest:
        """Writes the manifest of all blocks' parts, in their order.

        Raises:
            TextError: a split is empty.
        """
        if self.tokenizer is None:
            raise ValueError("has no tokenizer yet, expected with_tokenizer() before")
        made = _manifest(plan, self.tokenizer, parts)
        made.write(self.out)
        return made


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Holds a directory for this process, and clears it again if the text turns out to be unusable.

    Raises:
        InputError: it cannot be made, or another process holds it.
    """
    created = not out.exists()
    try:
        with held(out, PLAN, "prepares a corpus"):
            yield
    except TextError:
        for directory in (SHARDS, SCAN):
            shutil.rmtree(out / directory, ignore_errors=True)
        for name in (PLAN, manifest.NAME, TOKENIZER):
            (out / name).unlink(missing_ok=True)
        raise
    finally:
        if created and out.is_dir() and not any(out.iterdir()):
            out.rmdir()


def check_ours(out: Path) -> None:
    """Raises an InputError where a directory holds something else than a corpus or the beginnings
    of one."""
    if not (out / PLAN).exists() and any(there.name != SCAN for there in out.iterdir()):
        raise InputError(
            f"{out}: is not empty and holds no prepared corpus, expected a new or empty directory"
        )


def check_plan(out: Path, plan: Mapping[str, Any]) -> None:
    """Makes the directory this plan's, or finds that it is.

    Raises:
        InputError: it is another plan's, or holds something else.
    """
    check_ours(out)
    path = out / PLAN
    if not path.exists():
        write_json(path, plan)
        return
    found = read_json(path)
    # Where they lie does not matter
    if list(found["sources"].values()) != list(plan["sources"].values()):
        raise InputError(
            f"{out}: was prepared from other text than {', '.join(plan['sources'])}, expected a "
            "new directory"
        )
    for name in ("version", "tokenizer_sha256"):
        to_be_trained = name == "tokenizer_sha256" and plan[name] is None
        if found[name] != plan[name] and not to_be_trained:
            raise InputError(
                f"{out}: was prepared with {name} {found[name]}, expected {plan[name]} or a new "
                "directory"
            )
    for name, value in plan["settings"].items():
        before = found["settings"].get(name, "a file that was given")  # a tokenizer
        if before != value:
            setting = {"length": "seq_len"}.get(name, name)  # corpora keep the name they began with
            raise InputError(
                f"{out}: was prepared with data.{setting} {before}, expected {value} or a new "
                "directory"
            )


def _manifest(plan: Mapping[str, Any], tokenizer: TextTokenizer, parts: Sequence[Part]) -> Manifest:
    shards = tuple(
        shard for split in SPLITS for part in parts for shard in part.shards if shard.split == split
    )
    documents = total(part.documents for part in parts)
    tokens = total(part.tokens for part in parts)
    sequences = {
        split: sum(shard.sequences for shard in shards if shard.split == split) for split in SPLITS
    }
    length = plan["settings"]["length"]
    if plan["settings"]["validation"] == 1:
        if not sequences["validation"]:
            raise TextError(f"{', '.join(plan['sources'])}: no document has a token, expected text")
    elif not all(sequences.values()):
        raise TextError(
            f"{', '.join(plan['sources'])}: {sum(documents.values())} documents make "
            f"{sequences['train']} training and "
            f"{sequences['validation']} validation sequences, expected some of each: more text or "
            "other "
            "data.validation (in a .txt file documents are separated by blank lines)"
        )
    record_format = RecordFormat.smallest(length, tokenizer.vocab_size)
    return Manifest(
        version=plan["version"],
        length=length,
        vocab_size=tokenizer.vocab_size,
        special=tokenizer.named,
        special_ids=tokenizer.special_ids,
        token_dtype=record_format.token_dtype,
        segment_dtype=record_format.segment_dtype,
        tokenizer_sha256=tokenizer.sha256,
        sources=plan["sources"],
        settings=plan["settings"],
        documents=documents,
        sequences=sequences,
        tokens=tokens,
        text_tokens=total(part.text_tokens for part in parts),
        fill={split: tokens[split] / max(sequences[split] * length, 1) for split in SPLITS},
        shards=shards,
    ).signed()
