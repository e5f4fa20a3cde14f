"""The snapshots of a run: its student as it was when it had seen so many words."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdjax.budget.ledger import Ledger
from kdjax.config import Config
from kdjax.data.corpus import Corpus
from kdjax.data.manifest import Manifest
from kdjax.errors import InputError, counted
from kdjax.storage.files import write_json
from kdjax.storage.typed_json import read_typed, stored_as, to_plain
from kdjax.study.runs.run_backup import RunBackup
from kdjax.training.checksum import sha256
from kdjax.training.params_file import save_params
from kdjax.training.snapshots import Snapshots

FOLDER = "snapshots"
"""Folder of a run that holds its snapshots, a folder each."""
FACTS = "snapshot.json"
"""File of a snapshot's facts, written last: a folder that has it is whole."""
PARAMS = "params.safetensors"
PREFIX = "chck_"
"""Begins the names of snapshots, as BabyLM's evaluation has them."""
_UNITS = ((10**6, "M"), (10**3, "K"))


@dataclass(frozen=True)
class Snapshot:
    """A student on its way: the content of snapshot.json.

    Attributes:
        name: name of the snapshot, such as chck_1M.
        words: number of words at which it was to be kept.
        words_seen: words that the run had seen at that step, at least as many.
        steps: optimiser steps done.
        padded_tokens: batch x length, summed over the steps.
        tokens_seen: tokens seen, padding not counted.
        tokens_unique: tokens seen for the first time.
        spent: FLOPs by account; `total` sums them, `charged` is the part that the budget pays.
        params_sha256: SHA-256 of the parameters.
    """

    name: str
    words: int
    words_seen: int
    steps: int
    padded_tokens: int = field(metadata=stored_as("positions"))
    tokens_seen: int
    tokens_unique: int
    spent: dict[str, int]
    params_sha256: str


def snapshot_name(words: int) -> str:
    """Return the name of the snapshot at so many words: in millions or thousands where that is a
    whole number."""
    for size, unit in _UNITS:
        if words % size == 0:
            return f"{PREFIX}{words // size}{unit}"
    return f"{PREFIX}{words}"


def kept_snapshots(run_dir: Path) -> dict[str, Snapshot]:
    """Read the snapshots of a run, by name, those of few words first.

    Args:
        run_dir: the run's directory.

    Raises:
        InputError: one of their files is not whole.
    """
    paths = (run_dir / FOLDER).glob(f"*/{FACTS}")
    snapshots = [read_typed(Snapshot, path) for path in paths]
    snapshots.sort(key=lambda snapshot: snapshot.words)
    return {snapshot.name: snapshot for snapshot in snapshots}


def run_snapshots(
    config: Config, manifest: Manifest, run_dir: Path, backup: RunBackup
) -> Snapshots | None:
    """Return the snapshots that a run's student is kept at; None: it is kept at its end alone.

    Args:
        config: recipe of the run.
        manifest: manifest of its text, which has counts of words.
        run_dir: the run's directory.
        backup: place of its files besides its directory.
    """
    words = config.train.checkpoint.words_of_snapshots
    if not words:
        return None
    words_in = functools.partial(_words_in, manifest)

    def keep(words: int, params: Any, ledger: Ledger) -> None:
        # What a run did before a kill it does again, bit for bit: the first snapshot stays.
        folder = f"{FOLDER}/{snapshot_name(words)}"
        if not (run_dir / folder / FACTS).exists():
            facts = _facts(words, words_in(ledger.tokens), params, ledger)
            save_params(run_dir / folder / PARAMS, params)
            write_json(run_dir / folder / FACTS, to_plain(facts))
        backup.upload_folder(folder, FACTS)

    return Snapshots(words, words_in, keep)


def _words_in(manifest: Manifest, tokens: int) -> int:
    """Return the number of words that some tokens are, of a text whose words are counted."""
    return manifest.words_in(tokens) or 0


def _facts(words: int, words_seen: int, params: Any, ledger: Ledger) -> Snapshot:
    """Return the facts of a snapshot."""
    return Snapshot(
        name=snapshot_name(words),
        words=words,
        words_seen=words_seen,
        steps=ledger.steps,
        padded_tokens=ledger.padded_tokens,
        tokens_seen=ledger.tokens,
        tokens_unique=ledger.unique_tokens,
        spent={
            **ledger.spent,
            "total": sum(ledger.spent.values()),
            "charged": ledger.charged_flops,
        },
        params_sha256=sha256(params),
    )


def check_snapshots(config: Config, corpus: Corpus) -> None:
    """Check that the words of a recipe's snapshots can be counted.

    Raises:
        InputError: the text has no count of words.
    """
    if config.train.checkpoint.words_of_snapshots and corpus.manifest.words_in(0) is None:
        raise InputError(
            f"train.checkpoint.keep_at_words: {corpus.directory} has no count of words, expected "
            "text that this version of kdjax prepared"
        )


def unreached_line(words: Sequence[int], seen: int | None, *, about: bool = False) -> str | None:
    """Return a line on the snapshots that a run's budget does not reach; None: it reaches all.

    Args:
        words: numbers of words at which the student is to be kept.
        seen: words that the run sees in all; None: they are not known.
        about: whether that number is an estimate.
    """
    if seen is None:
        return None
    missing = [number for number in words if number > seen]
    if not missing:
        return None
    names = snapshot_name(missing[0])
    if len(missing) > 1:
        names += f" to {snapshot_name(missing[-1])}"
    of_all = f"{len(missing)} of {counted(len(words), 'snapshot')}"
    amount = f"about {seen:,}" if about else f"{seen:,}"
    return f"its budget ends at {amount} words, before {of_all} ({names})"


def passed_line(run_dir: Path, words: Sequence[int], seen: int | None) -> str | None:
    """Return a line on the snapshots that a run passed and did not keep; None: there are none.

    It kept those that the recipe named when the run passed them.

    Args:
        run_dir: the run's directory.
        words: numbers of words at which the student is to be kept.
        seen: words that the run saw in all; None: they are not known.
    """
    names = []
    for number in words:
        folder = run_dir / FOLDER / snapshot_name(number)
        if seen is not None and number <= seen and not (folder / FACTS).exists():
            names.append(folder.name)
    if not names:
        return None
    return f"it passed {', '.join(names)} before train.checkpoint.keep_at_words named them"
