"""`kdjax audit DIR`: every price and every sum of a study worked out anew, and held against what its files say.

Nothing is trained and nothing is written. From the recipe follow the prices; from prices and steps what a run has
spent; from budget and prices its steps; from the text its tokens; from the runs' figures the verdicts. What was
measured is taken as the run wrote it down.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
from safetensors.numpy import load_file

import kdjax
from kdjax.budget import journal
from kdjax.budget.accounting import ACCOUNTS, Budget
from kdjax.budget.hardware import Peak, utilisation
from kdjax.budget.ledger import Ledger, Stretch, lay_out
from kdjax.budget.price import PARTS
from kdjax.config import Config, plain, to_dict
from kdjax.data import sources
from kdjax.data.cache import CacheManifest
from kdjax.data.corpus import Corpus
from kdjax.data.loader import Batches
from kdjax.data.manifest import Manifest, Shard
from kdjax.errors import InputError
from kdjax.files import digest, read_json
from kdjax.models import zoo
from kdjax.recipes import from_dict
from kdjax.study import record, sweep, sweep_results
from kdjax.study.corpus import regime_of, train_batches
from kdjax.study.machine import versions
from kdjax.study.places import places
from kdjax.study.pricing import arms_of, cache_flops, shape_of, share, sharing, stored_by
from kdjax.study.record import Cost
from kdjax.study.results import corpus_facts, judged
from kdjax.study.teacher import CARD
from kdjax.train.arm import Arm
from kdjax.train.checkpoint import sha256
from kdjax.train.phase import Shape, price
from kdjax.train.teacher import head_phase

RESULTS = "results.json"
CLOSE = 1e-9
"""Relative difference up to which real numbers are the same: another library may round the last digits otherwise."""
NOTHING = "nothing"
WRITTEN = "the file as kdjax wrote it"


@dataclass(frozen=True)
class Difference:
    """Something that a study's files say and that does not follow.

    Attributes:
        where: the file, and what in it.
        found: what is there.
        expected: what follows from the recipe, the prices, the text or the other files.
    """

    where: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}, expected {self.expected}"


def audit(directory: Path) -> list[Difference]:
    """All that does not fit together in the directory of a study or a sweep; empty: nothing.

    Raises:
        InputError: the directory holds neither.
    """
    return _audited(directory).differences


def audit_command(directory: Path) -> None:
    """The `audit` command: what was worked out anew, a line a study, and a line for every difference.

    Raises:
        InputError: there are differences, or nothing to audit.
    """
    book = _audited(directory)
    for line in (*book.lines, *book.differences):
        print(line)
    if book.differences:
        raise InputError(f"{directory}: found {len(book.differences)} difference(s), expected none")


def _audited(directory: Path) -> _Book:
    book = _Book()
    if any((directory / name).exists() for name in (sweep.NAME, sweep.RECIPE, "cells")):
        _sweep(directory, book)
    elif any((directory / name).exists() for name in (record.NAME, RESULTS, "runs")):
        _Study(directory, None, book).audit()
    else:
        raise InputError(f"{directory}: holds no study, expected the directory of kdjax compare or kdjax sweep")
    return book


def _sweep(directory: Path, book: _Book) -> None:
    """Every cell, and what the sweep makes of them."""
    path, found = directory / sweep.NAME, {}
    for cell in sorted((directory / "cells").glob("*/")):
        found[cell.name] = _Study(cell, directory / "shared", book).audit()
    if told := book.read(path):
        with book.reading(path):
            config = from_dict(plain(told["config"]))
            cells = sweep.cells_of(config)
            made = sweep_results.collect(config, cells, [found[cell.name] for cell in cells])
            book.same(path, _without_versions(told), plain(_without_versions(made)))
    book.lines.append(f"{directory}: worked out again: what the sweep makes of its studies, {len(found)}")


class _Book:
    """What an audit finds.

    Attributes:
        differences: in the order they were found, each once.
        lines: what was worked out anew.
        counts: tokens counted, by corpus, seed and batch.
    """

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.lines: list[str] = []
        self.counts: dict[Any, _Counts] = {}
        self._hashed: dict[Path, bool] = {}

    def add(self, where: object, found: object, expected: object) -> None:
        """A difference, unless it is known; studies of a sweep share files."""
        made = Difference(str(where), str(found), str(expected))
        if made not in self.differences:
            self.differences.append(made)

    def same(self, where: object, found: Any, expected: Any, name: str = "", note: str = "") -> None:
        """Holds one tree of plain values against another; a difference for every leaf that is another.

        Args:
            where: the file.
            found: what is there.
            expected: what should be.
            name: of the tree in the file, dotted.
            note: what else is to be said of an expected value.
        """
        if isinstance(found, list) and isinstance(expected, list):
            found, expected = dict(enumerate(found)), dict(enumerate(expected))
        if isinstance(found, dict) and isinstance(expected, dict):
            for key in [*expected, *(key for key in found if key not in expected)]:
                pair = found.get(key, NOTHING), expected.get(key, NOTHING)
                self.same(where, *pair, f"{name}.{key}" if name else str(key), note)
        elif not _equal(found, expected):
            self.add(f"{where}: {name}" if name else where, found, f"{expected}{note}")

    @contextmanager
    def reading(self, where: Path) -> Iterator[None]:
        """What goes wrong in the block is a difference: there is no end to what a mangled file can cause."""
        try:
            yield
        except InputError as e:
            place, _, text = str(e).partition(": ")
            found, _, expected = (text if place.startswith(str(where)) else str(e)).partition(", expected ")
            self.add(place if place.startswith(str(where)) else where, found, expected or WRITTEN)
        except Exception as e:
            self.add(where, f"{type(e).__name__}: {e}", WRITTEN)

    def read(self, path: Path) -> dict[str, Any]:
        """A JSON object; empty where there is none, which is a difference."""
        try:
            value = read_json(path)
        except InputError:
            self.add(path, "no JSON" if path.exists() else "no file", WRITTEN)
            return {}
        if isinstance(value, dict):
            return value
        self.add(path, f"JSON that is no object: {value!r:.40}", WRITTEN)
        return {}

    def intact(self, directory: Path, shards: Sequence[Shard]) -> bool:
        """Whether all shards have the bytes of the manifest."""
        for shard in shards:
            path = directory / shard.file
            if path not in self._hashed:
                self._hashed[path] = shard.intact(directory)
            if not self._hashed[path]:
                self.add(path, "other bytes", f"{shard.bytes} bytes of SHA-256 {shard.sha256}")
        return all(self._hashed[directory / shard.file] for shard in shards)


class _Counts:
    """Tokens that the first steps of a seed see, counted from the text as far as asked."""

    def __init__(self, batches: Batches):
        self._batches = batches
        self._sums = [(0, 0, 0)]

    def at(self, steps: int) -> dict[str, int]:
        """Tokens seen, seen for the first time, and masked in so many steps."""
        for step in range(len(self._sums) - 1, steps):
            batch = self._batches[step]
            held = batch["valid"].sum(axis=1)
            fresh = max(0, self._batches.sequences - step * len(held))  # text repeats only after all of it was seen
            more = held.sum(), held[:fresh].sum(), (batch["label_weights"] > 0).sum()
            seen, unique, masked = (int(a + b) for a, b in zip(self._sums[-1], more, strict=True))
            self._sums.append((seen, unique, masked))
        return dict(zip(("tokens", "unique_tokens", "masked_tokens"), self._sums[steps], strict=True))


class _Study:
    """A study's directory, held against its recipe."""

    config: Config
    arms: dict[str, Arm]
    places: dict[str, Path]
    shape: Shape
    budget: Budget

    def __init__(self, out: Path, shared: Path | None, book: _Book):
        self._out, self._shared, self._book = out, shared, book
        self.corpus: Corpus | None = None
        self.cache: CacheManifest | None = None
        self.costs: dict[str, Cost] = {}
        self._prices = 0

    def audit(self) -> dict[str, Any]:
        """All of it; returns the content of results.json."""
        book, runs = self._book, self._out / "runs"
        self._results, self._stored = book.read(self._out / RESULTS), book.read(self._out / record.NAME)
        manifests = [book.read(path) for path in sorted(runs.glob("*/manifest.json"))]
        self._recipes = [found["config"] for found in manifests if isinstance(found.get("config"), dict)]
        try:
            self.config = from_dict(plain(self._recipe()))
            self.arms, self.shape = arms_of(self.config), shape_of(self.config)
            self.budget = Budget.of(self.config.budget)
        except Exception as e:  # as in `reading`; without a recipe there is nothing to hold anything against
            book.add(self._out / RESULTS, f"a recipe that cannot be used ({e})", WRITTEN)
            return self._results
        self.places = places(self.config, self._out, self._shared)
        self.facts = self._results.get("teacher")
        others = {str(found["jax"]) for found in (self._results, *manifests) if "jax" in found} - {jax.__version__}
        # Prices may then differ by a fraction of a per cent, and all else follows from those that were recorded.
        self._note = f" (JAX {jax.__version__}; recorded under {', '.join(sorted(others))})" if others else ""
        path = self._out / record.NAME
        with book.reading(path):
            kept = self._stored.get("config", {})
            book.same(path, kept, _among(plain(to_dict(self.config)), kept), "config")
        self._read_corpus()
        self._read_teacher()
        self._read_cache()
        for name, arm in self.arms.items():
            with book.reading(path):
                self.costs[name] = self._cost(arm)
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        entries = 0
        for name, seed in itertools.product(self.costs, self.config.seeds):
            directory = runs / f"{name}-seed{seed}"
            with book.reading(directory):
                run = _Run(self, self.arms[name], seed, directory, book)
                run.audit()
                rows[name, seed] = run.result
                entries += run.entries
        self._judge(rows)
        tokens = "counted" if self.corpus else f"not counted, there is no whole text in {self._text}"
        book.lines.append(
            f"{self._out}: worked out again: prices {self._prices}, runs {len(rows)}, ledger entries {entries}, "
            f"verdicts {len(self._results.get('verdicts', ()))}; tokens {tokens}"
        )
        return self._results

    def _recipe(self) -> dict[str, Any]:
        """The recipe by results.json; where that does not match its digest, by a run, but for arms and seeds."""
        told, digested = self._results.get("config"), self._results.get("config_digest")
        others = self._recipes
        if not isinstance(told, dict):
            return others[0] if others else {}
        if digest(told) == digested or not others:
            return told
        return {**others[0], **{name: told[name] for name in ("arms", "seeds") if name in told}}

    def _read_corpus(self) -> None:
        """The text, where it is still there."""
        self._text = Path(self.config.data.prepared) if self.config.data.prepared else self.places["data"]
        if not self._text.exists():
            return
        with self._book.reading(self._text):
            if self._book.intact(self._text, Manifest.read(self._text).shards):
                self.corpus = regime_of(self.config, Corpus.open(self._text))

    def _read_teacher(self) -> None:
        """What is known of the teacher, and what fitting its head cost: its steps at their price."""
        if not any(arm.needs_teacher for arm in self.arms.values()):
            return
        config, head, path, name = self.config, self.config.teacher.head, self._out / RESULTS, "teacher"
        if head.budget and self.places["teacher"].exists():
            path, name = self.places["teacher"] / CARD, ""
            self.facts = self._book.read(path) or self.facts
        with self._book.reading(path):
            source = sources.locate(config.teacher.source)
            if self.facts is None or not source.exists():
                return
            before = read_json(source / CARD) if (source / CARD).exists() else {}
            expected = {
                "training_flops": int(config.teacher.training_flops) or before.get("training_flops", 0),
                "head_flops": before.get("head_flops", 0),
            }
            if head.budget:
                shape = Shape(head.batch, config.data.length, config.data.slots)
                cost = price(head_phase(zoo.resolve(config.teacher.architecture), head), shape)
                (fit,) = lay_out(Budget.flops(head.budget), [(1.0, cost)], shape.positions)
                expected["head_flops"] += fit.steps * cost.total
                expected["head_steps"] = fit.steps
                if counts := self.counts(0, head.batch):
                    expected["head_tokens"] = counts.at(fit.steps)["tokens"]
                self._prices += 1
            found = {name: self.facts[name] for name in expected}
            self._book.same(path, found, expected, name, self._note)

    def _read_cache(self) -> None:
        """The stored teacher outputs: their bytes, and their FLOPs by the price of the passes that made them."""
        if not stored_by(self.arms):
            return
        directory = Path(self.config.cache.source or self.places["cache"])
        if not directory.exists():
            return
        with self._book.reading(directory):
            self.cache = manifest = CacheManifest.read(directory)
            self._book.intact(directory, manifest.shards)
            made = {"bytes": sum(shard.bytes for shard in manifest.shards), "flops": self._cache_flops()}
            self._book.same(
                directory, {"bytes": manifest.bytes, "flops": manifest.totals["flops"]}, made, "", self._note
            )

    def _cache_flops(self) -> int:
        return cache_flops(self.config, stored_by(self.arms), self.sequences)

    @property
    def sequences(self) -> int:
        """Of the training split."""
        return int(self.corpus.sequences("train") if self.corpus else self._results["corpus"]["sequences"]["train"])

    def _cost(self, arm: Arm) -> Cost:
        """What a run of an arm costs; under another JAX than the study's, as the study has it."""
        counted = [price(phase, self.shape) for phase in arm.phases]
        self._prices += len(counted)
        found = self._stored["costs"][arm.name] if self._stored else {}
        cost = Cost(tuple(counted), self._upfront(arm, found.get("upfront", {})))
        if found:
            self._book.same(self._out / record.NAME, found, cost.to_json(), f"costs.{arm.name}", self._note)
        return Cost.from_json(found) if found and self._note else cost

    def _upfront(self, arm: Arm, found: Mapping[str, int]) -> dict[str, int]:
        """What is spent before the first step: shares of stored outputs and of the teacher's training."""
        made = {}
        if arm.stored:
            # Arms and seeds may have joined since the share was settled; the manifests tell how many there were.
            recipes = {digest(values): values for values in self._recipes}
            recipes.pop(digest(plain(to_dict(self.config))), None)
            known = [self.config, *(from_dict(plain(values)) for values in recipes.values())]
            shares = [share(self._cache_flops(), sharing(config, arms_of(config))) for config in known]
            told = found.get("teacher_cache", 0)
            made["teacher_cache"] = told if told in shares else shares[0]
        if arm.needs_teacher and self.facts:
            cost = self.facts["training_flops"] + (self.facts["head_flops"] if arm.uses_head else 0)
            made["teacher_training"] = share(cost, self.config.budget.students)
        return made

    def counts(self, seed: int, batch: int) -> _Counts | None:
        """Of the text as batches of a seed; None where the text is not there."""
        if self.corpus is None:
            return None
        data, corpus = self.config.data, self.corpus
        key = (corpus.directory, corpus.digest, seed, batch, data.mask_rate, data.slots, data.views)
        if key not in self._book.counts:
            self._book.counts[key] = _Counts(train_batches(self.config, corpus, batch, seed))
        return self._book.counts[key]

    def run_config(self) -> dict[str, Any]:
        """Of the recipe, what all runs of the study share."""
        shared: dict[str, Any] = _among(plain(to_dict(self.config)), self._stored.get("config", {}))
        return shared

    def _judge(self, runs: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
        """results.json: its rows are the runs', and all else follows from them."""
        path, results, book = self._out / RESULTS, self._results, self._book
        if not results:
            return
        with book.reading(path):
            there = [[row["arm"], row["seed"]] for row in results["runs"]]
            book.same(path, there, [[name, seed] for seed in self.config.seeds for name in self.arms], "runs")
            for n, (name, seed) in enumerate(there):
                if run := runs.get((name, seed)):
                    book.same(path, results["runs"][n], run, f"runs.{n}")
            measured = [book.read(found) for found in sorted(self.places["references"].glob("*/result.json"))]
            for n, row in enumerate(results["references"]):
                if {"metrics": row["metrics"], "details": row["details"]} not in measured:
                    book.add(f"{path}: references.{n}", row["metrics"], f"those of one in {self.places['references']}")
            endpoints = [{name: e[name] for name in ("name", "better", "arms")} for e in results["endpoints"]]
            book.same(path, endpoints, self._endpoints(), "endpoints")
            made = judged(
                self.config,
                self.arms,
                self.costs,
                results["runs"],
                results["references"],
                corpus=corpus_facts(self.config, self.corpus) if self.corpus else results["corpus"],
                endpoints=results["endpoints"],
                teacher=self.facts,
                cache=self.cache,
            )
            left_out: set[str] = set()
            if results["kdjax"] != kdjax.__version__:
                left_out |= {"differences", "same", "notes"}  # another version may have other words
            if stored_by(self.arms) and not self.cache:
                left_out |= {"cache", "notes"}
            found, made = (
                {k: v for k, v in _without_versions(x).items() if k not in left_out} for x in (results, made)
            )
            book.same(path, found, plain(made))

    def _endpoints(self) -> list[dict[str, Any]]:
        """What the recipe measures, on which arms, and which way is better."""
        heads = [name for name, arm in self.arms.items() if arm.trains_mlm_head]
        kinds = ("probe", "finetune") if self.config.evaluation.finetune.steps else ("probe",)
        names = [f"{kind}.{task}" for kind in kinds for task in self.config.evaluation.tasks]
        tasks = [{"name": name, "better": "higher", "arms": list(self.arms)} for name in names]
        return [{"name": "mlm_loss", "better": "lower", "arms": heads}, *tasks]


class _Run:
    """A run's directory, held against its study.

    Attributes:
        entries: how many its ledger has.
        result: the content of result.json.
    """

    def __init__(self, study: _Study, arm: Arm, seed: int, directory: Path, book: _Book):
        self._study, self._arm, self._seed, self._directory, self._book = study, arm, seed, directory, book
        self._cost, self._budget, self._shape = study.costs[arm.name], study.budget, study.shape
        self._stretches: tuple[Stretch, ...] = ()
        if self._budget.countable:
            positions = self._shape.positions
            self._stretches = arm.lay_out(self._budget, self._cost.prices, positions, self._cost.upfront)
        self.entries = 0
        self.result: dict[str, Any] = {}

    def audit(self) -> None:
        """All of it."""
        book, directory = self._book, self._directory
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
            book.same(path, sha256(_tree(load_file(path))), self.result.get("params_sha256", NOTHING), "SHA-256")

    def _manifest(self, path: Path) -> None:
        """Whose the run is."""
        study, manifest = self._study, self._book.read(path)
        if not manifest:
            return
        expected = {
            "arm": self._arm.name,
            "seed": self._seed,
            "arm_settings": plain(to_dict(self._arm.config)),
            "cost": self._cost.to_json(),
            "budget": plain(asdict(self._budget)),
            "teacher": study.facts if self._arm.needs_teacher else None,
            "config": study.run_config(),
            **({"corpus": study.corpus.digest} if study.corpus else {}),
        }
        found = {name: manifest.get(name, NOTHING) for name in expected}
        self._book.same(path, {**found, "config": _among(found["config"], expected["config"])}, expected)

    def _account(self, phases: Sequence[int]) -> dict[str, Any]:
        """What a ledger has to say after so many steps of each phase."""
        steps, counts = sum(phases), self._study.counts(self._seed, self._shape.batch)
        spent = {account: self._cost.upfront.get(account, 0) for account in ACCOUNTS}
        for done, price_of in zip(phases, self._cost.prices, strict=True):
            for part, flops in price_of.parts().items():
                spent[part] += done * flops
        made = {
            "budget": plain(asdict(self._budget)),
            "spent": spent,
            "phases": self._phases(steps) or list(phases),
            "positions": steps * self._shape.positions,
        }
        if not self._arm.stored:
            made["cache_bytes"] = 0
        elif self._study.cache:
            made["cache_bytes"] = self._study.cache.bytes
        if counts and (not self._stretches or steps <= self._stretches[-1].stop):
            made |= counts.at(steps)
        return made

    def _phases(self, steps: int) -> list[int]:
        """How many of so many steps are of each phase; empty where a clock decides."""
        return [min(max(steps - stretch.first, 0), stretch.steps) for stretch in self._stretches]

    def _ledgers(self, path: Path, entries: Sequence[Mapping[str, Any]]) -> Ledger:
        """Every entry of the journal; returns the account at its end, as far as it can be worked out so."""
        book, expected = self._book, {}
        before: list[dict[str, Any]] = []
        opening = {"prices": [one.to_json() for one in self._cost.prices], "positions": self._shape.positions}
        book.same(path, {name: entries[0].get(name) for name in opening}, opening, "entry 0")
        for number, entry in enumerate(entries):
            found = entry["ledger"]
            expected = self._account(found["phases"])
            book.same(path, {name: found[name] for name in expected}, expected, f"entry {number}: ledger")
            if entry["event"] == "restart" and found not in before:
                book.add(f"{path}: entry {number}", "a restart from an account of its own", "one of an entry before")
            elif entry["event"] != "restart" and before and not _follows(before[-1], found):
                book.add(f"{path}: entry {number}", "less than in the entry before", "no less, but for restarts")
            before.append(found)
        book.same(path, [entries[0]["event"], entries[-1]["event"]], ["open", "close"], "first and last event")
        ledger = Ledger.from_json({**before[-1], **expected})
        end = [stretch.steps for stretch in self._stretches]
        if end:
            book.same(path, before[-1]["phases"], end, f"entry {len(entries) - 1}: ledger.phases at the end")
        elif (used := _before_last_step(ledger)) > self._budget.amount:
            book.add(path, f"{used} hours before the last step", f"at most {self._budget.amount}")
        return ledger

    def _result(self, path: Path, ledger: Ledger, closing: Mapping[str, Any]) -> None:
        """The run's result against its account."""
        result, hardware = self.result, self.result["hardware"]
        phases = zip(ledger.phases, self._cost.prices, strict=True)
        expected = {
            "arm": self._arm.name,
            "seed": self._seed,
            "budget": plain(asdict(self._budget)),
            "used": ledger.used,
            "spent": {**ledger.spent, "total": sum(ledger.spent.values()), "charged": ledger.total},
            "cache_bytes": ledger.cache_bytes,
            "steps": ledger.steps,
            "phases": [{"steps": steps, "flops": steps * price_of.total} for steps, price_of in phases],
            "positions": ledger.positions,
            "tokens_seen": ledger.tokens,
            "tokens_unique": ledger.unique_tokens,
            "tokens_masked": ledger.masked_tokens,
            "epochs": ledger.steps * self._shape.batch / self._study.sequences,
            # The evaluation at the end comes after the ledger is closed.
            "wall_clock": {**ledger.seconds, "evaluation": result["wall_clock"]["evaluation"]},
            "params_sha256": closing["params_sha256"],
            "ledger_sha256": closing["sha256"],
        }
        self._book.same(path, {name: result.get(name, NOTHING) for name in expected}, expected)
        model, seconds = sum(ledger.spent[part] for part in PARTS), ledger.seconds["compute"]
        expected = {"model_flops": model}
        for kind, flops in (("model", model), ("hardware", hardware["hardware_flops"])):
            if flops:
                share_of_peak = utilisation(flops, seconds, Peak(**hardware["peak"]), hardware["devices"])
                expected[f"{kind}_utilisation"] = share_of_peak
        self._book.same(path, {name: hardware.get(name, NOTHING) for name in expected}, expected, "hardware")

    def _metrics(self, path: Path) -> None:
        """The figures written on the way: FLOPs by their step, and the curve that the result has of them."""
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        curve = [line for line in lines if "mlm_loss" in line]
        self._book.same(path.with_name("result.json"), self.result.get("curve"), curve, "curve")
        for line in lines if self._stretches else ():
            flops = self._budget.charges(self._account(self._phases(line["step"]))["spent"])
            self._book.same(path, line["flops"], flops, f"step {line['step']}: flops")


def _equal(found: Any, expected: Any) -> bool:
    """Whether two leaves are the same."""
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (found, expected))
    if numbers and isinstance(found + expected, float):
        return math.isclose(found, expected, rel_tol=CLOSE, abs_tol=1e-12)
    return type(found) is type(expected) and bool(found == expected)


def _among(values: Any, like: Any) -> Any:
    """Of a tree, what another has too."""
    if not (isinstance(values, dict) and isinstance(like, dict)):
        return values
    return {key: _among(value, like[key]) for key, value in values.items() if key in like}


def _without_versions(results: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in results.items() if name not in versions()}


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
    pairs += [(seconds, after["seconds"].get(kind, -1.0)) for kind, seconds in before["seconds"].items()]
    return all(a <= b for a, b in pairs)


def _before_last_step(ledger: Ledger) -> float:
    """Hours that the clock showed, at least, when the last step began; what came after it may have taken longer."""
    kinds = [kind for kind in ledger.budget.clock if kind not in ("evaluation", "checkpoint")]
    return (sum(ledger.seconds.get(kind, 0.0) for kind in kinds) - ledger.step_seconds) / 3600
