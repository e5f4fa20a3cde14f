"""A study's directory, held against its recipe: prices, text, teacher, stored outputs, runs and
verdicts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import kdjax
from kdjax.audit.book import WRITTEN, Book, among
from kdjax.audit.counts import Counts
from kdjax.audit.run import RunAudit
from kdjax.audit.teacher import TeacherAudit
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import schedule_phases
from kdjax.config import Config, plain, to_dict
from kdjax.data.corpus import Corpus, regime_of
from kdjax.data.manifest import Manifest
from kdjax.data.prepare.reference_losses import compute
from kdjax.data.text import sources
from kdjax.dry_run.arms import arms_of, shape_of
from kdjax.dry_run.charges import cache_flops, probe_charge, share, sharing, stored_by
from kdjax.dry_run.teacher_cost import TeacherCost
from kdjax.files import digest
from kdjax.models import zoo
from kdjax.recipes import from_dict
from kdjax.results.schema import CorpusFacts, TeacherFacts, Tuning
from kdjax.results.store import from_plain, results_of, to_plain
from kdjax.study import manifest as record
from kdjax.study.artifact_dirs import artifact_dirs
from kdjax.study.batches import train_batches
from kdjax.study.machine import versions
from kdjax.study.manifest import Cost
from kdjax.study.results import corpus_facts, judged, teacher_facts
from kdjax.study.tuned import tuning_of
from kdjax.teacher_cache.manifest import CacheManifest
from kdjax.training.arm import Arm
from kdjax.training.checksum import sha256
from kdjax.training.phase import BatchShape, price
from kdjax.training.teacher_directories import (
    CARD,
    read_card,
    read_teacher,
    seed_directory,
    source_directories,
)
from kdjax.training.teacher_head import head_phase
from kdjax.training.teacher_pretraining import stream_seed

RESULTS = "results.json"

COUNTED = 64
"""Sequences whose tokens are counted at once."""


class StudyAudit:
    """A study's directory, held against its recipe."""

    config: Config
    arms: dict[str, Arm]
    places: dict[str, Path]
    shape: BatchShape
    budget: Budget

    def __init__(self, out: Path, shared: Path | None, book: Book):
        self._out = out
        self._shared = shared
        self._book = book
        self.corpus: Corpus | None = None
        self.cache: CacheManifest | None = None
        self.costs: dict[str, Cost] = {}
        self._prices = 0
        self._entries = 0

    def audit(self) -> dict[str, Any]:
        """All of it; returns the content of results.json."""
        book = self._book
        runs = self._out / "runs"
        self._results = book.read(self._out / RESULTS)
        self._stored = book.read(self._out / record.NAME)
        manifests = [book.read(path) for path in sorted(runs.glob("*/manifest.json"))]
        self._recipes = [
            found["config"] for found in manifests if isinstance(found.get("config"), dict)
        ]
        try:
            self.config = from_dict(plain(self._recipe()))
            self.arms = arms_of(self.config)
            self.shape = shape_of(self.config)
            self.budget = Budget.of(self.config.budget)
        # As in `reading`; without a recipe there is nothing to hold anything against
        except Exception as e:
            book.add(self._out / RESULTS, f"a recipe that cannot be used ({e})", WRITTEN)
            return self._results
        self.places = artifact_dirs(self.config, self._out, self._shared)
        self.facts = self._results.get("teacher")
        others = {str(found["jax"]) for found in (self._results, *manifests) if "jax" in found} - {
            jax.__version__
        }
        # Prices may then differ by a fraction of a per cent, and all else follows from those that
        # were recorded.
        self._note = (
            f" (JAX {jax.__version__}; recorded under {', '.join(sorted(others))})"
            if others
            else ""
        )
        path = self._out / record.NAME
        with book.reading(path):
            kept = self._stored.get("config", {})
            book.same(path, kept, among(plain(to_dict(self.config)), kept), "config")
        self._read_corpus()
        self._read_teacher()
        self._read_cache()
        for name, arm in self.arms.items():
            with book.reading(path):
                self.costs[name] = self._cost(arm)
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        for name, seed in itertools.product(self.costs, self.config.seeds):
            directory = runs / f"{name}-seed{seed}"
            with book.reading(directory):
                run = RunAudit(self, self.arms[name], seed, directory, book)
                run.audit()
                rows[name, seed] = run.result
                self._entries += run.entries
        self._judge(rows)
        tokens = (
            "counted" if self.corpus else f"not counted, there is no whole text in {self._text}"
        )
        book.lines.append(
            f"{self._out}: worked out again: prices {self._prices}, runs {len(rows)}, ledger "
            f"entries {self._entries}, "
            f"verdicts {len(self._results.get('verdicts', ()))}; tokens {tokens}"
        )
        return self._results

    def _recipe(self) -> dict[str, Any]:
        """The recipe by results.json; where that does not match its digest, by a run, but for arms
        and seeds."""
        told = self._results.get("config")
        digested = self._results.get("config_digest")
        others = self._recipes
        if not isinstance(told, dict):
            return others[0] if others else {}
        if digest(told) == digested or not others:
            return told
        return {**others[0], **{name: told[name] for name in ("arms", "seeds") if name in told}}

    def _read_corpus(self) -> None:
        """The text, where it is still there."""
        self._text = (
            Path(self.config.data.prepared) if self.config.data.prepared else self.places["data"]
        )
        if not self._text.exists():
            return
        with self._book.reading(self._text):
            if self._book.intact(self._text, Manifest.read(self._text).shards):
                self.corpus = regime_of(self.config.data, Corpus.open(self._text))

    def _read_teacher(self) -> None:
        """What is known of the teacher, and what fitting its head cost: its steps at their
        price."""
        if not any(arm.needs_teacher for arm in self.arms.values()):
            return
        if self.config.teacher.train.budget:
            self._read_trained_teachers()
            return
        config, head, path, name = (
            self.config,
            self.config.teacher.head,
            self._out / RESULTS,
            "teacher",
        )
        if head.budget and self.places["teacher"].exists():
            path = self.places["teacher"] / CARD
            name = ""
            self.facts = self._book.read(path) or self.facts
        with self._book.reading(path):
            if self.facts is None or not sources.locate(config.teacher.source).exists():
                return
            directory = source_directories(config)[0].path
            before = TeacherCost.of_facts(read_card(directory))
            expected: dict[str, Any] = {
                "training_flops": int(config.teacher.training_flops) or before.training,
                "tuning_flops": before.tuning,
                "head_flops": before.head,
            }
            if head.budget:
                shape = BatchShape(
                    head.batch_size, config.data.seq_len, config.data.max_predictions
                )
                cost = price(head_phase(zoo.resolve(config.teacher.architecture), head), shape)
                (fit,) = schedule_phases(
                    Budget.flops(head.budget), [(1.0, cost)], shape.tokens_per_step
                )
                account = "tuning_flops" if head.encoder == "tuned" else "head_flops"
                expected[account] += fit.steps * cost.total
                expected["head_steps"] = fit.steps
                if counts := self.counts(0):
                    expected["head_tokens"] = counts.at(fit.steps * head.batch_size)["tokens"]
                self._prices += 1
            found = {name: self.facts.get(name, 0) for name in expected}
            self._book.same(path, found, expected, name, self._note)
            self._audit_weights(path, name)

    def _audit_weights(self, path: Path, name: str) -> None:
        """Hold the weights of teachers that were read, or fitted with a head, against what the
        study says of them."""
        facts = self.facts or {}
        directories = [one.path for one in source_directories(self.config)]
        if self.config.teacher.head.budget:
            directories = [self.places["teacher"]]
        several = facts.get("teachers", [facts])
        for directory, teacher in zip(directories, several, strict=True):
            if "params_sha256" not in teacher or not directory.exists():
                continue
            found = sha256(read_teacher(directory).params)
            self._book.same(
                path,
                teacher["params_sha256"],
                found,
                ".".join(filter(None, (name, "params_sha256"))),
            )

    def _read_trained_teachers(self) -> None:
        """The teachers that the study trained: their ledgers, checkpoints and cards."""
        place = self.places["teacher"]
        corpus = self.corpus
        if not place.exists():
            return
        cards = []
        for seed in sorted(self.config.teacher.train.seeds):
            with self._book.reading(place / f"seed{seed}"):
                teacher = TeacherAudit(
                    self.config, seed_directory(place, seed), seed, self._book, self._note
                )
                teacher.audit(corpus.digest if corpus else None, self.counts(stream_seed(seed)))
                self._prices += 1
                self._entries += teacher.entries
                cards.append(teacher.card)
        if all(cards):
            self.facts = to_plain(teacher_facts(cards))

    def facts_for(self, seed: int) -> Mapping[str, Any] | None:
        """Return the facts of the teacher that the student of a seed learns from."""
        several: Sequence[Mapping[str, Any]] = (self.facts or {}).get("teachers", ())
        return several[seed % len(several)] if several else self.facts

    def _read_cache(self) -> None:
        """The stored teacher outputs: their bytes, and their FLOPs by the price of the passes that
        made them."""
        if not stored_by(self.arms):
            return
        directory = Path(self.config.cache.source or self.places["cache"])
        if not directory.exists():
            return
        with self._book.reading(directory):
            self.cache = manifest = CacheManifest.read(directory)
            self._book.intact(directory, manifest.shards)
            made = {
                "bytes": sum(shard.bytes for shard in manifest.shards),
                "flops": self._cache_flops(),
            }
            self._book.same(
                directory,
                {"bytes": manifest.bytes, "flops": manifest.totals["flops"]},
                made,
                "",
                self._note,
            )

    def _cache_flops(self) -> int:
        return cache_flops(self.config, stored_by(self.arms), self.sequences)

    @property
    def sequences(self) -> int:
        """Of the training split."""
        return int(
            self.corpus.sequences("train")
            if self.corpus
            else self._results["corpus"]["sequences"]["train"]
        )

    def _cost(self, arm: Arm) -> Cost:
        """What a run of an arm costs; under another JAX than the study's, as the study has it."""
        counted = [price(phase, phase.shape(self.shape)) for phase in arm.phases]
        self._prices += len(counted)
        found = self._stored["costs"][arm.name] if self._stored else {}
        cost = Cost(tuple(counted), self._upfront(arm, found.get("upfront", {})))
        if found:
            self._book.same(
                self._out / record.NAME, found, cost.to_json(), f"costs.{arm.name}", self._note
            )
        return Cost.from_json(found) if found and self._note else cost

    def _upfront(self, arm: Arm, found: Mapping[str, int]) -> dict[str, int]:
        """What is spent before the first step: shares of stored outputs and of the teacher's
        training."""
        made = probe_charge(self.config, arm)
        if arm.stored:
            # Arms and seeds may have joined since the share was settled; the manifests tell how
            # many there were.
            recipes = {digest(values): values for values in self._recipes}
            recipes.pop(digest(plain(to_dict(self.config))), None)
            known = [self.config, *(from_dict(plain(values)) for values in recipes.values())]
            shares = [
                share(self._cache_flops(), sharing(config, arms_of(config))) for config in known
            ]
            told = found.get("teacher_cache", 0)
            made["teacher_cache"] = told if told in shares else shares[0]
        if arm.needs_teacher and self.facts:
            cost = TeacherCost.of_facts(self.facts).charged_to(arm)
            made["teacher_training"] = share(cost, self.config.budget.students)
        return made

    def counts(self, seed: int) -> Counts | None:
        """Of the text in a seed's order; None where the text is not there."""
        if self.corpus is None:
            return None
        data = self.config.data
        corpus = self.corpus
        key = (
            corpus.directory,
            corpus.digest,
            seed,
            data.mlm_probability,
            data.max_predictions,
            data.mask_copies,
        )
        if key not in self._book.counts:
            self._book.counts[key] = Counts(
                train_batches(self.config, corpus, min(COUNTED, corpus.sequences("train")), seed)
            )
        return self._book.counts[key]

    def run_config(self) -> dict[str, Any]:
        """Of the recipe, what all runs of the study share."""
        shared: dict[str, Any] = among(plain(to_dict(self.config)), self._stored.get("config", {}))
        return shared

    def _judge(self, runs: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
        """results.json: its rows are the runs', and all else follows from them."""
        path = self._out / RESULTS
        results = self._results
        book = self._book
        if not results:
            return
        with book.reading(path):
            there = [[row["arm"], row["seed"]] for row in results["runs"]]
            book.same(
                path,
                there,
                [[name, seed] for seed in self.config.seeds for name in self.arms],
                "runs",
            )
            for n, (name, seed) in enumerate(there):
                if run := runs.get((name, seed)):
                    book.same(path, results["runs"][n], run, f"runs.{n}")
            measured = [
                book.read(found)
                for found in sorted(self.places["references"].glob("*/result.json"))
            ]
            for n, row in enumerate(results["references"]):
                if {"metrics": row["metrics"], "details": row["details"]} not in measured:
                    book.add(
                        f"{path}: references.{n}",
                        row["metrics"],
                        f"those of one in {self.places['references']}",
                    )
            endpoints = [
                {name: e[name] for name in ("name", "better", "arms")} for e in results["endpoints"]
            ]
            book.same(path, endpoints, self._endpoints(), "endpoints")
            recorded = results_of(results, path)
            facts = [self.facts] if self.facts else []
            teacher = [from_plain(TeacherFacts, one, f"{path}: teacher") for one in facts]
            made = judged(
                self.config,
                self.arms,
                self.costs,
                recorded.runs,
                recorded.references,
                corpus=self._corpus_facts(recorded.corpus),
                endpoints=recorded.endpoints,
                teacher=teacher[0] if teacher else None,
                cache=self.cache,
                tuning=self._tuning(recorded.tuning),
                wall_clock=recorded.wall_clock,
            )
            left_out: set[str] = set()
            if results["kdjax"] != kdjax.__version__:
                left_out |= {"differences", "same", "notes"}  # another version may have other words
            if stored_by(self.arms) and not self.cache:
                left_out |= {"cache", "notes"}
            found, expected = (
                {k: v for k, v in without_versions(to_plain(x)).items() if k not in left_out}
                for x in (recorded, made)
            )
            book.same(path, found, expected)

    def _tuning(self, found: Tuning | None) -> Tuning | None:
        """Return how the arms were tuned; as it was found where the tuning's file is not there."""
        if self.config.tuning and not Path(self.config.tuning).exists():
            return found
        return tuning_of(self.config)

    def _corpus_facts(self, found: CorpusFacts) -> CorpusFacts:
        """What the text and the texts for evaluation say; what is not there any more, as it was
        found."""
        texts = {name: self.places["texts"] / name for name in self.config.evaluation.texts}
        if self.corpus is None or not all(directory.exists() for directory in texts.values()):
            return found
        opened = {name: Corpus.open(directory) for name, directory in texts.items()}
        # The text's own cross-entropies are counted again.
        return corpus_facts(self.config, self.corpus, compute(self.corpus), opened)

    def _endpoints(self) -> list[dict[str, Any]]:
        """What the recipe measures, on which arms, and which way is better."""
        heads = [name for name, arm in self.arms.items() if arm.trains_mlm_head]
        kinds = ("probe", "finetune") if self.config.evaluation.finetune.steps else ("probe",)
        names = [f"{kind}.{task}" for kind in kinds for task in self.config.evaluation.tasks]
        tasks = [{"name": name, "better": "higher", "arms": list(self.arms)} for name in names]
        texts = ["", *(f".{name}" for name in self.config.evaluation.texts)]
        losses = [{"name": f"mlm_loss{text}", "better": "lower", "arms": heads} for text in texts]
        probed = texts if self.config.evaluation.mlm_probe.tokens else []
        probes = [
            {"name": f"mlm_probe{text}", "better": "lower", "arms": list(self.arms)}
            for text in probed
        ]
        return [*losses, *probes, *tasks]


def without_versions(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results but for what they were made with, and how long that took."""
    return {
        name: value for name, value in results.items() if name not in (*versions(), "wall_clock")
    }
