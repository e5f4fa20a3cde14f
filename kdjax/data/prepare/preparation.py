"""Preparing a corpus: what of, into which directory, and the manifest of the result; the same for
every way to prepare."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.config import DataConfig, TokenizerConfig
from kdjax.config.data import LATER_SETTINGS
from kdjax.data.manifest import NAME, SPLITS, VERSION, Manifest, TeacherTokens, total
from kdjax.data.prepare.blocks import BlockSettings, FinishedBlock, TeacherText
from kdjax.data.prepare.packing import RecordFormat
from kdjax.data.shards import SHARDS, lock_shards
from kdjax.data.text_figures import TextFigures, check_unknown
from kdjax.errors import InputError, counted
from kdjax.storage.files import entries, read_json, write_json, write_text
from kdjax.storage.typed_json import check_fields
from kdjax.text import sources
from kdjax.text.document import ReadSettings
from kdjax.text.reading_notes import ReadingNotes
from kdjax.text.repeats import RepeatFinder
from kdjax.text.source_kinds import Source
from kdjax.text.streams import TextError, sha256
from kdjax.tokenizers import tokenizer_training
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from kdjax.tokenizers.tokenizer_files import locate_tokenizer

PLAN = "preparation.json"
"""File that says what the directory is prepared from; written first, so that a restart can tell
whether it may go on."""
TOKENIZER = "tokenizer.json"
"""The corpus's own tokenizer, where it was trained on this text."""
TEACHER = "teacher"
"""Key of a plan's settings under which a teacher's own tokenizer is."""
SCAN = ".preparation-scan"
"""Where a pipeline of several machines keeps its counts of the sources; gone when it is done."""


@dataclass(frozen=True)
class Preparation:
    """A corpus to be prepared.

    Attributes:
        sources: sources of its text, in the order in which they are read.
        reading: how documents are found in the sources.
        validation: share of documents held out; 1: all of them.
        max_documents: the most documents of a block.
        tokenizer: the tokenizer; None: one is trained first, see `with_tokenizer`.
        blocks: settings of every block.
        config: the settings that all of this comes from.
        teacher_tokenizer: the tokenizer of a teacher with a vocabulary of its own; None: it reads
            the student's tokens.
    """

    sources: tuple[Source, ...]
    reading: ReadSettings
    validation: float
    max_documents: int
    tokenizer: TextTokenizer | None
    blocks: BlockSettings
    config: DataConfig
    teacher_tokenizer: TextTokenizer | None = None

    @classmethod
    def from_config(
        cls, config: DataConfig, tokenizer: Path | None, out: Path, *, held_out: bool = False
    ) -> Preparation:
        """Find the text and the tokenizer that the settings ask for.

        Args:
            config: files of the text, and how they are split into sequences.
            tokenizer: a tokenizer.json; None: the one that is trained as `data.tokenizer` says.
            out: directory that the corpus is written to.
            held_out: whether all of the text is held out: the training split is then empty.

        Raises:
            InputError: no text is there, it is of a kind that cannot be read here, or the tokenizer
                is unusable.
        """
        expanded = tuple(sources.expand(config.files))
        # Where a tokenizer is still to be trained, it will lie in the corpus's directory.
        read = None
        digest = ""
        if tokenizer is not None:
            read = TextTokenizer.read(tokenizer)
            digest = read.sha256
        # A document is held out where its fraction, below 1, is below this share.
        validation = 1.0 if held_out else config.validation
        teacher = None
        teacher_tokenizer = None
        if config.teacher_tokenizer:
            path = locate_tokenizer(config.teacher_tokenizer)
            teacher_tokenizer = TextTokenizer.read(path)
            teacher = TeacherText(path, teacher_tokenizer.sha256, config.own_seq_len)
        blocks = BlockSettings(
            out,
            tokenizer or out / TOKENIZER,
            digest,
            config.seq_len,
            packs=config.packing == "best_fit",
            teacher=teacher,
        )
        return cls(
            expanded,
            ReadSettings.from_config(config),
            validation,
            config.shard_documents,
            read,
            blocks,
            config,
            teacher_tokenizer,
        )

    @property
    def out(self) -> Path:
        """Return the corpus's directory."""
        return self.blocks.directory

    def plan(self, digests: Sequence[str]) -> dict[str, Any]:
        """Return the settings and digests that the result depends on, given those of the sources.

        A tokenizer that is still to be trained has no digest; its settings stand for it.
        """
        # The names are keys of stored plans, and corpora keep the names they began with.
        settings: dict[str, Any] = {
            "length": self.blocks.length,
            "validation": self.validation,
            "shard_documents": self.max_documents,
            "text_field": list(self.reading.text_fields),
        }
        # Settings that came later are written where they are not the default: a corpus that does
        # not need them has the plan, and the digest, that it always had.
        for name, default in LATER_SETTINGS.items():
            value = getattr(self.config, name)
            if value != default:
                settings[name] = value
        if isinstance(self.config.tokenizer, TokenizerConfig):
            settings["tokenizer"] = dataclasses.asdict(self.config.tokenizer)
        if self.teacher_tokenizer is not None:
            settings[TEACHER] = {
                "tokenizer_sha256": self.teacher_tokenizer.sha256,
                "special": dataclasses.asdict(self.teacher_tokenizer.special),
                "seq_len": self.config.own_seq_len,
            }
        # One that is still to be trained is not known yet.
        tokenizer_sha256 = None
        special = None
        if self.tokenizer is not None:
            tokenizer_sha256 = self.tokenizer.sha256
            special = dataclasses.asdict(self.tokenizer.special)
        return {
            "version": VERSION,
            "tokenizer_sha256": tokenizer_sha256,
            "special": special,
            "sources": dict(zip(map(str, self.sources), digests, strict=True)),
            "settings": settings,
        }

    def with_tokenizer(self) -> Preparation:
        """Add the tokenizer: the given one, or the one trained on this text, now or before.

        A trained one lies in the corpus's directory, and its digest in the plan there, before any
        block is made.

        Raises:
            TextError: unusable text, or too little for so many entries.
            InputError: the directory's blocks were made with another tokenizer, which is gone.
        """
        if self.tokenizer is not None:
            return self
        path = self.out / TOKENIZER
        plan = check_fields(
            read_json(self.out / PLAN), {"tokenizer_sha256": str | None}, f"{self.out / PLAN}:"
        )
        expected = plan["tokenizer_sha256"]
        if expected is None or not path.is_file() or sha256(path) != expected:
            write_text(path, tokenizer_training.train_on_corpus(self.config).json)
        tokenizer = TextTokenizer.read(path)
        if expected is None:
            write_json(self.out / PLAN, {**plan, "tokenizer_sha256": tokenizer.sha256})
        elif tokenizer.sha256 != expected:
            raise InputError(
                f"{path}: trained again, it has the digest {tokenizer.sha256[:12]}, expected "
                f"{expected[:12]}, which the text here was prepared with; expected that file, or a "
                "new directory"
            )
        blocks = dataclasses.replace(self.blocks, tokenizer_sha256=tokenizer.sha256)
        return dataclasses.replace(self, tokenizer=tokenizer, blocks=blocks)

    def finished_manifest(self) -> Manifest | None:
        """Return the manifest if everything it lists is there and whole, else None."""
        if not (self.out / NAME).exists():
            return None
        written = Manifest.read(self.out)
        if not all(shard.intact(self.out) for shard in written.shards):
            return None
        return written

    def finish(
        self,
        plan: Mapping[str, Any],
        blocks: Sequence[FinishedBlock],
        notes: ReadingNotes,
        repeats: RepeatFinder,
    ) -> Manifest:
        """Write the manifest of all blocks, in their order.

        Args:
            plan: what the corpus is prepared from.
            blocks: records of all blocks.
            notes: what was come upon in the sources, all of them read.
            repeats: what repeated among their documents.

        Raises:
            TextError: a split is empty, or has nothing to learn.
        """
        if self.tokenizer is None:
            raise ValueError("has no tokenizer yet, expected with_tokenizer() before")
        text = TextFigures(
            words=total(block.words for block in blocks),
            characters=total(block.characters for block in blocks),
            unknown=total(block.unknown for block in blocks),
            unusable=dict(sorted(notes.unusable.items())),
            layouts=dict(sorted(notes.layouts.items())),
            repeated=repeats.repeated,
            moved=repeats.moved,
            removed=repeats.removed,
            same_identity=repeats.same_identity,
        )
        signed = _manifest(plan, self.tokenizer, blocks, text, self._teacher_tokens(blocks))
        check_unknown(signed.unknown, ", ".join(plan["sources"]))
        signed.write(self.out)
        return signed

    def _teacher_tokens(self, blocks: Sequence[FinishedBlock]) -> TeacherTokens | None:
        """Add up a teacher's own tokens over the blocks; None where it has none."""
        tokenizer = self.teacher_tokenizer
        if tokenizer is None:
            return None
        length = self.config.own_seq_len
        record_format = RecordFormat.smallest(length, tokenizer.vocab_size)
        return TeacherTokens(
            length=length,
            vocab_size=tokenizer.vocab_size,
            special=tokenizer.special,
            token_dtype=record_format.token_dtype,
            segment_dtype=record_format.segment_dtype,
            tokenizer_sha256=tokenizer.sha256,
            text_tokens=total(block.teacher_tokens for block in blocks),
            unknown=total(block.teacher_unknown for block in blocks),
            words=total(block.aligned_words for block in blocks),
            left_out=total(block.left_out for block in blocks),
        )


@contextlib.contextmanager
def preparing(out: Path) -> Iterator[None]:
    """Lock a directory in the block, and clear it again if the text turns out to be unusable.

    Args:
        out: directory of the corpus; it is made where it is not there.

    Raises:
        InputError: it cannot be made, or another process holds it.
    """
    with lock_shards(out, PLAN):
        try:
            yield
        except TextError:
            for directory in (SHARDS, SCAN):
                shutil.rmtree(out / directory, ignore_errors=True)
            for name in (PLAN, NAME, TOKENIZER):
                (out / name).unlink(missing_ok=True)
            raise


def check_ours(out: Path) -> None:
    """Check that a directory can be a corpus's: it is empty, or holds one or the beginnings of one.

    Args:
        out: the directory.

    Raises:
        InputError: it holds something else.
    """
    if not (out / PLAN).exists() and any(entry.name != SCAN for entry in entries(out)):
        raise InputError(
            f"{out}: is not empty and holds no prepared corpus, expected a new or empty directory"
        )


def check_plan(out: Path, plan: Mapping[str, Any]) -> None:
    """Write the plan into a new directory, or check that the directory was begun with the same one.

    Args:
        out: directory of the corpus.
        plan: what the corpus is made of and how, as JSON holds it.

    Raises:
        InputError: the directory was begun with another plan, or holds something else.
    """
    check_ours(out)
    path = out / PLAN
    if not path.exists():
        write_json(path, plan)
        return
    kinds = {"sources": dict[str, str], "version": int, "settings": dict[str, Any]}
    begun = check_fields(read_json(path), kinds, f"{path}:")

    # The same text may lie elsewhere now.
    if list(begun["sources"].values()) != list(plan["sources"].values()):
        raise InputError(
            f"{out}: was prepared from other text than {', '.join(plan['sources'])}, expected a "
            "new directory"
        )
    identity = {name: plan[name] for name in ("version", "tokenizer_sha256")}
    # A tokenizer that is trained has no digest before: its settings are compared.
    if plan["tokenizer_sha256"] is None:
        del identity["tokenizer_sha256"]
    for name, value in identity.items():
        if begun.get(name) != value:
            raise InputError(
                f"{out}: was prepared with {name} {begun.get(name)}, expected {value} or a new "
                "directory"
            )
    # A plan without settings of a tokenizer was begun with a file.
    absent = {"tokenizer": "a file that was given", **LATER_SETTINGS}
    absent_now = {**LATER_SETTINGS, TEACHER: None}
    for name, value in {**absent_now, **plan["settings"]}.items():
        before = begun["settings"].get(name, absent.get(name))
        if before != value:
            setting = {"length": "seq_len", TEACHER: "teacher_tokenizer"}.get(name, name)
            raise InputError(
                f"{out}: was prepared with data.{setting} {before}, expected {value} or a new "
                "directory"
            )
    # Files beside a tokenizer.json say which tokens frame a text; earlier versions read none.
    if begun.get("special", plan["special"]) != plan["special"]:
        raise InputError(
            f"{out}: was prepared with the special tokens {begun['special']}, expected "
            f"{plan['special']} as the tokenizer's files say now, or a new directory"
        )


def _manifest(
    plan: Mapping[str, Any],
    tokenizer: TextTokenizer,
    blocks: Sequence[FinishedBlock],
    text: TextFigures,
    teacher: TeacherTokens | None,
) -> Manifest:
    """Add up the blocks.

    Raises:
        TextError: a split is empty.
    """
    # Sequences are numbered split by split, in the order of the blocks.
    by_block = itertools.chain.from_iterable(block.shards for block in blocks)
    shards = sorted(by_block, key=lambda shard: SPLITS.index(shard.split))
    sequences = dict.fromkeys(SPLITS, 0)
    for shard in shards:
        sequences[shard.split] += shard.sequences
    documents = total(block.documents for block in blocks)
    tokens = total(block.tokens for block in blocks)
    length = plan["settings"]["length"]

    # All text may be held out on purpose; else both splits need some.
    names = ", ".join(plan["sources"])
    if plan["settings"]["validation"] == 1 and not sequences["validation"]:
        raise TextError(f"{names}: no document has a token, expected text")
    if plan["settings"]["validation"] != 1 and not all(sequences.values()):
        hints = "; ".join(text.warnings(sum(documents.values())))
        raise TextError(
            f"{names}: {counted(sum(documents.values()), 'document')} give "
            f"{sequences['train']:,} training and "
            f"{counted(sequences['validation'], 'validation sequence')}, expected some of each: "
            f"more text or other data.validation{hints and f' ({hints})'}"
        )
    record_format = RecordFormat.smallest(length, tokenizer.vocab_size)
    boundaries = tokenizer.word_boundaries()
    return Manifest(
        version=plan["version"],
        length=length,
        vocab_size=tokenizer.vocab_size,
        special=tokenizer.special,
        special_ids=tokenizer.special_ids,
        token_dtype=record_format.token_dtype,
        segment_dtype=record_format.segment_dtype,
        tokenizer_sha256=tokenizer.sha256,
        sources=plan["sources"],
        settings=plan["settings"],
        documents=documents,
        sequences=sequences,
        tokens=tokens,
        text_tokens=total(block.text_tokens for block in blocks),
        fill={split: tokens[split] / max(sequences[split] * length, 1) for split in SPLITS},
        shards=tuple(shards),
        text=text,
        word_boundaries=boundaries.to_json() if boundaries else {},
        teacher=teacher,
    ).signed()
