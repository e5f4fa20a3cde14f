"""A run's directory, held against its study: manifest, journal, result, metrics and parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from safetensors.numpy import load_file

from kdjax.audit.book import NOTHING, Book, among
from kdjax.audit.counts import Counts
from kdjax.budget import journal
from kdjax.budget.accounting import ACCOUNTS, Budget
from kdjax.budget.hardware import Peak, utilisation
from kdjax.budget.ledger import Ledger, PhaseSpan
from kdjax.budget.price import PARTS
from kdjax.config import plain, to_dict
from kdjax.data.corpus import Corpus
from kdjax.study.manifest import Cost
from kdjax.teacher_cache.manifest import CacheManifest
from kdjax.training.arm import Arm
from kdjax.training.checksum import sha256
from kdjax.training.metrics_log import CURVE
from kdjax.training.phase import BatchShape


class AuditedStudy(Protocol):
    """What the audit of a run asks of its study (`kdjax.audit.study.StudyAudit`)."""

    @property
    def costs(self) -> Mapping[str, Cost]:
        """What a run of each arm costs."""

    @property
    def budget(self) -> Budget:
        """Of a run."""

    @property
    def shape(self) -> BatchShape:
        """Of a batch."""

    @property
    def corpus(self) -> Corpus | None:
        """The text; None where it is not there any more."""

    @property
    def cache(self) -> CacheManifest | None:
        """The stored teacher outputs; None where there are none."""

    @property
    def sequences(self) -> int:
        """Of the training split."""

    def facts_for(self, seed: int) -> Any:
        """Return what the study says of the teacher of a seed."""

    def run_config(self) -> dict[str, Any]:
        """Return the part of the recipe that all runs share."""

    def counts(self, seed: int) -> Counts | None:
        """Return the tokens of the text in a seed's order; None where the text is not there."""


class RunAudit:
    """A run's directory, held against its study.

    Attributes:
        entries: how many its ledger has.
        result: the content of result.json.
    """

    def __init__(self, study: AuditedStudy, arm: Arm, seed: int, directory: Path, book: Book):
        self._study = study
        self._arm = arm
        self._seed = seed
        self._directory = directory
        self._book = book
        self._cost = study.costs[arm.name]
        self._budget = study.budget
        self._shapes = [phase.shape(study.shape) for phase in arm.phases]
        self._stretches: tuple[PhaseSpan, ...] = ()
        if self._budget.countable:
            self._stretches = arm.schedule_phases(
                self._budget, self._cost.prices, study.shape, self._cost.upfront
            )
        self.entries = 0
        self.result: dict[str, Any] = {}

    def audit(self) -> None:
        """All of it."""
        book = self._book
        directory = self._directory
        if not directory.is_dir():
            book.add(directory, "no run", "one for every arm and seed of the recipe")
            return
        self.result = book.read(directory / "result.json")
        with book.reading(directory / "manifest.json"):
            self._manifest(directory / "manifest.json")
        path = directory / journal.NAME
        with book.reading(path):
            entries = journal.read(path)
            self.entries = len(entries)
            ledger = self._ledgers(path, entries)
            if self.result:
                with book.reading(directory / "result.json"):
                    self._result(directory / "result.json", ledger, entries[-1])
        if self.result:
            with book.reading(directory / "metrics.jsonl"):
                self._metrics(directory / "metrics.jsonl")
        path = directory / "params.safetensors"
        with book.reading(path):
            book.same(
                path,
                sha256(_tree(load_file(path))),
                self.result.get("params_sha256", NOTHING),
                "SHA-256",
            )

    def _manifest(self, path: Path) -> None:
        """Whose the run is."""
        study = self._study
        manifest = self._book.read(path)
        if not manifest:
            return
        expected = {
            "arm": self._arm.name,
            "seed": self._seed,
            "arm_settings": plain(to_dict(self._arm.config)),
            "cost": self._cost.to_json(),
            "budget": plain(asdict(self._budget)),
            "teacher": study.facts_for(self._seed) if self._arm.needs_teacher else None,
            "config": study.run_config(),
            **({"corpus": study.corpus.digest} if study.corpus else {}),
        }
        found = {name: manifest.get(name, NOTHING) for name in expected}
        self._book.same(
            path, {**found, "config": among(found["config"], expected["config"])}, expected
        )

    def _account(self, phases: Sequence[int]) -> dict[str, Any]:
        """What a ledger has to say after so many steps of each phase."""
        steps = sum(phases)
        counts = self._study.counts(self._seed)
        sequences = sum(
            done * shape.batch_size for done, shape in zip(phases, self._shapes, strict=True)
        )
        spent = {account: self._cost.upfront.get(account, 0) for account in ACCOUNTS}
        for done, price_of in zip(phases, self._cost.prices, strict=True):
            for part, flops in price_of.parts().items():
                spent[part] += done * flops
        made = {
            "budget": plain(asdict(self._budget)),
            "spent": spent,
            "phases": self._phases(steps) or list(phases),
            "positions": sequences * self._study.shape.seq_len,
        }
        if not self._arm.stored:
            made["cache_bytes"] = 0
        elif self._study.cache:
            made["cache_bytes"] = self._study.cache.bytes
        if counts and (not self._stretches or steps <= self._stretches[-1].stop):
            made |= counts.at(sequences)
        return made

    def _phases(self, steps: int) -> list[int]:
        """How many of so many steps are of each phase; empty where a clock decides."""
        return [min(max(steps - span.first, 0), span.steps) for span in self._stretches]

    def _ledgers(self, path: Path, entries: Sequence[Mapping[str, Any]]) -> Ledger:
        """Every entry of the journal; returns the account at its end, as far as it can be worked
        out so."""
        book = self._book
        expected = {}
        before: list[dict[str, Any]] = []
        opening = {
            "prices": [one.to_json() for one in self._cost.prices],
            "positions": [shape.tokens_per_step for shape in self._shapes],
        }
        book.same(path, {name: entries[0].get(name) for name in opening}, opening, "entry 0")
        for number, entry in enumerate(entries):
            found = entry["ledger"]
            expected = self._account(found["phases"])
            book.same(
                path, {name: found[name] for name in expected}, expected, f"entry {number}: ledger"
            )
            if entry["event"] == "restart" and found not in before:
                book.add(
                    f"{path}: entry {number}",
                    "a restart from an account of its own",
                    "one of an entry before",
                )
            elif entry["event"] != "restart" and before and not _follows(before[-1], found):
                book.add(
                    f"{path}: entry {number}",
                    "less than in the entry before",
                    "no less, but for restarts",
                )
            before.append(found)
        book.same(
            path,
            [entries[0]["event"], entries[-1]["event"]],
            ["open", "close"],
            "first and last event",
        )
        ledger = Ledger.from_json({**before[-1], **expected})
        end = [span.steps for span in self._stretches]
        if end:
            book.same(
                path,
                before[-1]["phases"],
                end,
                f"entry {len(entries) - 1}: ledger.phases at the end",
            )
        elif (used := _before_last_step(ledger)) > self._budget.amount:
            book.add(path, f"{used} hours before the last step", f"at most {self._budget.amount}")
        return ledger

    def _result(self, path: Path, ledger: Ledger, closing: Mapping[str, Any]) -> None:
        """The run's result against its account."""
        result, hardware = self.result, self.result["hardware"]
        phases = zip(ledger.phases, self._shapes, self._cost.prices, strict=True)
        expected = {
            "arm": self._arm.name,
            "seed": self._seed,
            "budget": plain(asdict(self._budget)),
            "used": ledger.used,
            "spent": {**ledger.spent, "total": sum(ledger.spent.values()), "charged": ledger.total},
            "cache_bytes": ledger.cache_bytes,
            "steps": ledger.steps,
            "phases": [
                {"steps": n, "batch": shape.batch_size, "flops": n * cost.total}
                for n, shape, cost in phases
            ],
            "positions": ledger.positions,
            "tokens_seen": ledger.tokens,
            "tokens_unique": ledger.unique_tokens,
            "tokens_masked": ledger.masked_tokens,
            "epochs": ledger.positions / self._study.shape.seq_len / self._study.sequences,
            # The evaluation at the end comes after the ledger is closed.
            "wall_clock": {**ledger.seconds, "evaluation": result["wall_clock"]["evaluation"]},
            "params_sha256": closing["params_sha256"],
            "ledger_sha256": closing["sha256"],
        }
        self._book.same(path, {name: result.get(name, NOTHING) for name in expected}, expected)
        model = sum(ledger.spent[part] for part in PARTS)
        seconds = ledger.seconds["compute"]
        expected = {"model_flops": model}
        for kind, flops in (("model", model), ("hardware", hardware["hardware_flops"])):
            if flops:
                share_of_peak = utilisation(
                    flops, seconds, Peak(**hardware["peak"]), hardware["devices"]
                )
                expected[f"{kind}_utilisation"] = share_of_peak
        self._book.same(
            path, {name: hardware.get(name, NOTHING) for name in expected}, expected, "hardware"
        )

    def _metrics(self, path: Path) -> None:
        """The figures written on the way: FLOPs by their step, and the curve that the result has of
        them."""
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        curve = [line for line in lines if any(name in line for name in CURVE)]
        self._book.same(path.with_name("result.json"), self.result.get("curve"), curve, "curve")
        for line in lines if self._stretches else ():
            flops = self._budget.charges(self._account(self._phases(line["step"]))["spent"])
            self._book.same(path, line["flops"], flops, f"step {line['step']}: flops")


def _tree(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by their dotted paths, as the tree they were."""
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *branches, leaf = name.split(".")
        below = tree
        for branch in branches:
            below = below.setdefault(branch, {})
        below[leaf] = tensor
    return tree


def _follows(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether nothing on a ledger is less than it was."""
    counts = ("positions", "tokens", "unique_tokens", "masked_tokens")
    pairs = [(before[name], after[name]) for name in counts]
    pairs += [
        (seconds, after["seconds"].get(kind, -1.0)) for kind, seconds in before["seconds"].items()
    ]
    return all(a <= b for a, b in pairs)


def _before_last_step(ledger: Ledger) -> float:
    """Hours that the clock showed, at least, when the last step began; what came after it may have
    taken longer."""
    kinds = [kind for kind in ledger.budget.clock if kind not in ("evaluation", "checkpoint")]
    return (sum(ledger.seconds.get(kind, 0.0) for kind in kinds) - ledger.step_seconds) / 3600
